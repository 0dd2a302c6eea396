"""What one mint says of its keysets, all units together.

It is asked again when that is old, when a coin names an unknown keyset, and after a refusal.

A keyset is money of one unit for ever: one of which the mint says two things, or another unit than before, is left out
of everything: no coin of it is spent or asked for, and an audit tells of those that we hold. Old ids commit to the keys
alone, so that nothing else would show the change. The units of keysets in which we have planned or held coins are
remembered for good, those of all others from one answer to the next: a mint may list new ones without end.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence

from core.clock import Clock
from core.error import Unavailable, VendoError
from wallet.cashu.keyset import KeysetInfo
from wallet.cashu.limit import Limits
from wallet.cashu.port import Mint
from wallet.error import MintLied, MintRejected, MintUnreachable

FRESH_S = 300
_LIMITS_FRESH_S = 3_600
_LIMITS_AGAIN_S = 60
_log = logging.getLogger(__name__)


class Roll:
    """The keysets of one mint, and its limits.

    Args:
        mint: its client.
        clock: says when what is known is old.
        retired: the owner trusts it no more: what is there may be taken out, and nothing new is begun.

    `silent`: the last thing that we heard of the mint is that it cannot be reached or turns everybody away. `infos` are
    the keysets that may be used, `contested` the ids of those that may not be, since the mint contradicts itself.
    `heard` is how often it has answered.
    """

    def __init__(self, mint: Mint, clock: Clock, *, retired: bool = False) -> None:
        self.mint, self.retired = mint, retired
        self.infos: dict[str, KeysetInfo] = {}
        self.contested: frozenset[str] = frozenset()
        self.silent = False
        self.heard = 0
        self.on_news: Callable[[], None] = lambda: None
        self._clock = clock
        self._pinned: dict[str, str] = {}
        self._told: dict[str, str] = {}
        self._asked_at: float | None = None
        self._asking = asyncio.Lock()
        # Questions are numbered: the last that was put, the last that was answered, and how many were put in vain.
        self._put = self._answered = self._vain = 0
        self._failure: VendoError | None = None
        self._limits = Limits()
        self._limits_due: float | None = None

    @property
    def units(self) -> tuple[str, ...]:
        """Those of its keysets, active or not."""
        return tuple(dict.fromkeys(info.unit for info in self.infos.values()))

    def asked_within(self, seconds: float) -> bool:
        """Whether it has answered so lately."""
        return self._asked_at is not None and self._clock.monotonic() - self._asked_at < seconds

    def unit(self, keyset: str) -> str | None:
        """The unit that a keyset has; None if it was not heard of in the last answer, and is none of ours."""
        return self._pinned.get(keyset, self._told.get(keyset))

    def pin(self, keyset: str, unit: str) -> None:
        """We hold coins of this keyset, in this unit, or are about to: that is remembered for good."""
        self._pinned.setdefault(keyset, self._told.get(keyset, unit))

    async def refresh(self, *, older_than: float = 0.0) -> None:
        """Ask the mint, unless it has answered within `older_than` seconds.

        Whoever comes while it is being asked waits for what comes of that: nobody waits for more than one time-out of
        a mint that is silent, however many there are. An answer to what was asked before one came is not new enough.

        Raises:
            Unavailable: it does not answer, and nothing is known from earlier.
            MintRejected, MintLied: its answer is none, or cannot be true.
        """
        if self.asked_within(older_than):
            return
        put, vain = self._put, self._vain
        async with self._asking:
            if self._vain != vain:  # while we waited, in vain
                if self.infos and isinstance(self._failure, Unavailable):
                    return
                raise MintUnreachable from self._failure
            if self._answered > put or self.asked_within(older_than):
                return
            self._put += 1
            await self._ask()

    async def _ask(self) -> None:
        now = self._clock.monotonic()
        try:
            found = await self.mint.keysets()
        except VendoError as error:
            self._vain, self._failure = self._vain + 1, error
            if not isinstance(error, Unavailable):
                raise
            self.silent = True
            if not self.infos:
                raise
            return
        self._answered = self._put
        self.silent = False
        self._take(found)
        self._asked_at, self.heard = now, self.heard + 1
        self.on_news()

    def _take(self, found: Sequence[KeysetInfo]) -> None:
        said: dict[str, KeysetInfo] = {}
        contested: set[str] = set()
        for info in found:
            twice = said.setdefault(info.id, info) != info
            if twice or self.unit(info.id) not in (info.unit, None):
                contested.add(info.id)
        if contested - self.contested:
            about = {"action": "keyset_contested", "mint": self.mint.url, "keysets": len(contested)}
            _log.error("a mint contradicts itself about keysets; they are not used", extra=about)
        self.infos = {id_: info for id_, info in said.items() if id_ not in contested}
        self.contested = frozenset(contested)
        before = {id_: unit for id_ in contested if (unit := self.unit(id_)) is not None}
        self._told = {id_: info.unit for id_, info in self.infos.items()} | before

    async def answer(self) -> None:
        """If the mint was silent when last asked: have it answer now.

        Raises:
            MintUnreachable: it does not.
        """
        if self.silent:
            await self.refresh()
            if self.silent:
                raise MintUnreachable

    async def limits(self) -> Limits:
        """The mint's limits, an hour old at most; what was last known, or none, where it does not say.

        They spare a payment that would be refused. The mint's own refusal is what counts.
        """
        now = self._clock.monotonic()
        if self._limits_due is None or now >= self._limits_due:
            try:
                self._limits, self._limits_due = await self.mint.limits(), now + _LIMITS_FRESH_S
            except (Unavailable, MintRejected, MintLied):
                self._limits_due = now + _LIMITS_AGAIN_S
        return self._limits
