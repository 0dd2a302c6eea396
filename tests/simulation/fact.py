"""What can be known from outside: payments in the relay's gift wraps, and what the mint did with their coins.

Written without the product's money code, but for the curve: a fault there must not blind the judge.
"""

import json
from dataclasses import dataclass
from typing import Any

from relays.error import NotForUs
from relays.event import Event
from relays.nip17 import unwrap
from tests.model_mint import ModelMint, _signed_by
from tests.simulation.world import Node, World
from wallet.cashu.fence import hash_to_curve


@dataclass(frozen=True)
class Coin:
    """One locked coin, as its payload shows it."""

    amount: int
    y: str
    pubkey: str
    refund: str
    locktime: int
    genuine: bool  # really signed by the mint, for this amount
    secret: str


@dataclass(frozen=True)
class Paid:
    """A payment message that the relay holds."""

    wrap_id: str
    sender: str
    seller: str
    request_id: str
    quote_id: str
    mint: str
    coins: tuple[Coin, ...]
    at: int

    @property
    def total(self) -> int:
        return sum(coin.amount for coin in self.coins)


def coin_of(proof: dict[str, Any], mint: ModelMint) -> Coin:
    """Raises: KeyError, TypeError, ValueError if it is no coin that is locked to a key or a hash."""
    secret = proof["secret"]
    kind, body = json.loads(secret)
    if kind not in ("P2PK", "HTLC"):
        raise ValueError(kind)
    tags = {tag[0]: tag[1] for tag in body["tags"]}
    owner = body["data"] if kind == "P2PK" else tags["pubkeys"]
    point = hash_to_curve(secret.encode())
    key = mint._keys.get(proof["id"], {}).get(proof["amount"])
    genuine = key is not None and point.multiply(key.secret).format().hex() == proof["C"]
    y = point.format().hex()
    return Coin(proof["amount"], y, owner, tags["refund"], int(tags["locktime"]), genuine, secret)


def read_payment(world: World, event: Event, seller: Node) -> Paid | None:
    """The payment to this seller in a gift wrap, if it is one."""
    try:
        rumor = unwrap(seller.key, event)
        payload = json.loads(rumor.content)
        coins = tuple(coin_of(proof, world.mint) for proof in payload["proofs"])
        return Paid(
            event.id,
            rumor.sender,
            seller.key.pubkey,
            rumor.value("e") or "",
            rumor.value("quote") or "",
            payload["mint"],
            coins,
            world.clock.now(),
        )
    except (NotForUs, KeyError, TypeError, ValueError):
        return None


def fee(coins: int, world: World) -> int:
    """What spending so many coins costs at the mint."""
    ppk = max(info.ppk for info in world.mint._infos.values())
    return -(-coins * ppk // 1000)


def taken_by(world: World, coin: Coin) -> str:
    """`nobody`, `seller`, `refund` or `somebody`: whose signature spent it."""
    if coin.y not in world.mint.spent:
        return "nobody"
    witness = world.mint.spent[coin.y][1]
    signatures = json.loads(witness or "{}").get("signatures", [])
    for name, key in (("seller", coin.pubkey), ("refund", coin.refund)):
        if _signed_by(key, coin.secret.encode(), signatures):
            return name
    return "somebody"
