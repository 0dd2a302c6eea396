"""A signer that lives elsewhere (NIP-46), as a `Signer`: asked over relays, connected only while it is needed.

nostr-sdk has a client for this; what it lacks is told in docs/adr/0010. A request goes to all relays of the signer's
address with the same id; the first answer counts. A connection that breaks is made anew and what is still open is
asked again, until the time is up.
"""

import asyncio
import logging
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import aiohttp
import orjson

from core.clock import Clock
from core.effect import Permit
from core.error import InvalidInput
from core.identifier import EventId, PubKey, is_hex64
from relays.error import ForgedEvent, MalformedEvent, NotForUs, SignerUnavailable
from relays.event import Draft, Event, verified
from relays.key import Key
from relays.kind import CLIENT_AUTH
from relays.nip46 import AUTH_URL, KIND, Bunker, Response, draft_text, read_response, read_signed, request_text

log = logging.getLogger(__name__)

ASK_S = 20.0  # a person may have to press a button
PAIR_S = 120.0
IDLE_S = 300.0
_AGAIN_S = (0.2, 0.5, 1.0, 2.0, 5.0)
_BEAT_S = 15.0
_FRAME_BYTES = 1 << 18
_SKEW_S = 60
_MAX_OPEN = 256

OnAddress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Wire:
    """What a talk with a signer is made of.

    Attributes:
        http: opens the websockets.
        clock: time.
        check: the gate's; asked before each event leaves.
        permit: the gate's leave for this protocol's traffic.
    """

    http: aiohttp.ClientSession
    clock: Clock
    check: Callable[[Permit], None]
    permit: Callable[[], Permit]


class Talk:
    """Requests and answers with one signer over its relays.

    Args:
        wire: what it is made of.
        app: our key in this talk and for nothing else.
        signer: whose answers count; None while anybody may be the signer that we wait for (`nostrconnect://`).
        relays: where to meet.
    """

    def __init__(self, wire: Wire, app: Key, signer: PubKey | None, relays: Sequence[str]) -> None:
        self._wire, self._app, self.signer, self._relays = wire, app, signer, tuple(relays)
        self._open: dict[str, tuple[Event, asyncio.Future[Response]]] = {}
        self._sockets: dict[str, aiohttp.ClientWebSocketResponse] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._used = 0.0
        self._greeting: asyncio.Future[PubKey] | None = None
        self._password = ""
        self.on_address: OnAddress = lambda _: None

    # ---- asking

    async def ask(self, method: str, params: Sequence[str], timeout: float = ASK_S) -> str:
        """The result of one request.

        Raises:
            InvalidInput: the request is too long.
            SignerUnavailable: no relay, no answer in time, or the signer said no.
        """
        response = await self.answer(method, params, timeout)
        if response.error:
            raise SignerUnavailable(f"The remote signer refused: {response.error[:200]!r}.")
        return response.result

    async def answer(self, method: str, params: Sequence[str], timeout: float = ASK_S) -> Response:
        """The answer to one request, also if it is a no.

        Raises:
            InvalidInput: the request is too long.
            SignerUnavailable: no relay, or no answer in time.
        """
        assert self.signer is not None, "who is asked is known"
        if len(self._open) >= _MAX_OPEN:
            raise SignerUnavailable("Too many requests wait for the remote signer.")
        request_id = secrets.token_hex(8)
        text = self._app.encrypt(self.signer, request_text(request_id, method, params))
        event = self._app.sign(Draft(KIND, text, (("p", self.signer),), self._wire.clock.now()))
        answer: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        self._open[request_id] = (event, answer)
        try:
            async with asyncio.timeout(timeout):
                self.connect()
                await self._send_all(event)
                return await answer
        except TimeoutError as error:
            where = "the relay cannot be reached" if not self._sockets else "no answer came"
            raise SignerUnavailable(f"The remote signer did not answer within {timeout:g} s: {where}.") from error
        finally:
            del self._open[request_id]

    async def _send_all(self, event: Event) -> None:
        for url, socket in list(self._sockets.items()):
            await self._send(url, socket, ["EVENT", event.to_dict()])

    async def _send(self, url: str, socket: aiohttp.ClientWebSocketResponse, frame: list[object]) -> None:
        self._wire.check(self._wire.permit())
        try:
            await socket.send_str(orjson.dumps(frame).decode())
        except (aiohttp.ClientError, ConnectionError):
            log.debug("a relay of a remote signer went away", extra={"action": "bunker_lost", "relay": url})

    # ---- connections

    def connect(self) -> None:
        """Be connected to the relays from now on, until nothing was asked for a while."""
        self._used = self._wire.clock.monotonic()
        for url in self._relays:
            task = self._tasks.get(url)
            if task is not None and task.done() and not task.cancelled() and (error := task.exception()) is not None:
                log.error("a talk with a remote signer failed", extra={"action": "bunker_failed"}, exc_info=error)
            if task is None or task.done():
                self._tasks[url] = asyncio.create_task(self._keep(url), name=f"bunker {url}")

    async def aclose(self) -> None:
        """End every connection."""
        tasks, self._tasks = list(self._tasks.values()), {}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _needed(self) -> bool:
        waiting = bool(self._open) or (self._greeting is not None and not self._greeting.done())
        return waiting or self._wire.clock.monotonic() - self._used < IDLE_S

    async def _keep(self, url: str) -> None:
        tries = 0
        while self._needed:
            begun = self._wire.clock.monotonic()
            try:
                await self._session(url)
            except (aiohttp.ClientError, OSError, TimeoutError) as error:
                log.info(
                    "a relay of a remote signer cannot be reached: %s",
                    type(error).__name__,
                    extra={"action": "bunker_unreachable", "relay": url},
                )
            tries = 0 if self._wire.clock.monotonic() - begun > _BEAT_S else tries + 1
            await self._wire.clock.sleep(_AGAIN_S[min(tries, len(_AGAIN_S) - 1)])

    async def _session(self, url: str) -> None:
        timeout = aiohttp.ClientWSTimeout(ws_close=2.0)
        async with self._wire.http.ws_connect(
            url, heartbeat=_BEAT_S, max_msg_size=_FRAME_BYTES, timeout=timeout
        ) as socket:
            visit = _Visit(self, url, socket)
            await visit.listen()
            self._sockets[url] = socket
            try:
                for event, _ in list(self._open.values()):
                    await self._send(url, socket, ["EVENT", event.to_dict()])
                while self._needed:
                    try:
                        message = await socket.receive(timeout=IDLE_S)
                    except TimeoutError:
                        continue
                    if message.type is not aiohttp.WSMsgType.TEXT:
                        return
                    await visit.heard(str(message.data))
            finally:
                self._sockets.pop(url, None)

    # ---- answers

    def received(self, value: object) -> None:
        """An event from a relay, not yet verified. What is no answer to us is passed over."""
        try:
            event = verified(value)
            if event.kind != KIND or event.value("p") != self._app.pubkey:
                return
            if self.signer is not None and event.pubkey != self.signer:
                return
            response = read_response(self._app.decrypt(event.pubkey, event.content))
        except (MalformedEvent, ForgedEvent, NotForUs) as error:
            log.debug("not a signer's answer: %s", error.code, extra={"action": "bunker_junk"})
            return
        if self.signer is None:
            self._greeted(event.pubkey, response.result)
            return
        if response.result == AUTH_URL:
            if response.error.startswith(("https://", "http://")) and response.error.isprintable():
                self.on_address(response.error[:500])  # it goes to a terminal, and a person opens it
            return
        found = self._open.get(response.id)
        if found is not None and not found[1].done():
            found[1].set_result(response)

    def _greeted(self, signer: PubKey, said: str) -> None:
        """Somebody calls. Judged here and at once, so that a crowd of impostors hides nobody."""
        if self._greeting is None or self._greeting.done():
            return
        if secrets.compare_digest(said.encode(), self._password.encode()):
            self._greeting.set_result(signer)
        else:
            log.warning("somebody called without the secret", extra={"action": "bunker_impostor"})

    async def await_call(self, secret: str, timeout: float = PAIR_S) -> PubKey:
        """Wait until a signer that was given our `nostrconnect://` address calls; the talk goes on with it alone.

        Raises:
            SignerUnavailable: none called in time.
        """
        self._password = secret
        self._greeting = asyncio.get_running_loop().create_future()
        self.connect()
        try:
            async with asyncio.timeout(timeout):
                self.signer = await self._greeting
        except TimeoutError as error:
            raise SignerUnavailable(f"No signer called within {timeout:g} s.") from error
        finally:
            self._greeting = None
        return self.signer


class _Visit:
    """One connection to one relay: its subscription, and its challenge if it wants to know who we are (NIP-42)."""

    def __init__(self, talk: Talk, url: str, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._talk, self._url, self._socket = talk, url, socket
        self._challenge: str | None = None
        self._proof: EventId | None = None
        self._wanted = False

    async def listen(self) -> None:
        talk = self._talk
        since = talk._wire.clock.now() - _SKEW_S
        wanted = {"kinds": [KIND], "#p": [talk._app.pubkey], "since": since}
        await talk._send(self._url, self._socket, ["REQ", secrets.token_hex(4), wanted])

    async def heard(self, raw: str) -> None:
        try:
            frame = orjson.loads(raw)
        except orjson.JSONDecodeError:
            return
        match frame:
            case ["EVENT", str(), value]:
                self._talk.received(value)
            case ["AUTH", str() as challenge]:
                self._challenge = challenge
                if self._wanted:
                    await self._prove()
            case ["CLOSED", str(), str() as reason] if reason.startswith("auth-required"):
                await self._prove()
            case ["OK", str() as event_id, bool() as accepted, *reason]:
                await self._answered(event_id, accepted, str(reason[0]) if reason else "")

    async def _prove(self) -> None:
        self._wanted = True
        if self._challenge is None or self._proof is not None:
            return
        talk = self._talk
        tags = (("relay", self._url), ("challenge", self._challenge))
        event = talk._app.sign(Draft(CLIENT_AUTH, "", tags, talk._wire.clock.now()))
        self._proof = event.id
        await talk._send(self._url, self._socket, ["AUTH", event.to_dict()])

    async def _answered(self, event_id: str, accepted: bool, reason: str) -> None:
        if event_id == self._proof:
            if accepted:  # what was refused before is asked again, once
                await self.listen()
                for event, _ in list(self._talk._open.values()):
                    await self._talk._send(self._url, self._socket, ["EVENT", event.to_dict()])
        elif not accepted and reason.startswith("auth-required"):
            await self._prove()
        elif not accepted:
            log.info("a relay refused a request to a signer: %s", reason[:200], extra={"action": "bunker_refused"})


async def pair(talk: Talk, bunker: Bunker, timeout: float = PAIR_S) -> PubKey:
    """Introduce ourselves to a signer. The user whose signatures it gives.

    Raises:
        SignerUnavailable: it did not answer, refused, or answered with something that is no key.
    """
    params = [bunker.signer] + ([bunker.secret] if bunker.secret else [])
    result = await talk.ask("connect", params, timeout)
    if result != "ack" and (not bunker.secret or result != bunker.secret):
        raise SignerUnavailable("The remote signer answered the greeting with something else than an ack.")
    return await user_of(talk, timeout)


async def user_of(talk: Talk, timeout: float = ASK_S) -> PubKey:
    """Whose signatures the signer gives.

    Raises:
        SignerUnavailable: it did not answer, or not with a key.
    """
    answer = await talk.ask("get_public_key", (), timeout)
    if not is_hex64(answer):
        raise SignerUnavailable("The remote signer named no public key.")
    return PubKey(answer)


class RemoteSigner:
    """A `Signer` that asks. What comes back is checked: a signer that answers with something else is unavailable."""

    def __init__(self, talk: Talk, user: PubKey, timeout: float = ASK_S) -> None:
        self._talk, self._user, self._timeout = talk, user, timeout

    def __repr__(self) -> str:
        return f"RemoteSigner({self._user})"

    @property
    def pubkey(self) -> PubKey:
        """Whose signatures these are."""
        return self._user

    async def aclose(self) -> None:
        """End the connections."""
        await self._talk.aclose()

    async def sign(self, draft: Draft) -> Event:
        """Sign an event (NIP-01).

        Raises:
            InvalidInput: the draft is too long for NIP-46.
            SignerUnavailable: the signer did not answer, refused, or signed something else.
        """
        text = await self._talk.ask("sign_event", [draft_text(self._user, draft)], self._timeout)
        try:
            return read_signed(text, self._user, draft)
        except InvalidInput as error:
            raise SignerUnavailable(f"The remote signer's answer is of no use: {error.message}") from error

    async def encrypt(self, peer: PubKey, text: str) -> str:
        """NIP-44 version 2.

        Raises:
            InvalidInput: the text is too long for NIP-46.
            SignerUnavailable: the signer did not answer, or refused.
        """
        return await self._talk.ask("nip44_encrypt", [peer, text], self._timeout)

    async def decrypt(self, peer: PubKey, payload: str) -> str:
        """Undo `encrypt`.

        Raises:
            NotForUs: the signer says that it cannot, or will not: it does not tell the two apart in a common way, and
                what is not for us must not be asked for again and again.
            SignerUnavailable: the signer did not answer.
        """
        return await self._decrypted("nip44_decrypt", peer, payload)

    async def encrypt_legacy(self, peer: PubKey, text: str) -> str:
        """NIP-04; raises as `encrypt`."""
        return await self._talk.ask("nip04_encrypt", [peer, text], self._timeout)

    async def decrypt_legacy(self, peer: PubKey, payload: str) -> str:
        """NIP-04; raises as `decrypt`."""
        return await self._decrypted("nip04_decrypt", peer, payload)

    async def _decrypted(self, method: str, peer: PubKey, payload: str) -> str:
        response = await self._talk.answer(method, [peer, payload], self._timeout)
        if response.error:
            raise NotForUs(f"The remote signer does not open it: {response.error[:200]!r}.")
        return response.result
