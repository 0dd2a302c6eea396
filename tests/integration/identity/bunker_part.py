"""A bunker (NIP-46) as other people run one: written on nostr-sdk's own types, over a websocket of its own."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import aiohttp
import nostr_sdk as sdk

from relays.event import Event, parse_json
from relays.key import Key

KIND = 24_133
Twist = Callable[[dict[str, Any]], Awaitable[dict[str, Any] | None] | None]


class Bunker:
    """Holds a user's key and does what a client asks that knows the secret. `twist` replaces an answer."""

    def __init__(self, url: str, secret: str = "s3cret") -> None:
        self.url, self.secret = url, secret
        self.own, self.user = sdk.Keys.generate(), sdk.Keys.generate()
        self.trusted: set[str] = set()
        self.asked: list[str] = []
        self.twist: Callable[[dict[str, Any], str], Any] | None = None
        self.listening = asyncio.Event()
        self.send_raw: Callable[[list[Any]], Awaitable[None]] | None = None

    @property
    def uri(self) -> str:
        return f"bunker://{self.own.public_key().to_hex()}?relay={self.url}&secret={self.secret}"

    @property
    def pubkey(self) -> str:
        return str(self.user.public_key().to_hex())

    async def run(self) -> None:
        """Serve, and connect again whenever the relay went away."""
        async with aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with http.ws_connect(self.url) as socket:
                        await self._serve(socket)
                self.listening.clear()
                await asyncio.sleep(0.05)

    async def _serve(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        async def send(frame: list[Any]) -> None:
            await socket.send_str(json.dumps(frame))

        self.send_raw = send
        await send(["REQ", "b", {"kinds": [KIND], "#p": [self.own.public_key().to_hex()]}])
        async for message in socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            frame = json.loads(message.data)
            if frame[0] == "EOSE":
                self.listening.set()
            if frame[0] == "EVENT":
                event = sdk.Event.from_json(json.dumps(frame[2]))
                if event.verify():
                    await self._answer(event)

    async def _answer(self, event: sdk.Event) -> None:
        client = event.author()
        request = json.loads(sdk.nip44_decrypt(self.own.secret_key(), client, event.content()))
        self.asked.append(request["method"])
        answer: dict[str, Any] | None = {"id": request["id"], **self._done(request, client.to_hex())}
        if self.twist is not None:
            answer = self.twist(answer, request["method"])
        if answer is not None:
            await self.say(client.to_hex(), answer)

    async def say(self, client: str, answer: dict[str, Any], keys: sdk.Keys | None = None) -> None:
        keys, to = keys or self.own, sdk.PublicKey.parse(client)
        text = sdk.nip44_encrypt(keys.secret_key(), to, json.dumps(answer), sdk.Nip44Version.V2)
        tags = [sdk.Tag.parse(["p", client])]
        event = sdk.EventBuilder(sdk.Kind(KIND), text).tags(tags).finalize(keys)
        assert self.send_raw is not None
        await self.send_raw(["EVENT", json.loads(event.as_json())])

    def _done(self, request: dict[str, Any], client: str) -> dict[str, Any]:
        method, params = request["method"], request["params"]
        if method == "connect":
            if params[0] != self.own.public_key().to_hex() or params[1:2] != [self.secret]:
                return {"error": "wrong secret"}
            self.trusted.add(client)
            return {"result": "ack"}
        if client not in self.trusted:
            return {"error": "not connected"}
        secret = self.user.secret_key()
        try:
            match method:
                case "get_public_key":
                    return {"result": self.pubkey}
                case "sign_event":
                    return {"result": self._signed(json.loads(params[0]))}
                case "nip44_encrypt":
                    peer = sdk.PublicKey.parse(params[0])
                    return {"result": sdk.nip44_encrypt(secret, peer, params[1], sdk.Nip44Version.V2)}
                case "nip44_decrypt":
                    return {"result": sdk.nip44_decrypt(secret, sdk.PublicKey.parse(params[0]), params[1])}
                case "nip04_encrypt":
                    return {"result": sdk.nip04_encrypt(secret, sdk.PublicKey.parse(params[0]), params[1])}
                case "nip04_decrypt":
                    return {"result": sdk.nip04_decrypt(secret, sdk.PublicKey.parse(params[0]), params[1])}
        except sdk.NostrSdkError as error:
            return {"error": str(error)}
        return {"error": f"unknown method {method}"}

    def _signed(self, body: dict[str, Any]) -> str:
        event: Event = Key(bytes.fromhex(self.user.secret_key().to_hex())).sign(_draft(body))
        assert parse_json(event.to_json()) == event
        return event.to_json()


def _draft(body: dict[str, Any]) -> Any:
    from relays.event import Draft, tags

    return Draft(body["kind"], body["content"], tags(body["tags"]), body["created_at"])


@contextlib.asynccontextmanager
async def bunker(url: str) -> AsyncIterator[Bunker]:
    """A running bunker on a relay."""
    made = Bunker(url)
    task = asyncio.create_task(made.run())
    try:
        async with asyncio.timeout(60):
            await made.listening.wait()
        yield made
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
