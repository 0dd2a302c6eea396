"""M1 to M8 (DESIGN §6), looked at after every stored event and every commit, and once more at the end.

Facts come from outside where they can: the relay's stored events, the mint. The nodes' rows are only what is judged.
A breach is noted under the name of its rule, so that one run tells about all of them.
"""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

import orjson

from core.money import Msat
from core.unit import Update, Write
from dvm.job import FINAL, Purchase
from dvm.record import decode
from dvm.request import ComputeRequest
from dvm.seal import SEAL_KEY, Pair, hash_of, open_sealed
from dvm.seller import Sale
from dvm.trust import MOST_CREDIT
from relays.error import MalformedEvent, NotForUs
from relays.event import Event
from relays.kind import GIFT_WRAP, JOB_FEEDBACK, is_request, is_result
from relays.nip17 import unwrap
from relays.nip90 import Quote, read_answer, read_request
from tests.simulation.adversary import Underworld
from tests.simulation.fact import Paid, coin_of, fee, read_payment, taken_by
from tests.simulation.world import Node, World
from wallet.journal import Account
from wallet.payment import State as OperationState
from wallet.purse import Stored

RULES = ("M1", "M2", "M3", "M4", "M5", "M6", "M7", "M8")
_MONEY = frozenset({"proof", "posting", "operation"})


class Watch:
    """Watches one world."""

    def __init__(self, world: World, underworld: Underworld) -> None:
        self.world, self.underworld = world, underworld
        self.breaches: dict[str, list[str]] = {rule: [] for rule in RULES}
        self.checks: Counter[str] = Counter()
        self.paid: dict[str, Paid] = {}
        self.quotes: dict[tuple[str, str], Quote] = {}
        self.answers: dict[tuple[str, str, str], set[str]] = defaultdict(set)
        self.texts: dict[tuple[int, str], list[Event]] = defaultdict(list)
        self.orders: dict[str, set[tuple[str, str]]] = defaultdict(set)
        self.works: Counter[tuple[str, str]] = Counter()
        self.limits: dict[str, Any] = {}
        world.relay.on_stored.append(self.stored)
        world.on_commit.append(self.committed)
        world.on_work.append(self.works_on)

    def hold(self, rule: str, holds: object, text: str) -> None:
        """Note a breach, once."""
        self.checks[rule] += 1
        if not holds and text not in self.breaches[rule]:
            self.breaches[rule].append(f"{self.world.clock.monotonic():.2f}s {text}")

    # ---- the relay stored an event

    def stored(self, event: Event) -> None:
        if event.kind == GIFT_WRAP:
            for seller in self.world.sellers:
                if event.value("p") == seller.key.pubkey:
                    self._wrapped(event, seller)
        elif is_request(event.kind):
            text = "\n\n".join(item.data for item in read_request(event).inputs)
            self.texts[event.kind, text].append(event)
        elif event.kind == JOB_FEEDBACK or is_result(event.kind):
            self._answered(event)

    def _answered(self, event: Event) -> None:
        try:
            answer = read_answer(event)
        except MalformedEvent:
            return
        if isinstance(answer, Quote):
            self.quotes[answer.seller, event.id] = answer
        seller = next((one for one in self.world.sellers if one.key.pubkey == event.pubkey), None)
        if seller is None:
            return
        kind = "quote" if isinstance(answer, Quote) else "result" if is_result(event.kind) else "word"
        said = self.answers[event.pubkey, answer.request_id, kind]
        said.add(event.id)
        if kind in ("quote", "result"):
            self.hold("M6", len(said) == 1, f"{seller.name} said two {kind}s to {answer.request_id[:8]}")

    def _wrapped(self, event: Event, seller: Node) -> None:
        paid = read_payment(self.world, event, seller)
        if paid is None:
            return self._ordered(event, seller)
        self.paid[event.id] = paid
        if paid.sender == self.world.buyer.key.pubkey:
            self._m1_one_payment(paid)
            self._m2_payment(paid)

    def _ordered(self, event: Event, seller: Node) -> None:
        """A customer accepts a quote, and pays when the sealed work is there (mode A)."""
        try:
            rumor = unwrap(seller.key, event)
        except NotForUs:
            return
        if rumor.value("order") == "A":
            self.orders[seller.name].add((rumor.sender, rumor.value("e") or ""))

    def _m1_one_payment(self, paid: Paid) -> None:
        same = [
            one for one in self.paid.values() if one.sender == paid.sender and one.request_id == paid.request_id
        ]  # fmt: skip
        coins = {coin.y: coin.amount for one in same for coin in one.coins}
        self.hold("M1", len({one.quote_id for one in same}) == 1, "two quotes of one job were paid")
        self.hold("M1", len({frozenset(coin.y for coin in one.coins) for one in same}) == 1, "a quote was paid twice")
        purchase = self._purchase_of(paid.request_id)
        if purchase is not None:
            within = Msat.of_sat(sum(coins.values())) <= purchase.limit.ceiling
            self.hold("M1", within, f"{sum(coins.values())} sat were paid for a job of {purchase.limit.ceiling}")
        self.hold("M6", len(same) == 1, "the same payment was sent in two messages")

    def _m2_payment(self, paid: Paid) -> None:
        named = [
            one
            for (seller, _), one in self.quotes.items()
            if seller == paid.seller and one.quote_id == paid.quote_id and one.request_id == paid.request_id
        ]
        self.hold("M2", named, "money went to somebody who had not quoted")
        request = self.world.relay.events.get(paid.request_id)
        if not named or request is None:
            return
        quote = named[0]
        keys = {method.pubkey for method in quote.methods if method.mint == paid.mint}
        price = quote.amount.sat_up()
        self.hold("M2", paid.mint in read_request(request).mints, "paid at a mint that was not agreed")
        self.hold("M2", {coin.pubkey for coin in paid.coins} <= keys, "locked to a key that the quote does not name")
        self.hold("M2", paid.total - fee(len(paid.coins), self.world) == price, f"{paid.total} sat for {price} sat")
        purchase = self._purchase_of(paid.request_id)
        if purchase is None or purchase.payment is None:
            return self.hold("M2", False, "paid without a choice")
        self.hold("M2", purchase.payment.seller == paid.seller, "paid to somebody else than the chosen seller")
        self.hold("M2", quote.event_id == purchase.chosen, "another quote was paid than the one chosen")
        self.hold("M2", purchase.payment.gross <= purchase.limit.ceiling, "paid above the reservation")
        refund = self.world.buyer.keyring.key("refund", purchase.payment.op_id).compressed
        until = purchase.deadline
        self.hold("M2", {coin.refund for coin in paid.coins} == {refund}, "refundable to another key than ours")
        self.hold("M2", min(coin.locktime for coin in paid.coins) > until, "the lock ends before the seller's time")
        self.hold("M2", all(coin.genuine for coin in paid.coins), "coins that the mint did not sign")
        rivals = [one for one in self._offered(purchase) if one.amount < quote.amount]
        self.hold("M2", not rivals, "a cheaper admissible quote was passed over")

    def _offered(self, purchase: Purchase) -> list[Quote]:
        """Honest sellers' quotes that the buyer had in hand and could pay."""
        known = {item.event_id for item in purchase.offers if not item.refusal}
        return [one for (_, event_id), one in self.quotes.items() if event_id in known]

    def _purchase_of(self, request_id: str) -> Purchase | None:
        for row in self.world.buyer.rows("purchase"):
            if row["request_id"] == request_id:
                return decode(Purchase, row["body"])
        return None

    # ---- a node committed

    def committed(self, node: Node, unit: Sequence[Write]) -> None:
        tables = {getattr(write, "table", "entry") for write in unit}
        if tables & _MONEY:
            self._m3_rows(node)
            self._m5_refused(node, unit)
        if "budget" in tables or "effect" in tables:
            self._m8_budgets(node)
        if "purchase" in tables:
            for write in unit:
                if getattr(write, "table", "") == "purchase":
                    row: Any = getattr(write, "row", None) or getattr(write, "set", None)
                    self._purchase(node, decode(Purchase, row["body"]))
        if "sale" in tables:
            self._m6_sales(node, unit)
        if "sale" in tables and node.name != "buyer":
            self._m7_open(node)

    def _m3_rows(self, node: Node) -> None:
        """The journal, the coins, and the mint agree at any moment as far as nothing is under way."""
        accounts: Counter[str] = Counter()
        for row in node.rows("posting"):
            accounts[row["account"]] += row["amount"]
        held = {state: node.coins(state) for state in ("live", "reserved", "locked")}
        self.hold("M3", sum(accounts.values()) == 0, f"{node.name}: the journal sums to {sum(accounts.values())}")
        there, booked = held["live"] + held["reserved"], accounts[Account.WALLET]
        self.hold("M3", there == booked, f"{node.name}: {there} sat in coins, {booked} in the journal")
        self.hold("M3", held["locked"] == accounts[Account.LOCKED], f"{node.name}: locked coins and journal differ")
        self.hold("M3", accounts[Account.LOST] == 0, f"{node.name}: money was written off")
        gone = [row for row in node.rows("proof") if row["state"] == "live" and self.world.mint.is_spent(row["y"])]
        self.hold("M3", not gone, f"{node.name}: a coin that is counted as free is spent")

    def _m5_refused(self, node: Node, unit: Sequence[Write]) -> None:
        """What is given up did not happen, and what is booked did, says the mint."""
        ids = {
            str(write.where["id"])
            for write in unit
            if isinstance(write, Update)
            and write.table == "operation"
            and write.set.get("state") in (OperationState.REFUSED, OperationState.DONE)
        }
        if ids:
            for stored in node.operations():
                if stored.op.id in ids:
                    self._m5_operation(node, stored)

    def _m5_operation(self, node: Node, stored: Stored) -> None:
        groups = [group for group in (stored.plan.outputs, *stored.plan.past) if group]
        signed = [group for group in groups if all(output.b in self.world.mint.signed for output in group)]
        if stored.op.state is OperationState.REFUSED:
            self.hold("M5", not signed, f"{node.name}: a {stored.op.kind} was given up, and had happened")
        elif stored.op.state is OperationState.DONE:
            self.hold(
                "M5", len(signed) == 1, f"{node.name}: a {stored.op.kind} was booked, and happened {len(signed)} times"
            )

    # ---- purchases

    def _purchase(self, node: Node, purchase: Purchase) -> None:
        job = purchase.job_id[:8]
        locks = [
            one
            for one in node.operations()
            if one.op.kind == "lock" and one.effect_id == purchase.effect_id and one.op.state != "refused"
        ]
        self.hold("M1", len(locks) <= 1, f"{job}: {len(locks)} payments at once")
        spent = sum(one.amount + one.fee for one in locks)
        self.hold("M1", Msat.of_sat(spent) <= purchase.limit.ceiling, f"{job}: {spent} sat above the reservation")
        if purchase.money == "none":
            self.hold("M5", not locks, f"{job}: the payment was called off while it may have happened")
        self._m4(node, purchase, locks)
        self._m6_purchase(purchase, job)
        self._m8_purchase(node, purchase, job)

    def _m4(self, node: Node, purchase: Purchase, locks: list[Any]) -> None:
        job = purchase.job_id[:8]
        effect = next((row for row in node.rows("effect") if row["id"] == purchase.effect_id), None)
        holds = [row for row in node.rows("hold") if row["effect_id"] == purchase.effect_id]
        if effect is None:
            return self.hold("M4", False, f"{job}: no effect was begun")
        ended = effect["state"] in ("commit", "fail")
        self.hold(
            "M4", ended == purchase.closed, f"{job}: the reservation is {effect['state']}, closed={purchase.closed}"
        )
        if not ended:
            return self.hold("M4", bool(holds) == bool(effect["reserved"]), f"{job}: nothing is held for an open job")
        self.hold("M4", not holds, f"{job}: a closed job holds money")
        self.hold("M4", purchase.money in FINAL, f"{job}: closed while its money is {purchase.money}")
        out, takers = self._outflow(purchase)
        if purchase.money == "none":
            self.hold("M4", not locks, f"{job}: closed at no cost while a payment may be out")
        elif purchase.money == "claimed":
            self.hold("M4", takers == {"seller"}, f"{job}: booked as claimed, taken by {sorted(takers)}")
        else:
            self.hold("M4", takers == {"refund"}, f"{job}: booked as refunded, taken by {sorted(takers)}")
        cost = purchase.limit.cost(Msat.of_sat(out)).value if "dvm" in purchase.route else 0
        self.hold("M4", effect["cost"] == cost, f"{job}: booked {effect['cost']}, and it cost {cost}")

    def _outflow(self, purchase: Purchase) -> tuple[int, set[str]]:
        """What a job really took from the wallet, in sat, and who spent its locked coins."""
        payment = purchase.payment
        if payment is None or purchase.money == "none":
            return 0, set()
        node = self.world.buyer
        lock = next((one for one in node.operations() if one.op.id == payment.op_id), None)
        if lock is None or lock.result is None:
            return 0, {"nothing locked"}
        coins = [coin_of(proof, self.world.mint) for proof in lock.result["payload"]["proofs"]]
        takers = {taken_by(self.world, coin) for coin in coins}
        change = sum(one.amount for one in lock.plan.outputs if not one.gives)
        out = sum(proof.amount for proof in lock.plan.inputs) - change
        if takers == {"refund"}:
            out -= sum(coin.amount for coin in coins) - fee(len(coins), self.world)
        return out, takers

    def _m6_purchase(self, purchase: Purchase, job: str) -> None:
        """Nothing in a job comes from an event that the relay never stored, or that was for somebody else."""
        events, buyer = self.world.relay.events, self.world.buyer.key.pubkey
        for offer in purchase.offers:
            event = events.get(offer.event_id)
            genuine = event is not None and event.pubkey == offer.seller
            self.hold("M6", genuine, f"{job}: an offer that nobody made")
            if event is not None:
                ours = buyer in event.values("p") and event.values("e")[:1] == [purchase.request_id]
                self.hold("M6", ours, f"{job}: an offer that was for somebody else")
        self.hold(
            "M6", len({one.event_id for one in purchase.offers}) == len(purchase.offers), f"{job}: an offer twice"
        )
        if purchase.result_id:
            event = events.get(purchase.result_id)
            genuine = event is not None and event.pubkey == purchase.seller and self._says(event, purchase)
            self.hold("M6", genuine, f"{job}: a result that is not the chosen seller's")
        if purchase.payment is not None:
            chosen = events.get(purchase.payment.offer_id)
            named = chosen is not None and chosen.pubkey == purchase.payment.seller
            self.hold("M6", named, f"{job}: a choice that nobody quoted")
        text = orjson.dumps([purchase.result, purchase.error, [note.detail for note in purchase.notes]]).decode()
        self.hold("M6", " forged" not in text, f"{job}: a forged word was taken")

    def _says(self, event: Event, purchase: Purchase) -> bool:
        """Whether that is what the event says, or what the key opened for which the money went."""
        if not event.all("seal") or purchase.payment is None:
            return event.content == purchase.result
        tag, key = event.all("seal")[0], self.world.buyer.keyring.key(SEAL_KEY, purchase.job_id)
        right = hash_of(bytes.fromhex(purchase.preimage)) == tag[1] == purchase.payment.hash
        pair = Pair(key, purchase.payment.seal_key, purchase.request_id)
        opened = open_sealed(event.content, tag[4], bytes.fromhex(purchase.preimage), pair)
        return right and opened == purchase.result

    def _m8_purchase(self, node: Node, purchase: Purchase, job: str) -> None:
        limit = purchase.limit
        first = self.limits.setdefault(purchase.job_id, limit)
        self.hold("M8", first == limit, f"{job}: its rate or its limit changed")
        if "dvm" not in purchase.route:
            return
        self.hold("M8", limit.unit == node.limits.unit, f"{job}: reserved in {limit.unit}")
        self.hold("M8", limit.cost(limit.ceiling).value <= limit.value, f"{job}: its ceiling is above its reservation")
        self.hold("M8", purchase.bid <= limit.ceiling, f"{job}: it bids above its ceiling")
        fresh = limit.rate in self.world.fx.given
        self.hold("M8", fresh or (limit.unit == "msat" and limit.rate is None), f"{job}: at a rate that nobody gave")
        if limit.unit == "uusd" and limit.rate is not None:
            exact = limit.ceiling.value * limit.rate.micro_usd <= limit.value * limit.rate.msat
            self.hold("M8", exact, f"{job}: its ceiling was rounded up")

    def _m8_budgets(self, node: Node) -> None:
        held: Counter[str] = Counter()
        for row in node.rows("hold"):
            held[row["budget"]] += row["amount"]
        for row in node.rows("budget"):
            name = row["name"]
            self.hold("M8", row["unit"] == node.limits.unit, f"{node.name}: {name} is kept in {row['unit']}")
            self.hold("M8", row["held"] == held[name], f"{node.name}: {name} holds {row['held']}, not {held[name]}")
            within = row["held"] + row["spent"] <= row["ceiling"]
            self.hold("M8", within, f"{node.name}: {name} is over its ceiling")
        for row in node.rows("effect"):
            right = row["unit"] in (None, node.limits.unit)
            self.hold("M8", right, f"{node.name}: an effect in {row['unit']}")
            over = row["state"] in ("commit", "fail") and row["cost"] > row["reserved"]
            self.hold("M1", not over, f"{node.name}: an effect cost {row['cost']} of {row['reserved']} reserved")

    # ---- sales

    def _m6_sales(self, node: Node, unit: Sequence[Write]) -> None:
        events = self.world.relay.events
        for write in unit:
            if getattr(write, "table", "") != "sale":
                continue
            row: Any = getattr(write, "row", None) or getattr(write, "set", None)
            sale = decode(Sale, row["body"])
            request = events.get(sale.request_id)
            genuine = request is not None and request.pubkey == sale.customer
            genuine = genuine and sale.request in ("", request.to_json())  # an ended sale may have forgotten it
            self.hold("M6", genuine, f"{node.name}: a request that nobody made")
            if sale.payment:
                paid = self.paid.get(orjson.loads(sale.payment)["id"])
                by = paid is not None and paid.sender == sale.customer and paid.request_id == sale.request_id
                self.hold("M6", by, f"{node.name}: a payment that is not the customer's")
                rest = [one for one in self._sales(node) if one.request_id != sale.request_id]
                twice = any(set(one.ys) & set(sale.ys) for one in rest)
                self.hold("M6", not twice, f"{node.name}: one payment was accepted for two jobs")

    @staticmethod
    def _sales(node: Node) -> list[Sale]:
        return [decode(Sale, row["body"]) for row in node.rows("sale")]

    def _m7_open(self, node: Node) -> None:
        """A key that does not pay takes no more than its share of quotes; one that has paid may have more, bounded."""
        waiting: Counter[str] = Counter()
        paid: set[str] = set()
        for row in node.rows("sale"):
            if row["state"] == "quoted":
                waiting[row["customer"]] += 1
            elif row["state"] == "done" and row["quote_id"]:
                paid.add(row["customer"])
        share = node.selling._limits.open_per_customer
        for customer, most in waiting.items():
            allowed = MOST_CREDIT * share if customer in paid else share
            self.hold("M7", most <= allowed, f"{node.name}: {most} quotes for one key")

    def works_on(self, node: Node, request: ComputeRequest) -> None:
        """A provider begins: for a priced job its money must be there, and ours."""
        if node.name == "buyer":
            return
        text = "\n\n".join(item.data for item in request.inputs)
        references = [item for item in request.inputs if item.type != "text"]
        self.hold("M7", not references, f"{node.name}: works on something that must be fetched")
        price = node.prices[request.kind]
        events = self.texts[request.kind, text]
        self.works[node.name, text] += 1
        most = 1 + node.lives
        self.hold(
            "M7", self.works[node.name, text] <= most * max(1, len(events)), f"{node.name}: works again and again"
        )
        if not price:
            return
        paying = [paid for paid in self.paid.values() if paid.seller == node.key.pubkey]
        covered = any(self._covers(node, paid, event, price) for paid in paying for event in events)
        covered = covered or self._is_ordered(node, events, price)
        self.hold("M7", covered, f"{node.name}: works on {text!r} unpaid")

    def _is_ordered(self, node: Node, events: Sequence[Event], price: int) -> bool:
        """Work for an order is done unpaid within bounds: cheap, one at a time for a customer, few in all."""
        policy = node.selling._settlement
        open_ = [sale for sale in self._sales(node) if sale.state in ("working", "sealed")]
        unpaid = [sale.customer for sale in open_ if sale.paid_by == "A" and not sale.paid]
        few = len(unpaid) <= policy.orders and all(unpaid.count(one) <= policy.orders_per_customer for one in unpaid)
        ordered = any((event.pubkey, event.id) in self.orders[node.name] for event in events)
        return ordered and few and Msat.of_sat(price) <= policy.order_max

    def _covers(self, node: Node, paid: Paid, event: Event, price: int) -> bool:
        if paid.request_id != event.id or paid.sender != event.pubkey:
            return False
        rest = [sale for sale in self._sales(node) if sale.request_id != event.id and sale.paid]
        if any({coin.y for coin in paid.coins} & set(sale.ys) for sale in rest):
            return False
        now = self.world.clock.now()
        good = all(
            coin.genuine
            and coin.pubkey == node.wallet_key.compressed
            and coin.locktime > now
            and taken_by(self.world, coin) in ("nobody", "seller")
            for coin in paid.coins
        )
        return good and paid.total - fee(len(paid.coins), self.world) >= price

    # ---- the end

    def finish(self) -> None:
        """The weather is fine, all deadlines are over: nothing is open, and all money is where the rows say."""
        world = self.world
        for text in world.oddities:
            self.hold(text[:2] if text[:2] in RULES else "M4", False, text)
        for node in world.nodes.values():
            for fault in node.faults:
                self.hold("M4", False, fault)
            for stored in node.operations():
                self._m5_operation(node, stored)
            self._m3_rows(node)
        for text in world.open_ends():
            self.hold("M4", False, f"never ended: {text}")
        held = {
            name: node.coins("live") + node.coins("locked") + node.coins("reserved")
            for name, node in world.nodes.items()
        }
        there = sum(held.values()) + self.underworld.holdings
        circulating = world.mint.circulating
        self.hold("M3", there == circulating, f"the wallets hold {there} sat, the mint owes {circulating}: {held}")
        for node in world.nodes.values():
            self._m3_flows(node)
        self._m4_end()

    def _m3_flows(self, node: Node) -> None:
        """What came and went, against what the mint and the jobs say."""
        accounts: Counter[str] = Counter()
        for row in node.rows("posting"):
            accounts[row["account"]] += row["amount"]
        if node.name == "buyer":
            funded = self.world.script.funds
            self.hold(
                "M3", -accounts[Account.DEPOSITS] == funded, f"{-accounts[Account.DEPOSITS]} of {funded} deposited"
            )
            jobs = [decode(Purchase, row["body"]) for row in node.rows("purchase")]
            out = sum(self._outflow(job)[0] for job in jobs)
            self.hold(
                "M3", funded - node.coins("live") == out, f"{funded - node.coins('live')} sat left, jobs took {out}"
            )
            return
        claimed = sum(sale.claimed.sat_down() for sale in self._sales(node))
        live = node.coins("live")
        self.hold("M3", live == claimed, f"{node.name} has {live} sat, and claimed {claimed}")

    def _m4_end(self) -> None:
        for row in self.world.buyer.rows("purchase"):
            purchase = decode(Purchase, row["body"])
            self.hold("M4", purchase.closed, f"{purchase.job_id[:8]} never closed: {row['state']}, {row['money']}")
