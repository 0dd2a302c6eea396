"""The wallet's files for coins in other units, over a model mint: amounts, keys, caps and rates."""

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson
import pytest

from core.error import InvalidInput, KeyReused
from core.money import Rate
from fs.service.foreign import Exchange, unit_of
from fs.service.treasury import Treasurer
from fs.service.wallet import wallet_service
from fs.session import Role, Session
from fs.tree import Tree
from node.exchange import Placing
from node.gate.ledger import ledger_seal
from node.spreading import Spreading
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from tests.gate_part import KEY, LIMITS, open_gate
from tests.model_mint import MSAT_PER, Fault, ModelMint, Payment, payable
from tests.wallet_part import BUYER_WORDS, HandClock
from wallet import restorer
from wallet.amount import EUR, MSAT, USD
from wallet.error import FxUnpriced, MintFull, TokenUnit, TooDear, UnitAbsent
from wallet.fx import used
from wallet.spread import Held, Rules, next_move, room
from wallet.wallet import Wallet

A, B, C = "https://a.example", "https://b.example", "https://c.example"
# 13,370 msat for a cent, as the model mint has it.
RATE = Rate(10_000, MSAT_PER[USD], 1, "test")


@dataclass
class Town:
    """A node's wallet at three mints, of which `c` has sat alone."""

    rules: Rules = field(default_factory=Rules)
    rate: Rate | None = RATE

    async def start(self) -> "Town":
        self.clock = HandClock()
        self.unit = MemoryDatabase(ledger_seal(KEY), self.clock)
        self.gate = await open_gate(self.unit, self.clock, LIMITS)
        more = (MSAT, USD, EUR)
        self.mints = {url: ModelMint(url, clock=self.clock, more=() if url == C else more) for url in (A, B, C)}
        self.wallet = Wallet(
            self.unit, Keyring(BUYER_WORDS), self.clock, self.gate.check, list(self.mints.values()),
            permit_for=self.gate.permit, collection=self.gate.collection,
        )  # fmt: skip
        self.treasurer = Treasurer(self.wallet, self.gate, self.unit, self.clock)
        self.spreading = Spreading(self.wallet, self.treasurer, self.unit, self.clock, self.rules, lambda: self.rate)
        self.exchange = Exchange(
            self.wallet.foreign, Placing(self.wallet, self.spreading, lambda: self.rate), self.treasurer
        )
        self.tree: Tree = wallet_service(
            self.wallet, self, self._usage, partial(used, self.unit), self.treasurer, self.spreading,
            probes=lambda: [{"mint": url, "proven": False, "at": None, "reason": "not yet"} for url in self.mints],
            exchange=self.exchange,
        )  # fmt: skip
        return self

    async def _usage(self) -> dict[str, int]:
        return {}

    async def call(self, name: str, body: Any, key: str) -> Any:
        session = Session("operator", Role.OPERATOR, key, unit=self.unit)
        raw = body if isinstance(body, bytes) else orjson.dumps(body)
        return orjson.loads(await self.tree.call((name,), raw, session))

    async def read(self, *path: str) -> Any:
        return orjson.loads(await self.tree.read(path, Session("operator", Role.OPERATOR)))

    async def fund(self, amount: int, unit: str = USD, mint: str = A) -> Any:
        body = {"sat": amount, "mint": mint} if unit == "sat" else {"amount": amount, "unit": unit, "mint": mint}
        made = await self.call("deposit", body, f"{mint} {unit} {amount}")
        await self.wallet._keeper.poll(made["op_id"])
        await self.treasurer._look()
        found = await self.read("operations", made["op_id"])
        assert (found["state"], found["unit"], found["amount"]) == ("done", unit, amount)
        return made

    async def live(self) -> dict[tuple[str, str], int]:
        return {(one["mint"], one["unit"]): one["live"] for one in (await self.read("balance"))["balances"]}

    def bill(self, cents: int, name: str = "bill") -> str:
        return payable(cents * MSAT_PER[USD], self.clock.now(), name)


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counters have no such gaps here, and each search costs a second."""
    monkeypatch.setattr(restorer, "GAP", 50)


@pytest.fixture
async def town() -> Town:
    return await Town().start()


async def test_cents_come_in_go_on_and_pay_a_bill_each_once_for_a_key(town: Town) -> None:
    made = await town.fund(500)
    assert (made["unit"], made["amount"], made["price_msat"]) == (USD, 500, 500 * MSAT_PER[USD])
    assert (await town.live())[A, USD] == 500
    again = await town.call("deposit", {"amount": 500, "unit": USD, "mint": A}, f"{A} usd 500")
    assert again["op_id"] == made["op_id"]
    with pytest.raises(KeyReused):
        await town.call("deposit", {"amount": 500, "unit": EUR, "mint": A}, f"{A} usd 500")

    wish = {"amount": 100, "unit": USD}
    sent = await town.call("send", wish, "send")
    assert unit_of(sent["token"]) == USD
    assert (await town.call("send", wish, "send"))["token"] == sent["token"]
    got = await town.call("receive", {"token": sent["token"]}, "receive")
    assert (got["unit"], got["amount"], got["fee"]) == (USD, 99, 1)
    assert (await town.call("receive", sent["token"].encode(), "receive"))["op_id"] == got["op_id"]

    before = (await town.live())[A, USD]
    pay = {"invoice": town.bill(100), "unit": USD}
    plan = await town.call("prepare", pay, "plan")
    assert (plan["unit"], plan["mint"], plan["amount_sat"]) == (USD, A, 1_337)
    paid = await town.call("withdraw", pay, "pay")
    assert (paid["unit"], paid["amount"], paid["state"]) == (USD, 100, "done")
    assert 100 + paid["fee"] <= plan["total"]
    town.rate = None  # whatever the rate is later: what was begun with a key is answered
    assert (await town.call("withdraw", pay, "pay"))["preimage"] == paid["preimage"]
    assert town.mints[A].paid_out == 100
    assert (await town.live())[A, USD] == before - 100 - paid["fee"]
    audit = await town.read("audit")
    assert audit["clean"]
    assert all(sum(one["journal"].values()) == 0 for one in audit["mints"])


async def test_sat_is_asked_for_as_ever_and_its_keys_stand_for_the_same(town: Town) -> None:
    made = await town.call("deposit", {"sat": 50, "mint": A}, "k")
    for same in ({"sat": 50, "mint": A}, {"amount": 50, "mint": A}, {"amount": 50, "unit": "sat", "mint": A}):
        assert (await town.call("deposit", same, "k"))["op_id"] == made["op_id"]
    for odd in (
        {"mint": A},
        {"sat": 50, "amount": 50},
        {"sat": 50, "unit": USD},
        {"amount": 50, "unit": "auth"},
        {"amount": 0, "unit": USD},
        {"amount": 1 << 40, "unit": USD},
        {"amount": 5.5, "unit": USD},
        {"amount": 50, "unit": USD, "from_lightning": True},
    ):
        with pytest.raises(InvalidInput):
            await town.call("deposit", odd, "odd")


async def test_mints_are_shown_with_their_units_and_a_silent_one_with_none(town: Town) -> None:
    town.mints[B].script = lambda _: Fault.UNREACHABLE
    shown = {one["mint"]: [unit["unit"] for unit in one["units"]] for one in await town.read("mints")}
    assert shown == {A: ["sat", "msat", "usd", "eur"], B: [], C: ["sat"]}


async def test_a_deposit_goes_to_a_mint_that_has_the_unit_and_holds_the_least(town: Town) -> None:
    await town.fund(100, mint=A)
    await town.fund(30, "sat", mint=B)
    assert (await town.call("deposit", {"amount": 5, "unit": EUR}, "one"))["mint"] in (A, B)
    assert (await town.call("send", {"amount": 5, "unit": USD}, "two"))["mint"] == A
    with pytest.raises(UnitAbsent):
        await town.call("deposit", {"amount": 5, "unit": USD, "mint": C}, "three")


async def test_where_no_mint_has_the_unit_it_says_so(town: Town) -> None:
    for url in (A, B):
        town.mints[url]._infos = {id_: one for id_, one in town.mints[url]._infos.items() if one.unit == "sat"}
    for name in ("deposit", "send"):
        with pytest.raises(UnitAbsent) as caught:
            await town.call(name, {"amount": 5, "unit": USD}, name)
        assert (caught.value.code, caught.value.status) == ("wallet.unit", 409)


async def test_a_bill_is_never_paid_above_what_was_frozen_before_the_mint_was_asked(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await town.fund(4_000)
    mint, text = town.mints[A], town.bill(100)
    monkeypatch.setitem(MSAT_PER, USD, MSAT_PER[USD] // 3)  # dollars are worth less at this mint from now on
    with pytest.raises(TooDear):
        await town.call("withdraw", {"invoice": text, "unit": USD}, "pay")
    assert mint.paid_out == 0
    town.rate = None
    with pytest.raises(FxUnpriced):
        await town.call("withdraw", {"invoice": text, "unit": USD}, "unpriced")
    with pytest.raises(InvalidInput):
        await town.call("withdraw", {"invoice": text, "unit": USD, "max_fee_sat": 5}, "fee")
    with pytest.raises(InvalidInput):
        await town.call("withdraw", {"invoice": text, "most": 5}, "most")
    paid = await town.call("withdraw", {"invoice": text, "unit": USD, "most": 320}, "said")
    assert paid["amount"] == 301
    assert (await town.live())[A, USD] >= 4_000 - 320


async def test_a_key_that_was_used_is_answered_also_where_no_mint_has_the_unit_any_more(town: Town) -> None:
    await town.fund(500)
    send, pay = {"amount": 100, "unit": USD}, {"invoice": town.bill(100), "unit": USD}
    sent, paid = await town.call("send", send, "send"), await town.call("withdraw", pay, "pay")
    places = town.exchange._places
    none = await Town().start()
    for mint in none.mints.values():
        mint._infos = {id_: one for id_, one in mint._infos.items() if one.unit == "sat"}
    town.exchange._places = none.exchange._places  # the mints that are left
    with pytest.raises(UnitAbsent):
        await town.call("send", send, "new")
    assert (await town.call("send", send, "send"))["token"] == sent["token"]
    assert (await town.call("withdraw", pay, "pay"))["preimage"] == paid["preimage"]
    town.exchange._places = places
    with pytest.raises(KeyReused):
        await town.call("send", {**send, "amount": 50}, "send")


async def test_what_the_owner_agreed_to_holds_whatever_rate_and_mints_are_then(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    await town.fund(500)
    pay = {"invoice": town.bill(100), "unit": USD}
    plan = await town.call("prepare", pay, "plan")
    bound = {**pay, "agreed": {"mint": plan["mint"], "total": plan["total"]}}
    await town.fund(4_000, mint=B)  # another mint holds more now, and dollars are worth a third
    monkeypatch.setitem(MSAT_PER, USD, MSAT_PER[USD] // 3)
    town.rate = Rate(10_000, MSAT_PER[USD], 1, "test")
    with pytest.raises(TooDear):
        await town.call("withdraw", bound, "pay")
    assert (town.mints[A].paid_out, town.mints[B].paid_out) == (0, 0)
    monkeypatch.undo()
    monkeypatch.setattr(restorer, "GAP", 50)
    town.rate = None  # what was said yes to needs none
    paid = await town.call("withdraw", bound, "again")
    assert (paid["mint"], town.mints[A].paid_out, town.mints[B].paid_out) == (A, 100, 0)
    other = {**bound, "agreed": {"mint": B, "total": 1}}
    for same in (pay, other):  # the key stands for the invoice: it is answered whatever a plan says by now
        assert (await town.call("withdraw", same, "again"))["preimage"] == paid["preimage"]
    with pytest.raises(InvalidInput):
        await town.call("withdraw", {"invoice": pay["invoice"], "agreed": bound["agreed"]}, "sat")


async def test_a_payment_in_cents_that_is_under_way_is_shown_by_its_unit(town: Town) -> None:
    await town.fund(500)
    town.mints[A].lightning = lambda _: Payment.SLOW
    with pytest.raises(Exception, match="may have happened"):
        await town.call("withdraw", {"invoice": town.bill(100), "unit": USD}, "pay")
    audit = await town.read("audit")
    assert (audit["pending_sat"], audit["clean"]) == (0, True)
    assert [(one["mint"], one["unit"], one["pending"]) for one in audit["mints"] if one["pending"]] == [(A, USD, 100)]


async def test_a_token_in_a_unit_that_no_mint_of_ours_has_is_refused(town: Town) -> None:
    await town.fund(100)
    token = (await town.call("send", {"amount": 50, "unit": USD}, "send"))["token"]
    poor = await Town().start()
    poor.mints[A]._infos = {id_: one for id_, one in poor.mints[A]._infos.items() if one.unit == "sat"}
    with pytest.raises(TokenUnit) as caught:
        await poor.call("receive", {"token": token}, "k")
    assert caught.value.code == "token.unit"


# ---------------------------------------------------------------------- caps


async def test_a_cap_counts_cents_at_the_rate_of_the_moment() -> None:
    town = await Town(Rules(cap_sat=10_000)).start()
    await town.fund(500)  # 6,685 sat
    held = {one.mint: one.foreign for one in await town.spreading.held()}
    assert held == {A: 6_685, B: 0, C: 0}
    with pytest.raises(MintFull):
        await town.call("deposit", {"amount": 300, "unit": USD, "mint": A}, "more")
    with pytest.raises(MintFull):
        await town.call("deposit", {"sat": 4_000, "mint": A}, "sat")
    assert (await town.call("deposit", {"amount": 300, "unit": USD}, "elsewhere"))["mint"] == B
    await town.fund(3_000, "sat")
    with pytest.raises(MintFull):
        await town.call("deposit", {"amount": 1_000, "unit": USD}, "much")
    assert not town.mints[C].calls.count("request_quote")


async def test_without_a_rate_nothing_more_goes_to_a_mint_with_a_cap() -> None:
    town = await Town(Rules(cap_sat=10_000, caps_sat={B: 0})).start()
    await town.fund(100)
    town.rate = None
    for body in ({"amount": 5, "unit": USD, "mint": A}, {"amount": 5, "unit": EUR, "mint": A}, {"sat": 5, "mint": A}):
        with pytest.raises(FxUnpriced):
            await town.call("deposit", body, orjson.dumps(body).decode())
    assert (await town.call("deposit", {"sat": 5}, "sat"))["mint"] != A
    town.rate = RATE
    assert (await town.call("deposit", {"sat": 5, "mint": A}, "back"))["mint"] == A


def test_cents_make_room_for_less_sat_and_are_not_moved() -> None:
    rules = Rules(cap_sat=10_000)
    rich, poor = Held(A, 6_000, foreign=8_000), Held(B, 0)
    assert room(rich, rules) == 0
    assert room(Held(A, 0, foreign=None), rules) == 0
    assert room(Held(A, 0, foreign=None), Rules()) is None
    move = next_move([rich, poor], rules)
    assert move is not None
    assert 4_000 < move.sat + move.fee <= 6_000
    assert next_move([Held(A, 0, foreign=50_000), poor], rules) is None
