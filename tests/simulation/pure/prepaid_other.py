"""Who cheats where balances are prepaid: sellers that hold deposits, and customers that draw on theirs."""

from typing import Any

from core.money import Msat
from dvm import prepaid
from dvm.prepaid import Statement, Terms, rest_sat
from relays.nip90 import PayMethod
from tests.simulation.pure.buyer import request_of
from tests.simulation.pure.cast import PREPAID, Stall
from tests.simulation.pure.depositor import LARGEST, rules_of, voucher, voucher_key
from tests.simulation.pure.mint import Lock, Mint, Output
from tests.simulation.pure.other import Other, Rogue
from tests.simulation.pure.paper import key_of
from tests.simulation.pure.world import PAID, Msg, World

LEAST = Msat(10_000)
ZERO = Msat(0)
# Where they have the coins, they take them before they say so.
SILENT = frozenset({"never says its terms", "takes no deposit", "terms of a thief"})


class Box:
    """A deposit that was handed over."""

    def __init__(self, msg: Msg, mint: Mint) -> None:
        self.id, self.customer, self.mint = msg.ref, msg.author, mint
        self.amount: Msat = msg.body["amount"]
        self.coins: tuple[Output, ...] = msg.body["coins"]
        self.seq, self.total = 0, ZERO
        self.over = False


class Depositary(Rogue):
    """A seller that takes deposits, and is cheaper than the honest ones."""

    def __init__(self, world: World, name: str, stall: Stall) -> None:
        super().__init__(world, name, stall)
        self.boxes: dict[str, Box] = {}  # by customer

    def hear(self, msg: Msg) -> None:
        if msg.kind in ("prepaid", "voucher"):
            if msg.id not in self.known and msg.signer == msg.author:
                self.known[msg.id] = msg
                self.world.soon(self, 5, self.told if msg.kind == "prepaid" else self.drawn, msg)
            return
        super().hear(msg)

    def asked(self, msg: Msg) -> None:
        if msg.body.kind % 100_000 != PAID:
            return
        box, method = self.boxes.get(msg.author), None
        if box is not None and not box.over and box.total + self.price <= box.amount:
            method = PayMethod(
                "prepaid", box.mint.url, "sat", self.wallet_key, deposit=box.id, seq=box.seq, total=box.total.value
            )
        self.world.say(self.quote(msg, prepaid=method))

    # ---- what is said of a deposit

    def say(self, box_id: str, to: str, word: str, **more: Any) -> None:
        self.world.say(Msg(self.name_of(word), "prepaid", self.key, box_id, to, {"word": word, **more}))

    def account(self, box: Box, state: str, total: Msat | None = None, token: Any = None) -> None:
        said = Statement(state, box.seq, box.total if total is None else total, False)
        self.say(box.id, box.customer, "account", account=said, token=token)

    def told(self, msg: Msg) -> None:
        word, style = msg.body["word"], self.style
        if word == "ask":
            return self._terms(msg)
        box = self.boxes.get(msg.author)
        if word == "deposit":
            mint = next(mint for mint in self.world.mints if mint.url == msg.body["mint"])
            if box is None or box.id != msg.ref:
                box = self.boxes[msg.author] = Box(msg, mint)
            if style in ("refuses the deposit", "silent with the deposit"):
                self.did()
                return self.account(box, prepaid.REFUSED) if style.startswith("refuses") else None
            turn = self.world.turn() if style == "closes unasked" else 1.0
            if turn > 0.2:
                self.account(box, prepaid.OPEN)
            if turn < 0.6:
                self.world.soon(self, int(turn * 10_000) if turn > 0.2 else 1, self._close, box)
            elif turn < 0.75:
                self.world.soon(self, int(turn * 4_000), self._let_go, box)
        elif box is not None and box.id == msg.ref and word == "status":
            box.seq = max(box.seq, msg.body["seq"])
            self.account(box, prepaid.CLOSED if box.over else prepaid.OPEN)
        elif box is not None and box.id == msg.ref and word == "close" and not box.over:
            box.seq = max(box.seq, msg.body["seq"])
            self._close(box)

    def _terms(self, msg: Msg) -> None:
        style = self.style
        if style in SILENT:
            self.did()
        fee = max(mint.fee(1) + mint.fee(10) for mint in self.world.mints)
        terms: Terms | None = Terms(LEAST, LARGEST, 900, fee, self.wallet_key, self.urls)
        if style == "never says its terms":
            return
        if style == "takes no deposit":
            terms = None
        elif style == "terms of a thief":
            fee, urls = (1_000, self.urls) if self.world.turn() < 0.5 else (fee, ("http://elsewhere",))
            terms = Terms(LEAST, LARGEST, 900, fee, self.wallet_key, urls)
        self.say(msg.ref, msg.author, "terms", terms=terms)

    # ---- what is drawn

    def drawn(self, msg: Msg) -> None:
        shown, box = msg.body["voucher"], self.boxes.get(msg.author)
        if box is None or box.id != shown.deposit:
            return
        if self.style == "draws and delivers nothing":
            box.seq = shown.seq
            return self.did()
        old = box.total
        box.seq, box.total = shown.seq, shown.total
        if self.style == "says that it delivered":
            return self.did()
        if self.style == "counts an old voucher":
            box.total = old
        self.result(msg)
        if self.style == "closes unasked" and box.total + self.price > box.amount:
            self.world.soon(self, 2_000, self._close, box)

    # ---- the end of it

    def _let_go(self, box: Box) -> None:
        """It says that nothing was earned, and leaves the coins."""
        self.did()
        self.account(box, prepaid.RELEASED)

    def _close(self, box: Box) -> None:
        """It takes the coins, and gives back what its style gives."""
        world, style = self.world, self.style
        if box.over:
            return
        box.over = True
        if style == "silent with the deposit":
            return None
        late = style in ("takes at the last moment", "says it at the last moment")
        if late:
            until = box.coins[0].lock.locktime * 1000 if box.coins[0].lock is not None else 0
            wait = (-200, 1_500, 2_050, 2_200, 3_100, 4_000)[int(world.turn() * 6)]
            return world.at(max(world.now, until + wait), self, self._late, box)
        if style in ("gives back and takes nothing", "gives back and takes at last"):
            self.did()
            if style.endswith("at last"):
                until = box.coins[0].lock.locktime * 1000 if box.coins[0].lock is not None else 0
                wait = (2_900, 3_050, 4_000, 20_000)[int(world.turn() * 4)]
                world.at(max(world.now, until + wait), self, self.take, box.mint, box.coins, self.wallet_key)
            return self._give(box, self._rest(box))
        if not self.take(box.mint, box.coins, self.wallet_key):
            box.over = False
            return world.soon(self, 8_000, self._close, box)
        if style not in ("draws and delivers nothing", "says that it delivered"):
            self.did()
        if style == "keeps the deposit":
            return None
        if style == "counts too much":
            return self._give(box, self._rest(box), box.total + Msat(1_000))
        if style == "gives back too little":
            return self._give(box, 1)
        return self._give(box, self._rest(box))

    def _late(self, box: Box) -> None:
        """As the locktime passes: perhaps its customer is first."""
        self.did()
        taken = self.take(box.mint, box.coins, self.wallet_key)
        if self.style == "says it at the last moment" or taken:
            self._give(box, self._rest(box))

    def _rest(self, box: Box) -> int:
        return rest_sat(box.amount, box.total, 2)

    def _give(self, box: Box, sat: int, total: Msat | None = None) -> None:
        mint, token = box.mint, None
        if sat > 0:
            coin = self.coin(mint, sat, None)
            if self.style == "gives back junk":
                coin = coin._replace(name=self.name_of("fake"))
            elif self.style == "gives back spent coins":
                self.take(mint, (coin,), "")
            token = mint.url, (coin,)
        self.account(box, prepaid.CLOSED, total, token)


class Depositing(Other):
    """A customer with a deposit at an honest seller, or somebody who speaks for one."""

    def __init__(self, world: World, name: str, style: str) -> None:
        super().__init__(world, name, style)
        self.boxes: list[str] = []
        self.coins: tuple[Output, ...] = ()
        self.seller: Any = None
        self.terms: Any = None
        self.amount = Msat(20_000)
        self.seq, self.total, self.asked_for = 0, ZERO, 0
        self.first: Any = None

    def open(self) -> None:
        world = self.world
        if self.style == "speaks for others":
            world.eavesdroppers.append(self)
            return
        group = world.nodes[0].group
        honest = [one for one in world.shops[group] if one.role == "seller" and one.stall.way == PREPAID]
        if honest:
            self.seller = honest[0]
            world.soon(self, 300, self._ask)

    def overhear(self, msg: Msg) -> None:
        """Words in somebody else's name."""
        if msg.kind not in ("prepaid", "voucher") or msg.signer != msg.author or self.count > 40:
            return
        self.did()
        if msg.kind == "voucher":
            return self.world.say(msg.forged(self.name_of("voucher"), self.key))
        if msg.body["word"] in ("deposit", "account"):
            buyer, seller = (msg.author, msg.to) if msg.body["word"] == "deposit" else (msg.to, msg.author)
            false = Statement(prepaid.CLOSED, 9, Msat(9_000), False)
            words = [(seller, buyer, {"word": "account", "account": false, "token": None})]
            words += [(buyer, seller, {"word": word, "seq": 9}) for word in ("close", "status")]
            for author, to, body in words:
                for name in (author, self.key):
                    word = Msg(self.name_of(body["word"]), "prepaid", name, msg.ref, to, body)
                    word.signer = self.key
                    self.world.say(word)

    # ---- as a customer

    def post(self, word: str, box: str, **more: Any) -> None:
        self.world.say(Msg(self.name_of(word), "prepaid", self.key, box, self.seller.key, {"word": word, **more}))

    def _ask(self) -> None:
        self.boxes.append(f"{self.name}/balance {len(self.boxes)}")
        self.post("ask", self.boxes[-1], amount=self.amount)

    def hear(self, msg: Msg) -> None:
        if msg.signer != msg.author or msg.id in self.known:
            return
        self.known[msg.id] = None
        if msg.kind == "prepaid" and msg.ref in self.boxes and msg.author == self.seller.key:
            if msg.body["word"] == "terms" and msg.body["terms"] is not None and not self.coins:
                self.terms = msg.body["terms"]
                self._deposit(msg.ref)
            elif msg.body["word"] == "account":
                self._accounted(msg.ref, msg.body["account"])
        elif msg.kind == "quote" and msg.author == self.seller.key and msg.body.get("prepaid"):
            self.world.soon(self, 5, self._draw, msg)
        elif msg.kind == "result" and self.asked_for < 3:
            self.world.soon(self, 50, self._request)

    def _deposit(self, box: str) -> None:
        world, style, terms = self.world, self.style, self.terms
        mint = next(mint for mint in world.mints if mint.url in terms.mints)
        lasts = rules_of(world.plot)
        until = world.now // 1000 + {"too short a deposit": 5}.get(style, lasts.deposit_margin_s + 75)
        key = key_of("somebody") if style == "deposit to another key" else terms.wallet_key
        lock = Lock(key, until, f"refund {self.name}")
        token = self.amount.sat_up() + mint.fee(1)
        self.coins = (self.coin(mint, token - (style == "too small a deposit"), lock),)
        more: dict[str, Any] = {}
        if style == "forged deposit":
            fake = self.coins[0]._replace(name=self.name_of("fake"))
            self.coins, more = (fake,), {"forged": {fake.name: None}}
        self._hand_over(box, mint, **more)
        if style == "coins for two deposits":
            other = f"{box}, again"
            self.boxes.append(other)
            self._hand_over(other, mint)
        if style in ("too short a deposit", "too small a deposit", "deposit to another key", "forged deposit"):
            self.did()
        if style == "takes the deposit back":
            for wait in (-500, 100, 1_000, 20_000):
                world.at(max(world.now, until * 1000 + wait), self, self._take_back, mint)

    def _hand_over(self, box: str, mint: Mint, **more: Any) -> None:
        self.post(
            "deposit", box, amount=self.amount, key=voucher_key(box), mint=mint.url, coins=self.coins, quote=box, **more
        )

    def _take_back(self, mint: Mint) -> None:
        self.did()
        self.take(mint, self.coins, f"refund {self.name}")

    def _accounted(self, box: str, said: Statement) -> None:
        if said.state == prepaid.OPEN and not self.asked_for:
            self._request()
            if self.style == "asks all the time":
                self.did()
                for number in range(14):
                    wait = 6_000 * number if number < 10 else 3_600_000 * number
                    self.world.soon(self, 4_000 + wait, self.post, "status", box)
                    self.world.soon(self, 30_000 + wait, self._ask_to_close, box)
        elif said.state == prepaid.REFUSED and self.style == "coins for two deposits":
            self.did()

    def _ask_to_close(self, box: str) -> None:
        self.post("close", box, seq=self.seq)

    def _request(self) -> None:
        world = self.world
        id_ = f"req {self.name}.{self.asked_for}"
        self.asked_for += 1
        group = world.nodes[0].group
        urls = tuple(mint.url for mint in world.mints)
        request = request_of(world, id_, self.key, group * 100_000 + PAID, urls, None)
        world.listeners[id_] = self
        world.say(Msg(id_, "request", self.key, id_, "", request))

    def _draw(self, quote: Msg) -> None:
        """A voucher with what this style is for wrong in it."""
        style, price, box = self.style, quote.body["price"], self.boxes[0]
        self.seq += 1
        seq, total, request_id, deposit, key = self.seq, self.total + price, quote.ref, box, ""
        if style == "voucher twice" and self.first is not None:
            self.did()
            self._show(quote, self.first)
            return self._show(quote, voucher(deposit, self.seller.key, seq - 1, total, request_id))
        if style == "lower voucher" and self.first is not None:
            total = self.total
        elif style == "voucher of another deposit":
            deposit = next(iter(self.world.judge.banks), "nobody's")
        elif style == "voucher above the deposit":
            total = self.amount + price
        elif style == "voucher with another key":
            key = key_of("somebody")
        elif style == "voucher for another request":
            request_id = "another"
        if style not in ("voucher twice", "lower voucher", "takes the deposit back", "asks all the time") or (
            style == "lower voucher" and self.first is not None
        ):
            self.did()
        shown = voucher(deposit, self.seller.key, seq, total, request_id, key)
        self.first = self.first or shown
        if (deposit, request_id, key) == (box, quote.ref, "") and total == self.total + price:
            self.total = total
        self._show(quote, shown)
        if style == "closes at work":
            self.world.soon(self, 30, self._ask_to_close, box)

    def _show(self, quote: Msg, shown: Any) -> None:
        body = {"quote": quote.body["id"], "voucher": shown}
        self.world.say(Msg(self.name_of("voucher"), "voucher", self.key, quote.ref, quote.author, body))
