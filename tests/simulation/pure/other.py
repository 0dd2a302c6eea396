"""Everybody who is no node of ours: sellers that cheat, customers that do not pay, bystanders who lie.

They act at once on what they hear, use the mints without faults, and keep to no table but their own interest. What
they did is counted under their style's name when it came to what that style is for.
"""

from typing import Any

from core.money import Msat
from relays.nip90 import Input
from tests.simulation.pure.buyer import request_of
from tests.simulation.pure.cast import Stall
from tests.simulation.pure.mint import Lock, Mint, Output, Unlock
from tests.simulation.pure.paper import identity, key_of
from tests.simulation.pure.world import PAID, Msg, World

ETA_S, TTL_S = 10, 60
LOUD = 60  # what one bystander says at most
QUIET = frozenset({"promiser", "donor", "giver", "decliner", "implicit"})


class Other:
    """Somebody with a key and coins, who cannot crash."""

    role = "other"

    def __init__(self, world: World, name: str, style: str) -> None:
        self.world, self.name, self.style = world, name, style
        self.key = identity(name)
        self.wallet_key = key_of(name)
        self.life = 0
        self.known: dict[str, Any] = {}
        self.outbox: dict[str, Msg] = {}
        self.count = 0

    def did(self) -> None:
        self.world.coverage.actors[self.style] += 1

    def name_of(self, word: str) -> str:
        self.count += 1
        return f"{word} {self.name} {self.count}"

    def take(self, mint: Mint, coins: tuple[Output, ...], key: str, unlock: Unlock | None = None) -> bool:
        """Swap coins for one of ours, if the mint lets us."""
        world = self.world
        names = tuple([coin.name for coin in coins])
        output = Output(
            self.name_of("coin"), sum(coin.amount for coin in coins) - mint.fee(len(coins)), self.name, mint.keyset
        )
        if mint.stalled or output.amount <= 0 or mint.refusal(world.now, names, key, (output,), unlock):
            return False
        taken = mint.swap(names, key, (output,), unlock)
        if world.story is not None:
            world.tell(f"{mint.url}: {self.name} ({self.style}) takes {output.amount} sat")
        world.judge.swapped(mint, self, taken, (output,), key, "")
        return True

    def coin(self, mint: Mint, amount: int, lock: Lock | None) -> Output:
        """A real coin of ours, under a lock."""
        output = Output(self.name_of("coin"), amount, self.name, mint.keyset, lock, lock is not None)
        mint.give(output)
        return output

    def hear(self, msg: Msg) -> None:
        """A message that reaches it: they who only speak heed none."""

    def overhear(self, msg: Msg) -> None:
        """Bystanders read what everybody can read."""


class Rogue(Other):
    """A seller that is no node of ours."""

    def __init__(self, world: World, name: str, stall: Stall) -> None:
        super().__init__(world, name, stall.style)
        self.price = Msat(stall.price)
        self.urls = tuple(mint.url for mint in world.mints)

    def hear(self, msg: Msg) -> None:
        if msg.kind == "request" and msg.id not in self.known:
            self.known[msg.id] = msg
            self.world.soon(self, 5, self.asked, msg)
        elif msg.kind == "wrap" and msg.id not in self.known:
            self.known[msg.id] = msg
            self.world.soon(self, 5, self.paid, msg)

    def quote(self, msg: Msg, price: Msat | None = None, **changes: Any) -> Msg:
        now = self.world.now // 1000
        body = {
            "id": self.name_of("q"),
            "price": price or self.price,
            "expires": now + TTL_S,
            "eta": ETA_S,
            "mints": self.urls,
            "key": self.wallet_key,
            **changes,
        }
        return Msg(self.name_of("quote"), "quote", self.key, msg.id, msg.author, body)

    def word(self, msg: Msg, status: str) -> None:
        self.world.say(Msg(self.name_of(status), "word", self.key, msg.ref or msg.id, "", None, status))

    def result(self, msg: Msg, content: str = "", price: Msat | None = None) -> None:
        self.world.say(
            Msg(self.name_of("result"), "result", self.key, msg.ref, msg.author, price, content or f"by {self.name}")
        )

    def asked(self, msg: Msg) -> None:
        world, style, now = self.world, self.style, self.world.now // 1000
        if msg.body.kind % 100_000 != PAID:
            return
        if style == "promiser":
            self.word(msg, "processing")
            if world.turn() < 0.5:
                world.soon(self, 4_000, self.result, msg)
        elif style == "donor":
            self.result(msg, price=Msat(0))
        elif style == "giver":
            self.result(msg)
        elif style == "decliner":
            self.word(msg, "error")
        elif style == "implicit":
            world.say(self.quote(msg, id="", expires=0, key=""))
        elif style == "foreign":
            world.say(self.quote(msg, mints=("http://elsewhere",)))
        elif style == "expired":
            world.say(self.quote(msg, expires=now + int(world.turn() * 8)))
        elif style == "slow":
            world.say(self.quote(msg, eta=600))
        elif style == "wrong key":
            # In the name of an honest seller, to a key of its own; and once for a request that nobody made.
            honest = world.nodes[-1].key
            forged = self.quote(msg, Msat(1_000), key=self.wallet_key)
            forged.author = honest
            forged.signer = self.key
            world.say(forged)
            world.say(self.quote(msg))
        elif style == "changer":
            world.say(self.quote(msg))
            world.soon(self, 400, world.say, self.quote(msg, Msat(1_000)))
        else:
            world.say(self.quote(msg))
        if style in ("expired", "wrong key", "changer", "dear", "foreign", "slow") or style in QUIET:
            self.did()

    def paid(self, msg: Msg) -> None:
        world, style = self.world, self.style
        mint = next((mint for mint in world.mints if mint.url == msg.body["mint"]), None)
        coins = msg.body["coins"]
        if mint is None or not all(coin.name in mint.signed for coin in coins):
            return
        request = self.known.get(msg.ref, msg)
        if style in (
            "sleeper",
            "late claim",
            "tardy",
            "usurer",
            "double",
            "changer",
            "expired",
            "wrong key",
            "slow",
            "dear",
        ):
            if style == "tardy":
                world.soon(self, 62_000, self.result, msg)
            else:
                self.result(msg)
        if style in ("sleeper", "mute"):
            return self.did()
        if style == "late claim":
            when = coins[0].lock.locktime * 1000 + (-3_000, 500, 2_020, 2_060, 2_100, 4_000)[int(world.turn() * 6)]
            world.at(max(world.now, when), self, self._claim, mint, coins)
            return self.did()
        if style == "junk":
            self.result(msg, "junk")
        elif style == "quitter":
            self.word(request, "error")
        elif style == "thief":
            self.word(request, "processing")
        elif style == "double":
            self.result(msg, "once more")
            world.say(self.quote(request))  # perhaps it is paid again
        self.did()
        self._claim(mint, coins)

    def _claim(self, mint: Mint, coins: tuple[Output, ...], tries: int = 5) -> None:
        if not self.take(mint, coins, self.wallet_key) and tries and mint.stalled:
            self.world.soon(self, 8_000, self._claim, mint, coins, tries - 1)


class Stranger(Other):
    """A customer that does not play fair, or a bystander that lies."""

    CUSTOMERS = frozenset(
        {
            "token for two quotes", "short lock", "lock to another key", "small token", "forged token",
            "forged second coin", "token for another quote", "foreign mint", "early refund", "late payment",
            "spam from fresh keys", "flood of one key", "fetch",
        }
    )  # fmt: skip

    def open(self) -> None:
        world, style = self.world, self.style
        if style not in self.CUSTOMERS:
            world.eavesdroppers.append(self)
            return
        self.first: dict[str, Output] = {}
        many = (
            12 if style in ("spam from fresh keys", "flood of one key") else 2 if style.startswith("token for") else 1
        )
        for number in range(many):
            fresh = identity(f"{self.name}.{number}") if style == "spam from fresh keys" else self.key
            world.soon(self, number * (40 if many > 2 else 900), self._request, f"req {self.name}.{number}", fresh)

    def _request(self, id_: str, key: str) -> None:
        world = self.world
        group = world.nodes[0].group
        urls = tuple(mint.url for mint in world.mints)
        more = {"inputs": (Input("http://127.0.0.1/", "url"),)} if self.style == "fetch" else {}
        request = request_of(world, id_, key, group * 100_000 + PAID, urls, None, **more)
        world.listeners[id_] = self
        self.known[id_] = None
        msg = Msg(id_, "request", key, id_, "", request)
        world.say(msg)
        if self.style in ("spam from fresh keys", "flood of one key", "fetch"):
            self.did()

    # ---- as a customer

    def hear(self, msg: Msg) -> None:
        if msg.kind != "quote" or msg.ref not in self.known or msg.body["id"] == "" or msg.signer != msg.author:
            return
        seller = self.world.by_key.get(msg.author)
        if seller is None or seller.role != "seller" or self.style in ("spam from fresh keys", "flood of one key"):
            return
        if self.style == "token for two quotes":
            self.world.soon(self, 1, self.pay, msg)
        elif self.known[msg.ref] is None:
            self.known[msg.ref] = msg
            wait = (
                max(0, msg.body["expires"] * 1000 - self.world.now + 1_000 * int(self.world.turn() * 2))
                if self.style == "late payment"
                else 10
            )
            self.world.soon(self, wait, self.pay, msg)

    def pay(self, quote: Msg) -> None:
        """A payment with what this style is for wrong in it."""
        world, style, body = self.world, self.style, quote.body
        mint = next((mint for mint in world.mints if mint.url in body["mints"]), world.mints[0])
        now = world.now // 1000
        token = body["price"].sat_up() + mint.fee(1)
        until = now + {"short lock": 30, "early refund": 75}.get(style, 400)
        refund = f"refund {self.name}"
        key = key_of("somebody") if style == "lock to another key" else body["key"]
        lock = Lock(key, until, refund)
        quote_id, url, more = body["id"], mint.url, {}
        if style == "small token":
            token -= 1
        if style == "token for two quotes":
            coins: tuple[Output, ...] = (self.first.setdefault(quote.author, self.coin(mint, token + 20, lock)),)
            if coins[0].lock is not None and coins[0].name not in mint.signed:
                return
        elif style in ("forged token", "forged second coin"):
            fake = Output(self.name_of("fake"), token, self.name, mint.keyset, lock, True)
            coins = (fake,) if style == "forged token" else (self.coin(mint, 1, lock), fake)
            more = {"forged": {fake.name: None}}
        else:
            coins = (self.coin(mint, token, lock),)
        if style == "token for another quote":
            quote_id = "q of somebody else" if world.turn() < 0.5 else quote_id + "x"
        if style == "foreign mint":
            url = "http://elsewhere"
        self.did()
        wrap = Msg(
            self.name_of("wrap"),
            "wrap",
            quote.to,
            quote.ref,
            quote.author,
            {"mint": url, "coins": coins, "quote": quote_id, **more},
        )
        world.say(wrap)
        if style == "early refund":
            for wait in (10_000, 60_000, 76_000):
                world.soon(self, wait, self.take, mint, coins, refund)

    # ---- as a bystander

    def overhear(self, msg: Msg) -> None:
        world, style = self.world, self.style
        if msg.author == self.key or msg.signer == self.key or self.count > LOUD:
            return
        if style == "replayed token" and msg.kind == "wrap":
            # The same token once more: as it is under another id, in the customer's name; and in its own.
            copy = msg.forged(self.name_of("wrap"), self.key)
            world.say(copy)
            world.say(Msg(self.name_of("wrap"), "wrap", self.key, msg.ref, msg.to, msg.body))
            self.did()
        elif style == "forged receipts" and msg.kind == "wrap":
            for author, signer in ((msg.to, self.key), (self.key, self.key)):
                receipt = Msg(self.name_of("success"), "word", author, msg.ref, msg.author, None, "success")
                receipt.signer = signer
                world.say(receipt)
            self.did()
        elif style == "impostor" and msg.kind in ("wrap", "request"):
            to = msg.author
            for author, signer in ((msg.to or world.nodes[-1].key, self.key), (self.key, self.key)):
                result = Msg(self.name_of("result"), "result", author, msg.ref, to, None, f"forged by {self.name}")
                result.signer = signer
                if msg.kind == "wrap" or author != self.key:
                    world.say(result)
            self.did()
        elif style == "deleter" and msg.kind in ("quote", "wrap"):
            for author in (self.key, world.log[msg.ref].author if msg.ref in world.log else self.key):
                cancel = Msg(self.name_of("cancel"), "cancel", author, msg.ref)
                cancel.signer = self.key
                world.say(cancel)
            self.did()
        elif style == "bystander" and msg.kind == "request":
            # Answers that are for another customer or another request.
            body = {
                "id": self.name_of("q"),
                "price": Msat(1_000),
                "expires": world.now // 1000 + 60,
                "eta": 1,
                "mints": msg.body.mints,
                "key": self.wallet_key,
            }
            world.say(Msg(self.name_of("quote"), "quote", self.key, msg.id, identity("another"), body))
            self.did()
