"""The floor: the smallest responder that still does a job honestly. One websocket, verify, sign twice, forget.

`python -m bench.floor RELAY` prints `{"pubkey", "pid"}`. It answers kind 5050 with 7000 `processing` and the echo as
6050. It keeps nothing, asks nobody and is paid nothing: what a node adds to it is the price of being a node.

There are two. `--crypto nostr_sdk` is the reference, for which the targets are set: what a short script with the usual
library does. `--crypto coincurve` is the best that we know how to write in Python, about three times as fast; the
bench prints the ratio to it as well, so that nobody mistakes a slow yardstick for a fast node.
"""

import argparse
import asyncio
import hashlib
import os
import signal
import time
from typing import Any, Protocol

import aiohttp
import nostr_sdk
import orjson
from coincurve import PrivateKey, PublicKeyXOnly

MAX_KEYS = 10_000


class Crypto(Protocol):
    """Who we are, and how we check and sign."""

    pubkey: str

    def true(self, event: dict[str, Any]) -> bool:
        """Whether id and signature are right."""

    def signed(self, kind: int, content: str, tags: list[list[str]]) -> bytes:
        """A new event as JSON."""


class Sdk:
    """With nostr_sdk alone."""

    def __init__(self) -> None:
        self._keys = nostr_sdk.Keys.generate()
        self.pubkey: str = self._keys.public_key().to_hex()

    def true(self, event: dict[str, Any]) -> bool:
        """Parse again and verify."""
        return bool(nostr_sdk.Event.from_json(orjson.dumps(event).decode()).verify())

    def signed(self, kind: int, content: str, tags: list[list[str]]) -> bytes:
        """Build, sign, serialise."""
        builder = nostr_sdk.EventBuilder(nostr_sdk.Kind(kind), content)
        event = builder.tags([nostr_sdk.Tag.parse(tag) for tag in tags]).finalize(self._keys)
        return str(event.as_json()).encode()


class Coincurve:
    """With libsecp256k1 directly, and each author's point parsed once."""

    def __init__(self) -> None:
        self._key = PrivateKey()
        self._authors: dict[str, PublicKeyXOnly] = {}
        self.pubkey: str = self._key.public_key.format(compressed=True)[1:].hex()

    def true(self, event: dict[str, Any]) -> bool:
        """Hash, compare, verify."""
        hashed = _digest(event["pubkey"], event["created_at"], event["kind"], event["tags"], event["content"])
        if hashed.hex() != event["id"]:
            return False
        author = self._authors.get(event["pubkey"])
        if author is None:
            if len(self._authors) >= MAX_KEYS:
                self._authors.clear()
            author = self._authors[event["pubkey"]] = PublicKeyXOnly(bytes.fromhex(event["pubkey"]))
        return bool(author.verify(bytes.fromhex(event["sig"]), hashed))

    def signed(self, kind: int, content: str, tags: list[list[str]]) -> bytes:
        """Hash, sign, serialise."""
        now = int(time.time())
        hashed = _digest(self.pubkey, now, kind, tags, content)
        event = {
            "id": hashed.hex(), "pubkey": self.pubkey, "created_at": now, "kind": kind,
            "tags": tags, "content": content, "sig": self._key.sign_schnorr(hashed).hex(),
        }  # fmt: skip
        return orjson.dumps(event)


CRYPTO: dict[str, type[Sdk] | type[Coincurve]] = {"nostr_sdk": Sdk, "coincurve": Coincurve}


def _digest(author: str, created_at: int, kind: int, tags: Any, content: str) -> bytes:
    return hashlib.sha256(orjson.dumps([0, author, created_at, kind, tags, content])).digest()


async def respond(relay: str, crypto: Crypto) -> None:
    """Answer on one connection until the relay hangs up."""
    async with aiohttp.ClientSession() as http, http.ws_connect(relay, max_msg_size=1 << 20) as link:
        wanted = {"kinds": [5050], "#p": [crypto.pubkey], "since": int(time.time())}
        await link.send_str(orjson.dumps(["REQ", "jobs", wanted]).decode())
        async for message in link:
            frame = orjson.loads(message.data)
            if frame[0] == "EOSE":
                print(orjson.dumps({"pubkey": crypto.pubkey, "pid": os.getpid()}).decode(), flush=True)
            if frame[0] != "EVENT" or not crypto.true(frame[2]):
                continue
            job = frame[2]
            text = next((tag[1] for tag in job["tags"] if tag[0] == "i"), "")
            to = [["e", job["id"]], ["p", job["pubkey"]]]
            await _publish(link, crypto.signed(7000, "", [*to, ["status", "processing"]]))
            await _publish(link, crypto.signed(6050, text, [*to, ["request", orjson.dumps(job).decode()]]))


async def _publish(link: aiohttp.ClientWebSocketResponse, event: bytes) -> None:
    await link.send_frame(b'["EVENT",' + event + b"]", aiohttp.WSMsgType.TEXT)


async def _main(relay: str, crypto: Crypto) -> None:
    task = asyncio.create_task(respond(relay, crypto))
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    await asyncio.gather(task, return_exceptions=True)
    if not task.cancelled() and (error := task.exception()):
        raise error


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("relay")
    parser.add_argument("--crypto", choices=sorted(CRYPTO), default="nostr_sdk")
    asked = parser.parse_args()
    asyncio.run(_main(asked.relay, CRYPTO[asked.crypto]()))
