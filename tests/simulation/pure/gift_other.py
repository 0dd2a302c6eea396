"""Who gives in public (NIP-61): customers that pay so, some of whom cheat, and a bystander that copies."""

from typing import Any

from tests.simulation.pure.buyer import request_of
from tests.simulation.pure.mint import Lock, Mint, Output
from tests.simulation.pure.other import Other
from tests.simulation.pure.paper import FOR_GOOD, identity, key_of
from tests.simulation.pure.world import PAID, Msg, World

WELL = frozenset({"pays by nutzap", "pays in parts", "pays by nutzap and by invoice", "pays by nutzap too late"})


class Giver(Other):
    """A customer of one honest seller."""

    def __init__(self, world: World, name: str, style: str) -> None:
        super().__init__(world, name, style)
        self.asked_for = 0
        self.coins: tuple[Output, ...] = ()
        self.seller = ""
        self.mint = world.mints[0]

    def open(self) -> None:
        if self.style == "copies nutzaps":
            self.world.eavesdroppers.append(self)
        else:
            self.world.soon(self, 0, self.request)

    def request(self) -> None:
        world = self.world
        id_ = f"req {self.name}.{self.asked_for}"
        self.asked_for += 1
        urls = tuple(mint.url for mint in world.mints)
        until = world.now // 1000 + 200 if world.plot.seed & 8 else None
        request = request_of(
            world, id_, self.key, world.nodes[0].group * 100_000 + PAID, urls, None,
            tags=(("pay", "bolt11"), ("pay", "cashu")), deadline=until,
        )  # fmt: skip
        world.listeners[id_] = self
        world.say(Msg(id_, "request", self.key, id_, "", request))

    def again(self) -> None:
        """Another request, for what is owed."""
        if self.asked_for < 4:
            self.request()

    def overhear(self, msg: Msg) -> None:
        """The same coins, in an event of its own."""
        if msg.kind == "nutzap" and msg.author != self.key and self.count < 20:
            self.did()
            for named in (msg.body["named"], ""):
                self.world.say(
                    Msg(self.name_of("nutzap"), "nutzap", self.key, "", msg.to, {**msg.body, "named": named})
                )

    def hear(self, msg: Msg) -> None:
        if msg.signer != msg.author or msg.id in self.known:
            return
        self.known[msg.id] = msg
        seller = self.world.by_key.get(msg.author)
        if seller is None or seller.role != "seller" or self.seller not in ("", msg.author):
            return
        if msg.kind == "quote" and msg.body["id"]:
            self.seller = msg.author
            self.world.soon(self, 20, self.pay, msg)
        elif msg.kind == "result" or (msg.kind == "word" and msg.content == "error"):
            self.world.soon(self, 500, self.again)

    # ---- what is given

    def pay(self, quote: Msg) -> None:
        world, style = self.world, self.style
        mint = world.mints[self.asked_for % 2]
        price = quote.body["price"].sat_up()
        ends = max(1, quote.body["expires"] * 1000 - world.now)
        self.did()
        if style == "pays in parts":
            for part, wait in ((price // 2, 1), (price - price // 2, 3_000)):
                world.soon(self, wait, self.give, quote, mint, part)
        elif style == "pays by nutzap too late":
            world.soon(self, ends + 1_500, self.give, quote, mint, price)
        elif style == "nutzap too large":
            self.give(quote, mint, 3 * price)
        elif style == "replayed nutzap" and self.coins:
            self.give(quote, self.mint, price, self.coins)
        else:
            self.give(quote, mint, price)
        invoice = quote.body.get("invoice")
        if style == "pays by nutzap and by invoice" and invoice:
            world.soon(self, (1, 400, 5_000)[int(world.turn() * 3)], world.lightning.pay, invoice.split(":")[3])
        if style in ("replayed nutzap", "nutzap for two jobs", "nutzap for nothing"):
            world.soon(self, 5_000, self.again)

    def give(self, quote: Msg, mint: Mint, sat: int, coins: tuple[Output, ...] = ()) -> None:
        """A nutzap with what this style is for wrong in it."""
        world, style = self.world, self.style
        author, signer, url, more = self.key, self.key, mint.url, {}
        seller: Any = world.by_key[quote.author]
        now, turn = world.now // 1000, world.turn()
        ends = {"nutzap that ends": 600, "gives and takes back": 3_700}.get(style)
        giver = self.key if turn < 0.5 else ""
        if style == "nutzap in another's name" and turn < 0.5:
            giver = identity("somebody")
        elif style == "nutzap in another's name":
            author = world.nodes[0].key
        key = key_of("somebody") if style == "nutzap to another key" else seller.wallet_key
        lock = Lock(key, FOR_GOOD if ends is None else now + ends, "", giver=giver)
        self.mint = mint
        self.coins = coins = coins or (self.coin(mint, sat + mint.fee(1), lock),)
        if style == "nutzap of a foreign mint":
            url = "http://elsewhere"
        elif style == "forged nutzap":
            fake = coins[0]._replace(name=self.name_of("fake"))
            coins, more = (fake,), {"forged": {fake.name: None}}
        elif style == "nutzap of spent coins":
            self._vanish(mint, coins[0])
        elif style == "gives and takes back":
            world.at((now + 3_701) * 1000, self, self.take, mint, coins, "")
        named = "" if style == "nutzap for nothing" else quote.ref if turn < 0.3 else quote.id
        body = {"mint": url, "coins": coins, "named": named, **more}
        zap = Msg(self.name_of("nutzap"), "nutzap", author, "", quote.author, body)
        zap.signer = signer
        world.say(zap)
        if style in ("replayed nutzap", "nutzap for two jobs"):
            for wait in (4_000, 9_000):  # as it is, and in another event
                world.soon(seller, wait, seller.hear, zap)
                world.soon(None, wait, world.say, Msg(self.name_of("nutzap"), "nutzap", author, "", quote.author, body))

    def _vanish(self, mint: Mint, coin: Output) -> None:
        """An older copy of the seller's wallet has taken it."""
        mint.spent[coin.name] = "a copy"
        mint.balance[coin.owner] -= coin.amount
        mint.circulating -= coin.amount
        mint.paid_out += coin.amount
