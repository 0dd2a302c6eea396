"""A mint's keysets. Ids are hashes of the keys, so a mint cannot swap keys under a known id (NUT-01, 02). Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from wallet.cashu.curve import is_point
from wallet.cashu.fence import PublicKey, derive_keyset_id, derive_keyset_id_v2
from wallet.error import MintLied, TokenKeyset

MAX_KEYS = 128
MAX_KEYSETS = 500
MAX_PPK = 1_000


@dataclass(frozen=True, slots=True)
class KeysetInfo:
    """What a mint says about one keyset. `ppk` is the fee per input in thousandths of the unit."""

    id: str
    unit: str
    active: bool
    ppk: int
    final_expiry: int | None = None

    @property
    def short(self) -> str:
        """The id as it stands in tokens (NUT-02): 16 hex digits."""
        return self.id[:16]


@dataclass(frozen=True, slots=True)
class Keyset:
    """A keyset whose id was checked against its keys: amount to compressed key."""

    info: KeysetInfo
    keys: Mapping[int, str] = field(repr=False)


def checked(info: KeysetInfo, keys: Mapping[int, str]) -> Keyset:
    """Check that the id belongs to the keys.

    Raises:
        MintLied: it does not, or the keys are not keys.
    """
    if not 0 < len(keys) <= MAX_KEYS:
        raise MintLied("A keyset has no keys, or too many.")
    if any(amount <= 0 or amount & (amount - 1) for amount in keys) or not all(map(is_point, keys.values())):
        raise MintLied("A keyset holds an amount or a key that is none.")
    points = {amount: PublicKey(bytes.fromhex(key)) for amount, key in keys.items()}
    if info.id.startswith("01"):
        derived = derive_keyset_id_v2(points, info.unit, info.final_expiry, info.ppk)
    else:
        derived = derive_keyset_id(points)
    if derived != info.id:
        raise MintLied("A keyset's id does not match its keys.")
    return Keyset(info, dict(keys))


def fee(ids: Iterable[str], infos: Mapping[str, KeysetInfo]) -> int:
    """The mint's fee for spending these coins, given as the keyset id of each (NUT-02).

    Raises:
        TokenKeyset: the mint names one of the keysets no more, or calls it one of another unit.
    """
    try:
        return -(-sum(infos[keyset].ppk for keyset in ids) // 1000)
    except KeyError as error:
        raise TokenKeyset("The mint names a keyset of these coins no more, or calls it another unit's.") from error
