"""Kind 5970: finds a nonce for an event (NIP-13), in slices, so that a job can be cancelled at any time."""

import asyncio
import hashlib
import secrets
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass

import orjson

from core.error import InvalidInput
from dvm.acceptance import PROOF_OF_WORK, param
from dvm.nonce import Unsigned, leading_zero_bits, parse_bits, parse_unsigned
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest

__all__ = ["ProofOfWork", "leading_zero_bits", "mine_slice"]

DEFAULT_MAX_BITS = 22
MAX_EVENT_BYTES = 8_192  # every try hashes what follows the nonce: a long event makes every try dearer
SLICE = 100_000
_PLACE = "0" * 16


@dataclass(frozen=True, slots=True)
class Slice:
    """What one worker needs to try some nonces: the canonical event around the place of its nonce."""

    head: bytes
    tail: bytes
    start: int
    count: int
    bits: int


def mine_slice(work: Slice) -> str | None:
    """The first nonce in the slice that gives enough leading zero bits, as 16 hex digits; None if there is none.

    Runs in another process or thread: plain data in, plain data out.
    """
    base = hashlib.sha256(work.head)
    whole, rest = divmod(work.bits, 8)
    zeros = bytes(whole)
    limit = 256 >> rest
    for number in range(work.start, work.start + work.count):
        nonce = b"%016x" % (number & 0xFFFFFFFFFFFFFFFF)
        attempt = base.copy()
        attempt.update(nonce + work.tail)
        found = attempt.digest()
        if found[:whole] == zeros and (rest == 0 or found[whole] < limit):
            return nonce.decode()
    return None


class ProofOfWork:
    """Mines events up to a limit of bits.

    Args:
        executor: where the hashing runs; processes keep the event loop free.
        max_bits: the most that is ever tried; each bit doubles the work.
        workers: slices that run at once for one job.
        start: where to begin; random by default, so that equal jobs do not repeat each other.
    """

    name = "pow"
    kinds = frozenset({PROOF_OF_WORK})

    def __init__(
        self,
        executor: Executor,
        *,
        max_bits: int = DEFAULT_MAX_BITS,
        workers: int = 2,
        start: Callable[[], int] = lambda: secrets.randbits(63),
    ) -> None:
        self._executor = executor
        self._max_bits = max_bits
        self._workers = workers
        self._start = start

    def check(self, request: ComputeRequest) -> None:
        """One unsigned event, and a number of bits within the limit.

        Raises:
            InvalidInput: otherwise.
        """
        self._read(request)

    def _read(self, request: ComputeRequest) -> tuple[Unsigned, int]:
        if len(request.inputs) != 1 or request.inputs[0].type != "text":
            raise InvalidInput("The one input is an unsigned event as JSON, of type text.")
        if len(request.inputs[0].data.encode()) > MAX_EVENT_BYTES:
            raise InvalidInput(f"The event has more than {MAX_EVENT_BYTES} bytes.")
        bits = parse_bits(param(request, "pow"))
        if bits > self._max_bits:
            raise InvalidInput(f"{bits} bits are more than the {self._max_bits} that are mined here.")
        return parse_unsigned(request.inputs[0].data), bits

    async def run(self, request: ComputeRequest) -> Answer:
        """Try nonces until the id has enough leading zero bits.

        Raises:
            InvalidInput: the request cannot be served.
        """
        event, bits = self._read(request)
        template = event.with_nonce(_PLACE, bits)
        draft = template.draft
        canonical = orjson.dumps([0, template.pubkey, draft.created_at, draft.kind, draft.tags, draft.content])
        # the nonce is in the last tag, and the content behind it may hold the same zeros: look for the whole tag
        tag = orjson.dumps(["nonce", _PLACE, str(bits)])
        where = len(canonical) - len(orjson.dumps(draft.content)) - 3 - len(tag) + len(b'["nonce","')
        head, tail = canonical[:where], canonical[where + len(_PLACE) :]
        start = self._start()
        loop = asyncio.get_running_loop()
        while True:
            slices = [Slice(head, tail, start + n * SLICE, SLICE, bits) for n in range(self._workers)]
            found = await asyncio.gather(*(loop.run_in_executor(self._executor, mine_slice, one) for one in slices))
            nonce = next((one for one in found if one is not None), None)
            if nonce is not None:
                return Answer(event.with_nonce(nonce, bits).to_json(), "application/json")
            start += self._workers * SLICE
