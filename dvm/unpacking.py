"""A buyer's large results: fetched when they are ours to fetch, checked twice, and kept in files.

Nothing is fetched for an offer, or for anybody but the seller that was chosen and paid (or is paid when it has
delivered). Addresses are tried in turn, then the seller's own list of file servers (BUD-03): one that is down, slow,
too long, or has other bytes than were announced gives way to the next. All of them are tried again until the time is
over; what then is not here is a bad result. What is paid for and only finds no place on our disk is tried again for a
day: it can still be had.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeGuard

from core.clock import Clock
from core.error import NotFound, VendoError
from core.identifier import PubKey
from dvm.acceptance import MAX_RESULT_BYTES, check_result
from dvm.buyer_event import Event, KeyHeld, KeyShown, ResultArrived, SealedArrived
from dvm.envelope import Envelope
from dvm.error import BadResult, BadSeal, ResultGone
from dvm.job import Funds, Purchase, State
from dvm.parcel import MAX_BYTES, Files, Kept, Servers, kept_of
from dvm.seal_rule import KEEP_MS, safe_until_ms
from dvm.settlement import Method
from relays.blob import ANY_SIZE, Pointer, hash_of, is_pointer, place, read_pointer, read_servers
from relays.error import MalformedEvent, NotForUs
from relays.event import Event as NostrEvent
from relays.event import parse_json
from relays.filter import Filter
from relays.kind import BLOSSOM_SERVERS

log = logging.getLogger(__name__)

RESULTS, EVIDENCE = "results", "evidence"  # folders
AT_ONCE = 8  # addresses that are read at once, of all jobs
SERVER_S = 30.0  # how long one address has
GRACE_MS = 60_000  # a result that was announced in time is fetched so long
FETCH_S = 3.0  # for the seller's list
_FIRST_WAIT_S, _LONGEST_WAIT_S = 1.0, 15.0
_LONGEST_FULL_S = 120.0  # between two tries to keep what the disk did not take
_LONGEST_ODD_S = 1_800.0
Fetch = Callable[[Sequence[Filter], float], Awaitable[list[NostrEvent]]]


@dataclass(frozen=True, slots=True)
class Opened:
    """What the bytes hold, or what is wrong with it. A long text lies in a file, and `content` is empty."""

    content: str = ""
    kept: Kept | None = None
    fault: str = ""
    fraud: bool = False
    ours: bool = False  # the fault is that our disk does not take it


def ours_to_fetch(told: Event, job: Purchase) -> TypeGuard[ResultArrived | SealedArrived]:
    """Whether it says where the result of our job lies, and comes from whom we chose."""
    if not isinstance(told, ResultArrived | SealedArrived) or told.parcel is None:
        return False
    payment = job.payment
    if payment is None or payment.seller != told.seller or job.result_id:
        return False
    early = job.state is State.PAYING and payment.method is Method.INVOICE_BEFORE  # it saw its money before we did
    return early or job.state in (State.WORKING, State.ORDERED)


class Unpacking:
    """Fetches and opens large results.

    Args:
        servers: reaches file servers; what strangers name leads only into the public internet.
        files: where results are kept.
        clock: time.
        fetch: what our relays have stored, verified, within so many seconds.
        max_bytes: of a result's text.
        server_s: how long one address has.
    """

    def __init__(
        self,
        servers: Servers,
        files: Files,
        clock: Clock,
        fetch: Fetch,
        *,
        max_bytes: int = MAX_BYTES,
        server_s: float = SERVER_S,
    ) -> None:
        self.max_bytes = max_bytes
        self._servers, self._files, self._clock, self._fetch = servers, files, clock, fetch
        self._server_s = server_s
        self._places = asyncio.Semaphore(AT_ONCE)
        self._since = clock.now()

    # ---- a result that came

    async def bring(self, job: Purchase, told: ResultArrived | SealedArrived) -> Event:
        """The same event once its bytes are here and good, or with the reason why they are not.

        Args:
            job: as it stands.
            told: as `ours_to_fetch` found it.
        """
        opened = await self._brought(job, told)
        told = replace(told, at_ms=self._clock.millis(), parcel=None, fault=opened.fault, ours=opened.ours)
        if isinstance(told, SealedArrived):
            return told
        return replace(told, content=opened.content, kept=opened.kept)

    async def _brought(self, job: Purchase, told: ResultArrived | SealedArrived) -> Opened:
        pointer, wait = told.parcel, _FIRST_WAIT_S
        assert pointer is not None  # `ours_to_fetch` looked
        until = self._until_ms(job, told)
        while True:
            stored, reason = await self._collected(pointer, told.seller, until)
            if stored is None:
                return Opened(fault=f"It lies on no file server as it was announced: {reason}"[:300])
            try:
                if isinstance(told, ResultArrived):
                    return await self._opened(job, pointer, stored)
                await self._files.hold(pointer.x, stored)  # whoever has paid must not depend on a server for it
                return Opened()
            except VendoError as error:
                fault = f"The result is here, and could not be kept: {error.message}"
            del stored  # megabytes, and the disk may be full for long
            if isinstance(told, ResultArrived) and job.money is not Funds.NONE:
                until = max(until, (job.deadline * 1000) + KEEP_MS)
            wait = await self._room(until, wait)
            if not wait:
                return Opened(fault=fault[:300], ours=True)

    async def _room(self, until_ms: int, wait: float) -> float:
        """Wait until the disk may take something again: how long to wait the next time; 0 if the time is over.

        Where nothing speaks against it and it still takes nothing, the bytes are fetched ever less often.
        """
        while self._clock.millis() + wait * 1000 < until_ms:
            await self._clock.sleep(wait)
            try:
                self._files.check()
            except VendoError:
                wait = min(wait * 2, _LONGEST_FULL_S)
                continue
            return min(wait * 2, _LONGEST_ODD_S)
        return 0.0

    def _until_ms(self, job: Purchase, told: ResultArrived | SealedArrived) -> int:
        until = max(job.deadline * 1000, self._clock.millis() + GRACE_MS)
        payment = job.payment
        if isinstance(told, SealedArrived) and payment is not None:
            return min(until, safe_until_ms(payment))
        return until

    async def _collected(self, pointer: Pointer, seller: str, until_ms: int) -> tuple[bytes | None, str]:
        wait = _FIRST_WAIT_S
        while True:
            stored, reason = await self._round(pointer, seller)
            if stored is not None or self._clock.millis() + wait * 1000 >= until_ms:
                return stored, reason
            await self._clock.sleep(wait)
            wait = min(wait * 2, _LONGEST_WAIT_S)

    async def _round(self, pointer: Pointer, seller: str) -> tuple[bytes | None, str]:
        """Every address once; the bytes, or the last reason why there are none."""
        reason = ""
        for url in pointer.urls:
            stored, reason = await self._from(url, pointer)
            if stored is not None:
                return stored, ""
        for url in await self._listed(pointer, seller):
            stored, reason = await self._from(url, pointer)
            if stored is not None:
                return stored, ""
        return None, reason

    async def _from(self, url: str, pointer: Pointer) -> tuple[bytes | None, str]:
        try:
            async with self._places:
                stored = await self._servers.fetch(url, pointer.size, self._server_s)
                if await asyncio.to_thread(hash_of, stored) == pointer.x:
                    return stored, ""
            reason = "a server has other bytes than were announced"
        except VendoError as error:
            reason = error.message
        log.info("A file server failed: %s", reason, extra={"action": "blob_failed"})
        return None, reason

    async def _listed(self, pointer: Pointer, seller: str) -> tuple[str, ...]:
        """Where else its author keeps files."""
        wanted = Filter(kinds=frozenset({BLOSSOM_SERVERS}), authors=frozenset({PubKey(seller)}))
        try:
            found = await self._fetch([wanted], FETCH_S)
        except VendoError:
            return ()
        newest = max(found, key=lambda event: event.created_at, default=None)
        servers = read_servers(newest) if newest is not None else ()
        return tuple(url for server in servers if (url := place(server, pointer.x)) not in pointer.urls)

    async def _opened(self, job: Purchase, pointer: Pointer, stored: bytes) -> Opened:
        """Decrypt and check it; a long text is in its file when this returns.

        Raises:
            VendoError: the disk does not take it.
        """
        opened, data = await asyncio.to_thread(self._judged, job, pointer, stored)
        if opened.kept is not None and not opened.content:
            await self._files.put(RESULTS, opened.kept.ox, data)
        return opened

    def _judged(self, job: Purchase, pointer: Pointer, stored: bytes) -> tuple[Opened, bytes]:
        try:
            data = pointer.open(stored)
            text = data.decode()
        except NotForUs as error:
            return Opened(fault=error.message, fraud=True), b""
        except UnicodeDecodeError:
            return Opened(fault="The result is no text."), b""
        try:
            check_result(job.ask, text, max(self.max_bytes, MAX_RESULT_BYTES))
        except BadResult as error:
            return Opened(fault=error.message), b""
        return Opened(text if len(data) <= MAX_RESULT_BYTES else "", kept_of(data, pointer.mime)), data

    # ---- a sealed one, when its key is here

    async def shown(self, job: Purchase, preimage: str, secret: str) -> KeyShown | KeyHeld:
        """What the bytes are with the key that was sealed, or why they cannot be had or kept now.

        Args:
            job: its `sealed` names a pointer.
            preimage: as the mint shows it.
            secret: what the seal held.
        """
        now = self._clock.millis()
        try:
            pointer = read_pointer(parse_json(job.sealed).content, ANY_SIZE).with_secret(secret)
        except MalformedEvent as error:
            return KeyShown(now, preimage, "", error.message, fraud=True)
        stored = await self._files.held(pointer.x)
        if stored is None or await asyncio.to_thread(hash_of, stored) != pointer.x:  # our own disk may have spoilt it
            stored, reason = await self._round(pointer, job.seller)
            if stored is None:
                return KeyHeld(now, preimage, f"It is not here any more, and on no file server: {reason}"[:300])
        try:
            opened = await self._opened(job, pointer, stored)
            if opened.fraud:
                await self._files.put(EVIDENCE, pointer.x, stored)
        except VendoError as error:
            log.warning("A result cannot be kept: %s", error.code, extra={"action": "result_unkept"})
            return KeyHeld(now, preimage, f"It is here, and could not be kept: {error.message}"[:300])
        return KeyShown(now, preimage, opened.content, opened.fault, fraud=opened.fraud, kept=opened.kept)

    async def release(self, job: Purchase) -> None:
        """The sealed bytes of this job are needed no more."""
        for x in _held(job):
            await self._files.release(x)

    async def sweep(self, jobs: Iterable[Purchase]) -> None:
        """At the start: let go what no open job waits for."""
        await self._files.sweep({x for job in jobs for x in _held(job)}, self._since)

    # ---- what is kept

    def pieces(self, kept: Kept) -> AsyncIterator[bytes]:
        """A kept result in pieces.

        Raises:
            ResultGone: with the first piece, if it made room for later ones.
        """
        return self._read(kept)

    async def _read(self, kept: Kept) -> AsyncIterator[bytes]:
        try:
            async for piece in self._files.pieces(RESULTS, kept.ox):
                yield piece
        except NotFound as error:
            raise ResultGone from error


def _held(job: Purchase) -> tuple[str, ...]:
    if not job.sealed:
        return ()
    try:
        event = parse_json(job.sealed)
        return (read_pointer(event.content, ANY_SIZE).x,) if is_pointer(event) else ()
    except MalformedEvent:
        return ()


async def shown(envelope: Envelope, unpacking: Unpacking | None, job: Purchase, preimage: str) -> KeyShown | KeyHeld:
    """What the preimage that the mint shows opens, or why that cannot be had or kept yet."""
    now = envelope.clock.millis()
    try:
        text = envelope.unsealed(job, preimage)
    except BadSeal as error:
        return KeyShown(now, preimage, "", error.message, fraud=True)
    if is_pointer(parse_json(job.sealed)):
        if unpacking is None:
            return KeyHeld(now, preimage, "This node fetches no large results any more.")
        return await unpacking.shown(job, preimage, text)
    try:
        check_result(job.ask, text)
    except BadResult as error:
        return KeyShown(now, preimage, text, error.message)
    return KeyShown(now, preimage, text, "")
