"""Zaps: a receipt counts for nothing itself; whatever does not fit is refused, and our own wallet has the last word."""

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256

import pytest
from bolt11 import Bolt11, MilliSatoshi, TagChar, Tags, encode

from core.clock import Clock
from core.error import Unavailable
from dvm.settlement import Account
from dvm.zap import Zaps
from relays.event import Draft, Event
from relays.key import Key
from relays.nip57 import lnurl_of
from tests.unit.dvm.market_part import Node, until
from tests.unit.dvm.test_bill import ask, quoted, sale_of
from tests.unit.dvm.test_market import World, story, words
from tests.unit.dvm.test_nutzap import PRICE, start, tips

PROVIDER = Key.generate()
ADDRESS = "seller@wallet.example"


@dataclass
class Purse:
    """What our own Lightning wallet says came in, by payment hash."""

    came: dict[str, int] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    is_up: bool = True
    name: str = "nwc:test"

    async def received(self, payment_hash: str) -> int | None:
        self.asked.append(payment_hash)
        if not self.is_up:
            raise Unavailable("The wallet is away.")
        return self.came.get(payment_hash)


@dataclass
class Zapper:
    """A customer, and the provider that writes receipts for what it pays."""

    node: Node
    clock: Clock
    key: Key = field(default_factory=Key.generate)
    purse: Purse = field(default_factory=Purse)

    def listen(self) -> Zaps:
        account = Account(ADDRESS, PROVIDER.pubkey)
        return Zaps(
            self.node.db, self.node.pool, self.clock, self.node.key.pubkey, account, self.purse, self.node.selling,
            self.node.nutzaps.refused,
        )  # fmt: skip

    def request(self, named: str, msat: int = PRICE, **more: str) -> str:
        tags = [("p", self.node.key.pubkey), ("e", named), ("amount", str(msat)), ("relays", "wss://r.example")]
        tags += [("lnurl", lnurl_of(ADDRESS)), *more.items()]
        kind = 9734
        return self.key.sign(Draft(kind, "", tuple(tags), self.clock.now())).to_json()

    def invoice(self, request: str, msat: int = PRICE) -> tuple[str, str]:
        """An invoice of the provider over a zap request, and its payment hash."""
        hashed = sha256(f"{request}{msat}".encode()).hexdigest()
        made = Tags()
        made.add(TagChar.payment_hash, hashed)
        made.add(TagChar.payment_secret, "11" * 32)
        made.add(TagChar.description_hash, sha256(request.encode()).hexdigest())
        return encode(Bolt11("bc", self.clock.now(), made, MilliSatoshi(msat)), "22" * 32), hashed

    def receipt(self, named: str, request: str, invoice: str, by: Key = PROVIDER, **more: str) -> Event:
        tags = [("p", self.node.key.pubkey), ("e", named), ("P", self.key.pubkey)]
        tags += [("bolt11", invoice), ("description", request), *more.items()]
        return by.sign(Draft(9735, "", tuple(tags), self.clock.now()))

    def zap(self, named: str, msat: int = PRICE) -> Event:
        """A zap that is all right and was paid."""
        request = self.request(named, msat)
        invoice, hashed = self.invoice(request, msat)
        self.purse.came[hashed] = msat
        return self.receipt(named, request, invoice)


@story
async def test_a_zap_of_our_quote_that_our_wallet_has_seen_pays_for_the_job_once(world: World) -> None:
    node = await start(world)
    zapper = Zapper(node, world.clock)
    asked = ask(world, zapper.key, "hello zap")
    await quoted(node, asked)
    quote = next(one for one in words(node, 7000) if one.value("e") == asked.id)
    zaps, zap = zapper.listen(), zapper.zap(quote.id, PRICE + 1_000)
    for _ in range(3):
        await zaps._on_receipt(zap, "")
    await until(world.clock, lambda: bool(words(node, 6050)))
    shown = await sale_of(node, asked)
    assert (shown["state"], shown["paid_by"], shown["earned_msat"]) == ("done", "credit", PRICE)
    (tip,) = (await tips(node)).values()
    assert (tip["sender"], tip["owed_msat"], tip["mint"]) == (zapper.key.pubkey, 1_000, "nwc:test")


@story
async def test_a_receipt_for_the_invoice_in_our_quote_only_makes_us_look(world: World) -> None:
    node = await start(world)
    zapper = Zapper(node, world.clock)
    asked = ask(world, zapper.key, "hello")
    quote = await quoted(node, asked)
    request = zapper.request(asked.id)
    before = world.mint.calls.count("quote")
    await zapper.listen()._on_receipt(zapper.receipt(asked.id, request, quote.invoice), "")
    assert world.mint.calls.count("quote") > before
    assert not zapper.purse.asked
    assert not node.nutzaps.refused
    assert (await sale_of(node, asked))["state"] == "quoted", "a receipt is no payment"
    assert not await node.db.select("tip")


LIES: dict[str, tuple[str, Callable[[Zapper, str], Event]]] = {
    "somebody else's receipt": (
        "zap.nostr.malformed", lambda z, e: z.receipt(e, z.request(e), z.invoice(z.request(e))[0], by=Key.generate()),
    ),
    "no request": ("zap.nostr.malformed", lambda z, e: z.receipt(e, "{}", z.invoice("{}")[0])),
    "a request that nobody signed": (
        "zap.nostr.malformed",
        lambda z, e: z.receipt(e, bad := z.request(e).replace('"content":""', '"content":"x"'), z.invoice(bad)[0]),
    ),
    "a request of another kind": (
        "zap.nostr.malformed",
        lambda z, e: z.receipt(e, other := z.key.sign(Draft(1, "", (("p", z.node.key.pubkey),), 1)).to_json(),
                               z.invoice(other)[0]),
    ),
    "a request for another event": (
        "zap.nostr.malformed", lambda z, e: z.receipt(e, z.request("ab" * 32), z.invoice(z.request("ab" * 32))[0]),
    ),
    "a request for two of us": (
        "zap.nostr.malformed",
        lambda z, e: z.receipt(e, both := z.request(e, p="ab" * 32), z.invoice(both)[0]),
    ),
    "another LNURL": (
        "zap.nostr.malformed",
        lambda z, e: z.receipt(e, other := z.request(e, lnurl=lnurl_of("x@evil.example")), z.invoice(other)[0]),
    ),
    "two amounts": (
        "zap.nostr.malformed", lambda z, e: z.receipt(e, two := z.request(e, amount="5"), z.invoice(two)[0]),
    ),
    "another sender": (
        "zap.nostr.malformed",
        lambda z, e: replaced(z.receipt(e, z.request(e), z.invoice(z.request(e))[0]), "P", "ab" * 32),
    ),
    "no invoice": ("zap.wallet.invoice", lambda z, e: z.receipt(e, z.request(e), "lnbc1nonsense")),
    "an invoice over another amount": (
        "zap.amount", lambda z, e: z.receipt(e, z.request(e), z.invoice(z.request(e), 1_000)[0]),
    ),
    "an invoice for another request": (
        "zap.description_hash", lambda z, e: z.receipt(e, z.request(e), z.invoice(z.request(e, x="y"))[0]),
    ),
    "what never arrived": ("zap.not_received", lambda z, e: z.receipt(e, it := z.request(e), z.invoice(it)[0])),
}  # fmt: skip


def replaced(event: Event, name: str, value: str) -> Event:
    """The same receipt with another value, signed by the provider."""
    tags = tuple((name, value) if tag[0] == name else tag for tag in event.tags)
    return PROVIDER.sign(Draft(event.kind, event.content, tags, event.created_at))


@pytest.mark.parametrize("name", LIES)
def test_a_receipt_that_does_not_fit_or_of_which_our_wallet_knows_nothing_counts_for_nothing(name: str) -> None:
    async def tale(world: World) -> None:
        node = await start(world)
        zapper = Zapper(node, world.clock)
        reason, make = LIES[name]
        asked = ask(world, zapper.key, "mine")
        await quoted(node, asked)
        await zapper.listen()._on_receipt(make(zapper, asked.id), "")
        assert dict(node.nutzaps.refused) == {reason: 1}
        assert bool(zapper.purse.asked) == (reason == "zap.not_received")
        assert not await node.db.select("tip")
        assert (await sale_of(node, asked))["state"] == "quoted"

    World().run(tale)


@story
async def test_what_came_in_is_looked_up_again_while_the_wallet_is_away(world: World) -> None:
    node = await start(world)
    zapper = Zapper(node, world.clock)
    asked = ask(world, zapper.key, "away")
    await quoted(node, asked)
    zaps, zap = zapper.listen(), zapper.zap(asked.id)
    zapper.purse.is_up = False
    with pytest.raises(Unavailable):
        await zaps._on_receipt(zap, "")
    assert not await node.db.select("tip")
    zapper.purse.is_up = True
    await zaps._on_receipt(zap, "")
    await until(world.clock, lambda: bool(words(node, 6050)))


@story
async def test_a_zap_of_the_owners_note_is_not_counted(world: World) -> None:
    node = await start(world)
    zapper = Zapper(node, world.clock)
    await zapper.listen()._on_receipt(zapper.zap("ab" * 32), "")
    assert not zapper.purse.asked
    assert not node.nutzaps.refused
    assert not await node.db.select("tip")


def test_an_address_is_written_as_the_lnurl_that_clients_make_of_it() -> None:
    found = lnurl_of("alice@example.com")
    assert found.startswith("lnurl1")
    assert found == found.lower()
    assert lnurl_of("nothing") == lnurl_of("") == ""
    assert json.dumps(found).isascii()
