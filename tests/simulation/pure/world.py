"""One history: virtual time, the wire between everybody, lines to the mints, and processes that die.

Everything that happens is one entry of a heap: (when, number, whose, which life of it, what). A node that died is in
another life; what was under way for the old one never happens. Chance is drawn from the plot's seed alone.
"""

import random
from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from tests.simulation.pure.cast import Crash, Plot
from tests.simulation.pure.lightning import Lightning
from tests.simulation.pure.mint import PAID_QUOTE, Mint

START_MS = 1_700_000_000_000
PAID, FREE = 5050, 5055
MANY = 4_000  # events for each node: more is a history that never ends


class Crashed(Exception):
    """A node died in the middle of what it did."""

    def __init__(self, node: Any, down: int) -> None:
        super().__init__(node.name)
        self.node, self.down = node, down


class Msg:
    """A signed event. `signer` is whose key really signed it: a node that looks sees whether that is `author`."""

    __slots__ = ("at", "author", "body", "content", "id", "kind", "ref", "signer", "to")

    def __init__(
        self, id: str, kind: str, author: str, ref: str = "", to: str = "", body: Any = None, content: str = ""
    ) -> None:
        self.id, self.kind, self.author, self.ref, self.to, self.body = id, kind, author, ref, to, body
        self.content = content
        self.signer = author
        self.at = 0

    def forged(self, id: str, signer: str = "mallory", **changes: Any) -> "Msg":
        """The same with changes, in the author's name, signed by somebody else."""
        other = Msg(id, self.kind, self.author, self.ref, self.to, self.body, self.content)
        other.signer = signer
        for name, value in changes.items():
            setattr(other, name, value)
        return other


class World:
    """Who is there, and what happens when."""

    def __init__(self, plot: Plot, coverage: "Coverage", story: list[str] | None = None) -> None:
        self.plot, self.coverage, self.story = plot, coverage, story
        chance = random.Random(plot.seed ^ 0x5EED)
        self.chance = chance
        self.turn = chance.random
        self.now = START_MS
        self.heap: list[tuple[Any, ...]] = []
        self.number = 0
        self.events = 0
        self.log: dict[str, Msg] = {}
        self.mints = (Mint("http://a", 100), Mint("http://b", 1_000))
        self.nodes: list[Any] = []
        self.listeners: dict[str, Any] = {}  # request id: whoever asked
        self.by_key: dict[str, Any] = {}
        self.mail: dict[Any, list[Msg]] = {}
        self.shops: dict[int, list[Any]] = {}  # group: its sellers
        self.eavesdroppers: list[Any] = []
        self.trusted: set[str] = set()  # keys that every seller's owner has named
        self.allowed: dict[tuple[str, int], bool] = {}
        self.points: dict[str, list[list[Any]]] = {}
        for crash in plot.crashes:
            self.points.setdefault(crash.point, []).append([crash.number, crash])
        faults = frozenset(plot.faults)
        self.faults = faults
        self.calm = START_MS + (100_000 if plot.seed & 3 else 900_000)  # until then things go wrong
        self.span = 2_000 if "reorder" in faults else 900 if "delay" in faults else 40
        self.drops, self.repeats, self.forges = "drop" in faults, "repeat" in faults, "forge" in faults
        self.smooth = not (self.drops or self.repeats or self.forges)
        self.loses_ok = "lost OK" in faults
        self.bad_line = tuple(name for name in plot.faults if name.startswith("mint: ") and name in _LINE)
        self.loses_vouchers = "voucher lost" in faults
        self.hides = "mint: hides the key" in faults
        self.lightning = Lightning(self)
        self.cut: Any = None
        self.cut_until = 0
        self.judge: Any = None
        for fault in faults & _EVERYWHERE:
            coverage.faults[fault] += 1

    # ---- time

    def at(self, when: int, node: Any, act: Callable[..., None], *args: Any) -> None:
        """`act` happens at `when`, if `node` (None: the world) still lives the same life then."""
        self.number += 1
        heappush(self.heap, (when, self.number, node, 0 if node is None else node.life, act, args))

    def soon(self, node: Any, ms: int, act: Callable[..., None], *args: Any) -> None:
        self.number += 1
        heappush(self.heap, (self.now + ms, self.number, node, 0 if node is None else node.life, act, args))

    def run(self) -> None:
        """Until nothing is left to happen."""
        heap, judge = self.heap, self.judge
        most = MANY * (self.plot.nodes + len(self.plot.strangers))
        while heap:
            when, _, node, life, act, args = heappop(heap)
            if node is not None and (node.life != life or life < 0):
                continue
            self.now = when
            self.events += 1
            try:
                act(*args)
            except Crashed as crash:
                self._died(crash)
            if self.events > most:
                judge.breach("M4", "the history never ends")
                return

    def tell(self, text: str) -> None:
        assert self.story is not None
        self.story.append(f"{(self.now - START_MS) // 1000:5d}.{(self.now - START_MS) % 1000:03d}s  {text}")

    # ---- processes

    def before(self, node: Any, label: str) -> None:
        """A node is about to persist something; perhaps it dies before."""
        if label in self.points:
            self._die(node, label, before=True)

    def after(self, node: Any, label: str) -> None:
        """It is durable; perhaps the node dies before it acts."""
        self.coverage.commits[label] += 1
        if self.story is not None:
            self.tell(f"{node.name} persists: {label}")
        if label in self.points:
            self._die(node, label, before=False)

    def _die(self, node: Any, label: str, *, before: bool) -> None:
        waiting = self.points[label]
        for place in waiting:
            crash: Crash = place[1]
            if crash.before is before:
                place[0] -= 1
                if place[0] <= 0:
                    waiting.remove(place)
                    if not waiting:
                        del self.points[label]
                    self.coverage.crashes[f"{'before' if before else 'after'} {label}"] += 1
                    raise Crashed(node, crash.down)

    def _died(self, crash: Crashed) -> None:
        node = crash.node
        node.life = -node.life - 1  # below zero: it is away, and hears nothing
        if self.story is not None:
            self.tell(f"{node.name} dies, for {crash.down} ms")
        node.forget()
        self.soon(None, crash.down, self._back, node)

    def _back(self, node: Any) -> None:
        if self.story is not None:
            self.tell(f"{node.name} is back")
        node.life = -node.life
        try:
            node.restart()
        except Crashed as crash:
            self._died(crash)
            return
        for msg in list(self.mail.get(node, ())):
            self._deliver(node, msg)

    # ---- the wire

    def send(self, node: Any, msg: Msg) -> None:
        """From a node's outbox towards the relay, until that has said OK."""
        if msg.id not in node.outbox:
            return
        when = self.now + 1 + int(self.turn() * self.span)
        if node is self.cut and when < self.cut_until:
            when += self.cut_until - self.now
        self.at(when, None, self._arrive, msg, node)

    def say(self, msg: Msg) -> None:
        """Somebody who is no node publishes something."""
        self.soon(None, 1 + int(self.turn() * self.span), self._arrive, msg, None)

    def _arrive(self, msg: Msg, node: Any) -> None:
        if msg.id not in self.log:
            msg.at = self.now
            self.log[msg.id] = msg
            if self.story is not None:
                self.tell(
                    f"relay: {msg.kind} {msg.id}" + (" (not signed by its author)" if msg.signer != msg.author else "")
                )
            self.judge.stored(msg)
            self._fan_out(msg)
            for somebody in self.eavesdroppers:
                somebody.overhear(msg)
        if node is None:
            return
        if self.loses_ok and self.now < self.calm and self.turn() < 0.5:
            self.coverage.faults["lost OK"] += 1
            self.soon(node, 2_000, self.send, node, msg)
        else:
            self.soon(node, 1 + int(self.turn() * self.span), self._ok, node, msg.id)

    def _ok(self, node: Any, id_: str) -> None:
        node.outbox.pop(id_, None)

    def _fan_out(self, msg: Msg) -> None:
        kind = msg.kind
        if kind == "request":
            for shop in self.shops[msg.body.kind // 100_000]:
                self._carry(shop, msg)
        elif kind == "cancel":
            for shops in self.shops.values():
                for shop in shops:
                    if msg.ref in shop.known:
                        self._carry(shop, msg)
        elif kind in _WRAPPED:
            receiver = self.by_key.get(msg.to)
            if receiver is not None:
                self._carry(receiver, msg)
        else:
            listener = self.listeners.get(msg.ref)
            if listener is not None:
                self._carry(listener, msg)

    def _carry(self, receiver: Any, msg: Msg) -> None:
        if self.points:  # only who may die needs its mail once more
            self.mail.setdefault(receiver, []).append(msg)
        when = self.now + 1 + int(self.turn() * self.span)
        if not self.smooth and self.now < self.calm:
            when = self._in_bad_weather(receiver, msg, when)
        if self.loses_vouchers and msg.kind == "voucher" and self.turn() < 0.7:
            self.coverage.faults["voucher lost"] += 1
            when += (30_000, 90_000, 400_000)[int(self.turn() * 3)]  # it comes when nobody waits for it any more
        if receiver is self.cut and when < self.cut_until:
            self.coverage.faults["partition"] += 1
            when += self.cut_until - self.now
        self.number += 1
        heappush(self.heap, (when, self.number, receiver, receiver.life, receiver.hear, (msg,)))

    def _deliver(self, receiver: Any, msg: Msg) -> None:
        self.soon(receiver, 1 + int(self.turn() * self.span), receiver.hear, msg)

    def _in_bad_weather(self, receiver: Any, msg: Msg, when: int) -> int:
        faults, turn = self.coverage.faults, self.turn
        if self.drops and turn() < 0.2:
            faults["drop"] += 1
            when += (4_000, 20_000, 500_000)[int(turn() * 3)]  # found when relays are compared, or much too late
        if self.repeats and turn() < 0.4:
            faults["repeat"] += 1
            self.at(when + int(turn() * 3_000), receiver, receiver.hear, msg)
        if self.forges and turn() < 0.3:
            faults["forge"] += 1
            self.at(when - 1, receiver, receiver.hear, msg.forged(f"forged {msg.id}", content=f"forged {msg.content}"))
        return when

    # ---- lines to the mints

    def ask(self, node: Any, act: Callable[[], Any], done: Callable[[str, Any], None], *, swap: bool = False) -> None:
        """Ask a mint. `done` hears `ok` with what `act` returned, `unsent`, `silent`, `false` or `refused`."""
        turn = self.turn
        lag = 2 + int(turn() * 50)
        if self.bad_line and self.now < self.calm and turn() < 0.4:
            fault = self.bad_line[int(turn() * len(self.bad_line))]
            if fault in _SWAPS_ONLY and not swap:
                fault = ""
            if fault:
                self.coverage.faults[fault] += 1
                self._ask_badly(node, act, done, fault, lag)
                return
        self.soon(None, lag, self._asked, node, node.life, act, done, lag, "ok")

    def _ask_badly(self, node: Any, act: Callable[[], Any], done: Any, fault: str, lag: int) -> None:
        if fault == "mint: away":
            self.soon(node, lag, done, "unsent", None)
        elif fault == "mint: busy":  # whoever stands before it may have let the request through all the same
            if self.turn() < 0.3:
                act()
            self.soon(node, lag, done, "busy", None)
        elif fault == "mint: request lost":
            self.soon(node, 10_000, done, "silent", None)
        elif fault == "mint: late request":  # it is still on its way when whoever asked has given up waiting
            self.soon(node, 10_000, done, "silent", None)
            self.soon(None, 10_000 + int(self.turn() * 8_000), act)
        elif fault == "mint: refuses":
            self.soon(node, lag, done, "refused", None)
        elif fault == "mint: blind":
            self.soon(node, lag, done, "blind", None)
        else:
            self.soon(None, lag, self._asked, node, node.life, act, done, lag, _LINE[fault])

    def _asked(self, node: Any, life: int, act: Any, done: Any, lag: int, word: str) -> None:
        answer = act()
        if node.life != life:
            return
        if word == "silent":
            self.soon(node, 10_000, done, word, None)
        else:
            self.soon(node, lag, done, word, answer)

    # ---- what goes wrong by itself

    def unsettle(self) -> None:
        """Partitions, rotations and stalls, at times of their own."""
        turn = self.turn
        if "partition" in self.faults:
            node = self.nodes[0] if turn() < 0.5 else self.nodes[int(turn() * len(self.nodes))]
            self.soon(None, int(turn() * 6_000), self._cut, node, (2_000, 8_000, 70_000)[int(turn() * 3)])
        if "mint: keyset rotates" in self.faults:
            for mint in self.mints:
                self.soon(None, int(turn() * 8_000), self._rotate, mint)
        if "mint: stalls" in self.faults:
            for mint in self.mints:
                begin = int(turn() * 6_000) if turn() < 0.7 else 355_000
                self.soon(None, begin, self._stall, mint, 12_000 + int(turn() * 20_000))
        if "mint: stalls long" in self.faults:
            for mint in self.mints:
                self.soon(None, 1_000, self._stall, mint, 58_000 + int(turn() * 9_000))

    def _cut(self, node: Any, ms: int) -> None:
        self.cut, self.cut_until = node, self.now + ms

    def _rotate(self, mint: Mint) -> None:
        mint.keyset += 1
        self.coverage.faults["mint: keyset rotates"] += 1

    def _stall(self, mint: Mint, ms: int) -> None:
        mint.stalled = ms > 0
        if ms:
            self.coverage.faults["mint: stalls" if ms < 58_000 else "mint: stalls long"] += 1
            self.soon(None, ms, self._stall, mint, 0)

    def pay_invoice(self, mint: Mint, quote: str) -> None:
        """Lightning: somebody pays the invoice of a deposit."""
        if mint.quotes[quote][0] != PAID_QUOTE:
            mint.quotes[quote][0] = PAID_QUOTE


class Coverage:
    """What many histories came across."""

    KINDS = ("transitions", "commits", "crashes", "faults", "actors", "methods", "checks")

    def __init__(self) -> None:
        self.histories = self.events = 0
        for kind in self.KINDS:
            setattr(self, kind, Counter())

    transitions: Counter[str]
    commits: Counter[str]
    crashes: Counter[str]
    faults: Counter[str]
    actors: Counter[str]
    methods: Counter[str]
    checks: Counter[str]

    def add(self, other: "Coverage") -> None:
        self.histories += other.histories
        self.events += other.events
        for kind in self.KINDS:
            getattr(self, kind).update(getattr(other, kind))

    def report(self) -> str:
        lines = []
        for kind in self.KINDS:
            lines.append(f"{kind}:")
            lines += [f"  {count:9d}  {name}" for name, count in sorted(getattr(self, kind).items())]
        return "\n".join(lines)


# Faults of a line to a mint, and what becomes of the answer where the mint acts.
_LINE = {
    "mint: request lost": "", "mint: answer lost": "silent", "mint: late request": "", "mint: false answer": "false",
    "mint: away": "", "mint: refuses": "", "mint: busy": "", "mint: blind": "", "mint: signs a part": "part",
}  # fmt: skip
_WRAPPED = frozenset({"wrap", "order", "cosign", "prepaid", "voucher", "nutzap"})  # or named by its key, in public
_EVERYWHERE = frozenset({"delay", "reorder"})
_SWAPS_ONLY = frozenset({"mint: false answer", "mint: refuses"})
