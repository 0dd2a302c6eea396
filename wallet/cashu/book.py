"""What we know of one mint's keysets in one unit, and which of them may be used for what."""

from core.clock import Clock
from wallet.cashu.keyset import MAX_PPK, Keyset, KeysetInfo
from wallet.cashu.limit import Limits
from wallet.cashu.port import Mint
from wallet.cashu.roll import FRESH_S, Roll
from wallet.error import MintBusy, MintLied, MintRefused, TokenKeyset

_AGAIN_S = 5
# Before a keyset's final expiry we no longer ask for coins in it.
_EXPIRY_MARGIN_S = 7 * 86_400


class KeysetBook:
    """The keysets of one mint in one unit: a part of what its roll says, and never a keyset of another unit.

    Args:
        mint: its client.
        unit: of its coins.
        clock: says when what is known is old.
        retired: the owner trusts it no more: what is there may be taken out, and nothing new is begun.
        roll: what the mint says, if other units' books have it too.

    `guarded`: our counters were compared with the mint since the start. `copied`: our rows come from an old copy of the
    database, and the mint was not asked yet what happened since (`wallet.copy`).
    """

    def __init__(self, mint: Mint, unit: str, clock: Clock, *, retired: bool = False, roll: Roll | None = None) -> None:
        self.mint = mint
        self.unit = unit
        self.roll = Roll(mint, clock, retired=retired) if roll is None else roll
        self.guarded = self.copied = False
        self._clock = clock
        self._keysets: dict[str, Keyset] = {}
        self._infos: dict[str, KeysetInfo] = {}
        self._heard = -1

    @property
    def infos(self) -> dict[str, KeysetInfo]:
        """The keysets in this unit that may be used, by id."""
        if self._heard != self.roll.heard:
            self._infos = {id_: info for id_, info in self.roll.infos.items() if info.unit == self.unit}
            self._heard = self.roll.heard
        return self._infos

    @property
    def retired(self) -> bool:
        """Whether nothing new is begun at this mint."""
        return self.roll.retired

    @property
    def silent(self) -> bool:
        """Whether the last thing that we heard of the mint is that it cannot be reached or turns everybody away."""
        return self.roll.silent

    @silent.setter
    def silent(self, value: bool) -> None:
        self.roll.silent = value

    async def refresh(self, *, older_than: float = 0.0) -> None:
        """Ask the mint, unless we asked within `older_than` seconds.

        Raises:
            Unavailable: it does not answer, and nothing is known from earlier.
            MintLied: its answer cannot be true.
        """
        await self.roll.refresh(older_than=older_than)

    async def known(self) -> None:
        """Have a picture that is not old."""
        await self.roll.refresh(older_than=FRESH_S)

    async def heard(self) -> None:
        """If the mint was silent when last asked: have it answer now.

        Raises:
            MintUnreachable: it does not.
        """
        await self.roll.answer()

    async def limits(self) -> Limits:
        """The mint's limits; see `Roll.limits`."""
        return await self.roll.limits()

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
            held = await self.mint.keys(info)
            if (held.info.id, held.info.unit) != (keyset, self.unit):
                raise MintLied("The mint answered with the keys of another keyset or unit.")
            self._keysets[keyset] = held
        return held

    def has(self, keyset: str, amount: int) -> bool:
        """Whether a keyset whose keys were fetched has a coin of this amount."""
        held = self._keysets.get(keyset)
        return held is not None and amount in held.keys

    async def expand(self, keyset: str) -> str:
        """The whole id of a keyset that a token names, maybe by its short id (NUT-02).

        Raises:
            TokenKeyset: unknown, ambiguous, of another unit, or with a fee above our cap.
            MintBusy: unknown so far, and the mint was asked a moment ago.
        """
        await self.known()
        if not self._named(keyset):
            if any(keyset in (id_, id_[:16]) for id_ in (*self.roll.infos, *self.roll.contested)):
                raise TokenKeyset("A coin's keyset is not one of the unit that the payment names.")
            # Strangers choose these ids, so that they must not choose how often the mint is asked.
            if self.roll.asked_within(_AGAIN_S):
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
