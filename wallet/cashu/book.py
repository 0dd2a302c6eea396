"""What we know of one mint's keysets. Asked again when old, when a coin names an unknown one, or after a refusal."""

from core.clock import Clock
from core.error import Unavailable
from wallet.cashu.keyset import MAX_PPK, Keyset, KeysetInfo
from wallet.cashu.limit import Limits
from wallet.cashu.port import Mint
from wallet.error import MintBusy, MintLied, MintRefused, MintRejected, MintUnreachable, TokenKeyset

_FRESH_S = 300
_AGAIN_S = 5
_LIMITS_FRESH_S = 3_600
_LIMITS_AGAIN_S = 60
# Before a keyset's final expiry we no longer ask for coins in it.
_EXPIRY_MARGIN_S = 7 * 86_400


class KeysetBook:
    """The keysets of one mint in one unit.

    Args:
        mint: its client.
        unit: of its coins.
        clock: says when what is known is old.
        retired: the owner trusts it no more: what is there may be taken out, and nothing new is begun.

    `guarded`: our counters were compared with the mint since the start. `copied`: our rows come from an old copy of the
    database, and the mint was not asked yet what happened since (`wallet.copy`). `silent`: the last thing that we heard
    of the mint is that it cannot be reached or turns everybody away.
    """

    def __init__(self, mint: Mint, unit: str, clock: Clock, *, retired: bool = False) -> None:
        self.mint = mint
        self.unit = unit
        self.infos: dict[str, KeysetInfo] = {}
        self.guarded = self.copied = False
        self.silent = False
        self.retired = retired
        self._clock = clock
        self._keysets: dict[str, Keyset] = {}
        self._asked_at: float | None = None
        self._limits = Limits()
        self._limits_due: float | None = None

    async def refresh(self, *, older_than: float = 0.0) -> None:
        """Ask the mint, unless we asked within `older_than` seconds.

        Raises:
            Unavailable: it does not answer, and nothing is known from earlier.
            MintLied: its answer cannot be true.
        """
        now = self._clock.monotonic()
        if self._asked_at is not None and now - self._asked_at < older_than:
            return
        try:
            found = await self.mint.keysets()
        except Unavailable:
            self.silent = True
            if not self.infos:
                raise
            return
        self.silent = False
        self.infos = {info.id: info for info in found if info.unit == self.unit}
        self._asked_at = now

    async def known(self) -> None:
        """Have a picture that is not old."""
        await self.refresh(older_than=_FRESH_S)

    async def heard(self) -> None:
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

    async def keys(self, keyset: str) -> Keyset:
        """A keyset's checked keys.

        Raises:
            TokenKeyset: the mint has no such keyset in this unit.
        """
        info = self.infos.get(keyset)
        if info is None:
            raise TokenKeyset
        held = self._keysets.get(keyset)
        if held is None:
            held = self._keysets[keyset] = await self.mint.keys(info)
        return held

    async def expand(self, keyset: str) -> str:
        """The whole id of a keyset that a token names, maybe by its short id (NUT-02).

        Raises:
            TokenKeyset: unknown, ambiguous, or with a fee above our cap.
            MintBusy: unknown so far, and the mint was asked a moment ago.
        """
        await self.known()
        if not self._named(keyset):
            # Strangers choose these ids, so that they must not choose how often the mint is asked.
            if self._asked_at is not None and self._clock.monotonic() - self._asked_at < _AGAIN_S:
                raise MintBusy("The mint was asked for its keysets a moment ago; this one may be newer.")
            await self.refresh()
        named = self._named(keyset)
        if len(named) != 1 or named[0].ppk > MAX_PPK:
            raise TokenKeyset
        return named[0].id

    def _named(self, keyset: str) -> list[KeysetInfo]:
        return [info for info in self.infos.values() if keyset in (info.id, info.short)]

    def usable(self, keyset: str) -> bool:
        """Whether outputs may be asked for in this keyset."""
        info = self.infos.get(keyset)
        if info is None or not info.active or info.ppk > MAX_PPK:
            return False
        return info.final_expiry is None or info.final_expiry > self._clock.now() + _EXPIRY_MARGIN_S

    async def active(self) -> Keyset:
        """The keyset for new outputs: the cheapest of those in use.

        Raises:
            MintRefused: the mint has none that we would use.
        """
        usable = sorted((info.ppk, info.id) for info in self.infos.values() if self.usable(info.id))
        if not usable:
            raise MintRefused(f"The mint has no active keyset in {self.unit} with an acceptable fee.")
        return await self.keys(usable[0][1])

    @property
    def ppk(self) -> int:
        """The fee per input of new coins, in thousandths of the unit; the cap as long as nothing is known."""
        return min((info.ppk for info in self.infos.values() if self.usable(info.id)), default=MAX_PPK)
