"""Who cheats where results are sold sealed or for invoices, and machines that are paid by invoice alone."""

from typing import Any

from tests.simulation.pure.buyer import SEAL_KEY, request_of
from tests.simulation.pure.cast import ORDERED, Stall
from tests.simulation.pure.mint import Lock, Mint, Output, Unlock, hash_of
from tests.simulation.pure.other import Other, Rogue
from tests.simulation.pure.paper import FOR_GOOD, key_of
from tests.simulation.pure.sealing import Seal, preimage_of, signatures
from tests.simulation.pure.world import PAID, Msg, World
from wallet.invoice import MAINNET


class SealRogue(Rogue):
    """A seller of sealed results that is cheaper than the honest ones."""

    def __init__(self, world: World, name: str, stall: Stall) -> None:
        super().__init__(world, name, stall)
        self.mode = "A" if stall.way == ORDERED else "B"
        self.coins: dict[str, tuple[Mint, tuple[Output, ...]]] = {}

    def asked(self, msg: Msg) -> None:
        if msg.body.kind % 100_000 == PAID and self.mode in msg.body.modes:
            hash_ = hash_of(preimage_of(self.name, msg.id))
            self.world.say(self.quote(msg, mode=self.mode, hash=hash_, seal_key=self.wallet_key))

    def hear(self, msg: Msg) -> None:
        if msg.kind in ("order", "cosign") and msg.id not in self.known:
            self.known[msg.id] = msg
            self.world.soon(self, 5, self.show if msg.kind == "order" else self.signed, msg)
            return
        super().hear(msg)

    def paid(self, msg: Msg) -> None:
        mint = next((mint for mint in self.world.mints if mint.url == msg.body["mint"]), None)
        if mint is None or not all(coin.name in mint.signed for coin in msg.body["coins"]):
            return
        self.coins[msg.ref] = mint, msg.body["coins"]
        if self.mode == "A":
            self.pays_off(msg, ())
        else:
            self.show(msg)

    def show(self, msg: Msg) -> None:
        """What stands for the sealed result."""
        style, request_id = self.style, msg.ref
        right = hash_of(preimage_of(self.name, request_id))
        seal = Seal(right, right, f"by {self.name}")
        if style in ("silent", "breaks an order off", "gives what was ordered", "blank"):
            self.did()
            if style == "breaks an order off":
                self.word(self.known.get(request_id, msg), "error")
            elif style != "silent":
                self.result(msg, "junk" if style == "blank" else "")
            return
        if style == "wrong ciphertext":
            seal = seal._replace(fits=False)
        elif style == "other key":
            seal = seal._replace(under=hash_of("77" * 32))
        elif style == "empty seal":
            seal = seal._replace(text="   ")
        elif style == "switched seal":
            seal = seal._replace(hash="cd" * 32)
        if style in ("wrong ciphertext", "switched seal"):
            self.did()
        self.world.say(Msg(self.name_of("result"), "result", self.key, request_id, msg.author, seal, "sealed"))

    def signed(self, msg: Msg) -> None:
        if msg.ref in self.coins:
            self.pays_off(msg, msg.body["signed"])

    def pays_off(self, msg: Msg, words: tuple[str, ...]) -> None:
        """It can take the money now."""
        world, (mint, coins) = self.world, self.coins[msg.ref]
        until = coins[0].lock.locktime * 1000 if coins[0].lock is not None else 0
        self.did()
        unlock = Unlock(preimage_of(self.name, msg.ref), words)
        if self.style == "keeps the co-signature":
            # After the locktime whoever signs for the refund path takes it without the preimage.
            cosigner = coins[0].lock.cosigner if coins[0].lock is not None else ""
            world.at(max(world.now, until + 100), self, self.take, mint, coins, cosigner)
        elif self.style == "latecomer":
            when = until + (-3_000, 500, 2_020, 2_060, 2_100, 4_000)[int(world.turn() * 6)]
            world.at(max(world.now, when), self, self.take, mint, coins, self.wallet_key, unlock)
        else:
            self.take(mint, coins, self.wallet_key, unlock)


class Machine(Rogue):
    """A foreign machine, which is paid by invoice alone. Some do what they say."""

    def asked(self, msg: Msg) -> None:
        world, style = self.world, self.style
        if msg.body.kind % 100_000 != PAID or not msg.body.pays_invoices:
            return
        price, now = self.price, world.now // 1000
        if style == "machine afterwards":
            text = self._invoice(msg, price.value, now + 120)
            reply = Msg(
                self.name_of("result"), "result", self.key, msg.id, msg.author, (price, text), f"by {self.name}"
            )
            world.say(reply)
            return
        text = self._invoice(msg, price.value, now + 120)
        if style == "wrong amount":
            text = self._invoice(msg, price.value + 2_000, now + 120)
        elif style == "ended invoice":
            text = self._invoice(msg, price.value, now + 3)
        elif style == "other network":
            text = text.replace(MAINNET, "bcrt", 1)
        elif style == "one invoice for all":
            text = self._invoice(None, price.value, now + 3_600 if not self.known.get("") else 0)
            world.say(self.quote(msg, id="", key="", mints=(), invoice=text))
            self.did()
        if style in ("wrong amount", "ended invoice", "other network"):
            self.did()
        world.say(self.quote(msg, id="", expires=0, key="", mints=(), invoice=text))

    def _invoice(self, msg: Msg | None, msat: int, until: int) -> str:
        if msg is None and "" in self.known:
            return str(self.known[""])
        made = self.world.lightning.invoice(self.name_of("invoice"), msat, until, lambda: self.got(msg))
        made.again = True
        if msg is None:
            self.known[""] = made.text
        return made.text

    def got(self, msg: Msg | None) -> None:
        """It is paid."""
        self.did()
        style = self.style
        if msg is None or style in ("paid and gone", "machine afterwards"):
            return
        answer = Msg("", "", msg.author, msg.id)
        if style == "paid and late":
            self.world.soon(self, 62_000, self.result, answer)
        elif style == "junk for an invoice":
            self.world.soon(self, 400, self.result, answer, "junk")
        else:
            self.world.soon(self, 20 if self.world.turn() < 0.5 else 900, self.result, answer)


class Payer(Other):
    """A customer who pays invoices with a node of his own, and does not keep to the order of things."""

    def open(self) -> None:
        self.world.soon(self, 0, self.request, 0)

    def request(self, number: int) -> None:
        world = self.world
        id_ = f"req {self.name}.{number}"
        kind = world.nodes[0].group * 100_000 + PAID
        tags = (("pay", "bolt11"),)
        request = request_of(world, id_, self.key, kind, (), None, tags=tags, deadline=world.now // 1000 + 120)
        world.listeners[id_] = self
        world.say(Msg(id_, "request", self.key, id_, "", request))

    def hear(self, msg: Msg) -> None:
        if msg.kind == "word" and msg.content == "error" and self.style == "pays and asks again":
            self.again()
        if msg.kind != "quote" or msg.signer != msg.author or not msg.body.get("invoice") or msg.ref in self.known:
            return
        seller = self.world.by_key.get(msg.author)
        if seller is None or seller.role != "seller":
            return
        self.known[msg.ref] = msg
        hash_ = msg.body["invoice"].split(":")[3]
        world, style = self.world, self.style
        ends = msg.body["expires"] * 1000 - world.now
        if style == "never pays":
            self.did()
            if world.turn() < 0.5:
                world.soon(self, ends + 30_000, self.repeat, msg)
            return
        wait = 50
        if style == "pays too late":
            wait = ends - 400
            world.soon(self, ends + 20_000, self.repeat, msg)
        elif style == "cancels and pays":
            world.say(Msg(self.name_of("cancel"), "cancel", self.key, msg.ref))
            wait = 4_000
        world.soon(self, max(1, wait), self.pay, hash_)

    def pay(self, hash_: str) -> None:
        if self.world.lightning.pay(hash_):
            self.did()
        if self.style != "pays too late":
            self.world.soon(self, 9_000, self.again)

    def repeat(self, msg: Msg) -> None:
        """The same request once more."""
        asked = self.world.log.get(msg.ref)
        seller = self.world.by_key.get(msg.author)
        if asked is not None and seller is not None:
            self.world.soon(seller, 10, seller.hear, asked)

    def again(self) -> None:
        """Another request, for what is owed."""
        if self.count < 4:
            self.count += 1
            self.request(self.count)


class Borrower(Payer):
    """A customer that sellers trust, and that is served before it pays."""

    def open(self) -> None:
        if self.style != "a stranger borrows":
            self.world.trusted.add(self.key)
        for number in range(5 if self.style == "borrows without end" else 1):
            self.world.soon(self, number * 300, self.request, number)
        self.count = 5 if self.style == "borrows without end" else 2

    def hear(self, msg: Msg) -> None:
        seller = self.world.by_key.get(msg.author)
        if msg.signer != msg.author or seller is None or seller.role != "seller" or msg.id in self.known:
            return
        self.known[msg.id] = msg
        world, style = self.world, self.style
        if msg.kind == "quote" and style in ("a stranger borrows", "never pays a result"):
            self.did()
        if msg.kind != "result" or type(msg.body) is not tuple:
            return
        hash_ = msg.body[1].split(":")[3]
        if style == "never pays a result":
            return world.soon(
                self, (20_000, 4_000_000)[int(world.turn() * 2)], self.again
            )  # before and after it is given up
        if style == "pays a result by nutzap":
            return world.soon(self, 2_000, self.give, msg, seller)
        if style == "asks again for a result":
            world.soon(self, 1_000, self.repeat, msg)
            world.soon(self, 4_000, self.repeat, msg)
            self.did()
        waits = {"pays a result twice": (10, 900), "pays a result late": (44_000, 46_500)}.get(style, (2_000,))
        if style == "borrows without end":
            self.did()
            waits = (6_000,)
        for wait in waits:
            world.soon(self, wait, self.pay, hash_)

    def give(self, result: Msg, seller: Any) -> None:
        """A nutzap for the request instead of the invoice (NIP-61)."""
        world = self.world
        mint = world.mints[0]
        sat = result.body[0].sat_up() + mint.fee(1)
        coin = self.coin(mint, sat, Lock(seller.wallet_key, FOR_GOOD, "", giver=self.key))
        body = {"mint": mint.url, "coins": (coin,), "named": result.ref}
        self.did()
        world.say(Msg(self.name_of("nutzap"), "nutzap", self.key, "", result.author, body))


class SealStranger(Other):
    """A customer that takes sealed results and does not keep to the order of things."""

    def open(self) -> None:
        self.world.soon(self, 0, self.ask, 0)

    def ask(self, number: int) -> None:
        world, id_ = self.world, f"req {self.name}.{number}"
        kind = world.nodes[0].group * 100_000 + PAID
        request = request_of(
            world, id_, self.key, kind, tuple(mint.url for mint in world.mints), None,
            modes=("A", "B") if self.style in ("orders and leaves", "lock to another hash") else ("B",),
            seal_key=SEAL_KEY, cosign_key=key_of(f"cosign {self.name}"), tags=(("pay", "cashu"),),
        )  # fmt: skip
        world.listeners[id_] = self
        world.say(Msg(id_, "request", self.key, id_, "", request))
        if self.style == "orders and leaves" and number < 2:
            world.soon(self, 170_000, self.ask, number + 1)  # whoever did not pay for an order gets no other one

    def hear(self, msg: Msg) -> None:
        if msg.signer != msg.author:
            return
        if msg.kind == "quote" and msg.body.get("mode") and msg.ref not in self.known:
            seller = self.world.by_key.get(msg.author)
            if seller is not None and seller.role == "seller":
                self.known[msg.ref] = msg
                self.world.soon(self, 10, self.order if msg.body["mode"] == "A" else self.pay, msg)
        elif msg.kind == "result" and type(msg.body) is Seal:
            self.sealed(msg)

    def order(self, quote: Msg) -> None:
        self.say("order", quote, {})
        if self.style == "orders and leaves":
            self.did()

    def say(self, kind: str, quote: Msg, body: dict[str, Any]) -> None:
        body = {"quote": quote.body["id"], **body}
        self.world.say(Msg(self.name_of(kind), kind, self.key, quote.ref, quote.author, body))

    def pay(self, quote: Msg) -> None:
        world, body, style = self.world, quote.body, self.style
        mint = next((mint for mint in world.mints if mint.url in body["mints"]), world.mints[0])
        hash_ = "ab" * 32 if style == "lock to another hash" else body["hash"]
        cosigner = key_of(f"cosign {self.name}") if body["mode"] == "B" else ""
        if style == "another co-signer":
            cosigner = key_of("another co-signer")
        until = world.now // 1000 + {"takes back too early": 95, "too short a lock": 75}.get(style, 400)
        lock = Lock(body["key"], until, f"refund {self.name}", hash_, cosigner)
        coin = self.coin(mint, body["price"].sat_up() + mint.fee(1), lock)
        self.known[f"coin {quote.ref}"] = mint, coin
        if style in ("lock to another hash", "another co-signer", "takes back too early", "too short a lock"):
            self.did()
        self.say("wrap", quote, {"mint": mint.url, "coins": (coin,), "mode": body["mode"]})
        if style == "takes back too early":
            for wait in (500, 60_000, 96_000):
                world.soon(self, wait, self.take, mint, (coin,), f"refund {self.name}")

    def sealed(self, msg: Msg) -> None:
        """The sealed result is here."""
        quote = self.known.get(msg.ref)
        if quote is None:
            return
        if self.style in ("never signs", "orders and leaves"):
            return self.did()
        if self.style == "lock to another hash" and quote.body["mode"] == "A":
            return self.pay(quote)
        found = self.known.get(f"coin {msg.ref}")
        if found is not None:
            words = signatures(key_of(f"cosign {self.name}"), (found[1].name,))
            if self.style == "signs wrongly":
                words = ("ab" * 64,)
                self.did()
            self.say("cosign", quote, {"signed": words})
