"""/wallet/lightning: each call is one effect through the gate, and what is in doubt is said to be."""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Any

import orjson
import pytest
from bolt11 import decode

from core.clock import SystemClock
from core.effect import EffectClass, Intent, Outcome, OutcomeState
from core.error import InvalidInput, KeyReused, NotFound
from core.identifier import EffectId, OperationId
from fs.error import KeyRequired, NoSuchFile
from fs.service.treasury import OperationEnded, Treasurer, canonical
from fs.service.wallet import wallet_service
from fs.session import Role, Session
from fs.tree import Tree
from node.gate.gate import NodeGate
from node.spreading import Spreading
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from relays.nip47 import Notification
from tests.gate_part import LIMITS, memory, open_gate
from tests.model_nwc import Fault, ModelClient
from tests.nwc_part import Ledger
from tests.unit.fs.service.test_wallet import StandIn
from tests.wallet_part import BUYER_WORDS, HandClock
from wallet.funding import Funding
from wallet.fx import used
from wallet.lightning import LightningLimits
from wallet.lightning_error import InvoiceKnown, InvoiceUnpayable, LightningFailed, NotConnected, NotGivenUp
from wallet.lightning_record import LightningBook
from wallet.lightning_wallet import Lightning
from wallet.record import Vault
from wallet.spread import Rules


async def _usage() -> dict[str, int]:
    return {}


@dataclass
class Desk:
    unit: MemoryDatabase
    gate: NodeGate
    treasurer: Treasurer
    ledger: Ledger
    client: ModelClient
    lightning: Lightning
    tree: Tree

    async def call(self, name: str, body: Any, key: str | None = "k") -> Any:
        raw = body.encode() if isinstance(body, str) else orjson.dumps(body)
        session = Session("operator", Role.OPERATOR, key, unit=self.unit)
        return orjson.loads(await self.tree.call(("lightning", name), raw, session))

    async def read(self, *path: str) -> Any:
        return orjson.loads(await self.tree.read(path, Session("operator", Role.OPERATOR)))

    async def states(self) -> list[tuple[str, str]]:
        rows = [row for row in await self.unit.select("effect") if row["path"].startswith("/wallet/")]
        return [(row["path"], row["state"]) for row in rows]


def made(unit: MemoryDatabase, gate: NodeGate, *, connected: bool = True) -> Desk:
    clock = HandClock()
    ledger = Ledger(lambda: clock.seconds)
    client = ModelClient(ledger, clock)
    book = LightningBook(unit, Vault(Keyring(BUYER_WORDS).derive("seal")), clock)
    lightning = Lightning(
        unit, book, clock, client, gate.check,
        permit_for=gate.permit, standing=lambda: gate.standing("lightning"),
        limits=LightningLimits(10_000_000, 20_000_000, 2_000, 10_000),
    )  # fmt: skip
    coins = StandIn(gate)
    funding = Funding(unit, coins, book, clock, lightning if connected else None, gate.permit)
    treasurer = Treasurer(funding, gate, unit, SystemClock())
    places = Spreading(coins, treasurer, unit, clock, Rules())
    tree = wallet_service(
        coins, coins, _usage, partial(used, unit), treasurer, places, lightning if connected else None, funding.fund,
        rows=funding,
    )  # fmt: skip
    return Desk(unit, gate, treasurer, ledger, client, lightning, tree)


@pytest.fixture
async def desk() -> Desk:
    clock = SystemClock()
    unit = memory(clock)
    return made(unit, await open_gate(unit, clock, LIMITS))


async def test_a_payment_is_one_effect_and_its_key_answers_again(desk: Desk) -> None:
    invoice = desk.ledger.foreign(21_000)
    first = await desk.call("pay", invoice)  # as text
    again = await desk.call("pay", invoice)
    assert (first["state"], first["stage"], first["fee"]) == ("done", "paid", 1_000)
    assert again == first
    assert await desk.states() == [("/wallet/lightning/pay", "commit")]
    with pytest.raises(KeyReused):
        await desk.call("pay", {"invoice": desk.ledger.foreign(5_000)})
    with pytest.raises(InvoiceKnown):
        await desk.call("pay", {"invoice": invoice}, key="other")
    with pytest.raises(KeyRequired):
        await desk.call("pay", {"invoice": invoice}, key=None)
    assert desk.ledger.tried.total() == 1


async def test_a_payment_in_doubt_is_answered_as_unknown_and_parked(desk: Desk) -> None:
    desk.client.script = [Fault.ANSWER_LOST, Fault.ANSWER_LOST]
    answer = await desk.call("pay", {"invoice": desk.ledger.foreign(21_000)})
    assert (answer["state"], answer["stage"]) == ("unknown", "unknown")
    assert await desk.states() == [("/wallet/lightning/pay", "unknown")]
    await desk.lightning.look()
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(desk.treasurer.run(ready, stop))
    async with asyncio.timeout(60):
        while await desk.states() != [("/wallet/lightning/pay", "commit")]:
            await asyncio.sleep(0.01)
    stop.set()
    await task
    assert (await desk.read("operations", answer["op_id"]))["state"] == "done"


async def test_a_payment_that_outlives_its_effect_is_looked_up_and_booked(desk: Desk) -> None:
    desk.client.script = [Fault.ANSWER_LOST, Fault.ANSWER_LOST]
    answer = await desk.call("pay", {"invoice": desk.ledger.foreign(21_000)})
    await _ended(desk)
    assert any("in doubt" in text for text in (await desk.lightning.audit()).differences)
    await desk.lightning.look()
    view = await desk.lightning.find(answer["op_id"])
    assert view is not None
    assert (view.stage, view.fee) == ("paid", 1_000)
    assert (await desk.lightning.audit()).differences == ()


async def test_a_payment_that_outlives_its_effect_is_never_sent_again(desk: Desk) -> None:
    desk.client.script = [Fault.REQUEST_LOST, Fault.ANSWER_LOST]
    answer = await desk.call("pay", {"invoice": desk.ledger.foreign(21_000)})
    await _ended(desk)
    await desk.lightning.look()
    view = await desk.lightning.find(answer["op_id"])
    assert view is not None
    assert view.stage == "unknown"
    assert desk.ledger.tried.total() == 0


async def _ended(desk: Desk) -> None:
    """The effect of the payment ends, as a deposit's does whose coins came."""
    row = next(row for row in await desk.unit.select("effect") if row["path"] == "/wallet/lightning/pay")
    await desk.unit.commit(await desk.gate.settle(EffectId(row["id"]), Outcome(OutcomeState.COMMIT)))


async def test_a_payment_that_was_turned_away_fails_its_effect(desk: Desk) -> None:
    desk.client.script = [Fault.TURNED_AWAY]
    with pytest.raises(LightningFailed):
        await desk.call("pay", {"invoice": desk.ledger.foreign(21_000)})
    with pytest.raises(InvoiceUnpayable):
        await desk.call("pay", "lnbc1nonsense", key="other")
    assert await desk.states() == [("/wallet/lightning/pay", "fail"), ("/wallet/lightning/pay", "fail")]


async def test_an_invoice_waits_with_its_effect_open(desk: Desk) -> None:
    answer = await desk.call("invoice", {"sat": 5, "note": "tea"})
    assert (answer["state"], answer["amount"], answer["note"]) == ("waiting", 5_000, "tea")
    assert await desk.states() == [("/wallet/lightning/invoice", "begun")]
    assert [row["op_id"] for row in await desk.read("lightning", "invoices")] == [answer["op_id"]]
    assert await desk.read("lightning", "payments") == []
    desk.ledger.receive(answer["invoice"])
    await desk.lightning.look()
    assert (await desk.read("operations", answer["op_id"]))["state"] == "done"


@pytest.mark.parametrize(
    "body", [{}, {"sat": 0}, {"sat": 5, "note": "x" * 201}, {"sat": 5, "expiry_s": 1}, {"sat": "5"}]
)
async def test_an_invoice_that_is_asked_for_wrongly_changes_nothing(desk: Desk, body: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        await desk.call("invoice", body)
    assert await desk.states() == []


async def test_status_and_balance_say_what_the_wallet_has_or_why_not(desk: Desk) -> None:
    status = await desk.read("lightning", "status")
    assert (status["balance_msat"], status["day_msat"], status["used_msat"]) == (desk.ledger.balance, 20_000_000, 0)
    desk.client.script = [Fault.UNREACHABLE]
    assert (await desk.read("balance"))["lightning"] == {
        "wallet": "nwc:model", "balance_msat": None, "problem": "nwc.unreachable",
    }  # fmt: skip


async def test_the_audit_names_what_the_wallet_says_otherwise(desk: Desk) -> None:
    answer = await desk.call("pay", {"invoice": desk.ledger.foreign(21_000)})
    assert (await desk.read("audit"))["clean"]
    desk.ledger.entries[answer["payment_hash"]].fees = 2_500
    found = await desk.read("audit")
    assert not found["clean"]
    assert found["differences"] == [f"{answer['op_id']}: a fee of 1000 msat is booked, and the wallet says 2500"]


async def test_a_payment_that_was_called_failed_and_paid_is_named_and_booked(desk: Desk) -> None:
    desk.client.script = [Fault.TURNED_AWAY]
    invoice = desk.ledger.foreign(21_000)
    with pytest.raises(LightningFailed) as caught:
        await desk.call("pay", {"invoice": invoice})
    hear, desk.client.told = desk.client.told, lambda _: None
    desk.ledger.handle("pay_invoice", {"invoice": invoice})  # it pays all the same, and nobody hears of it
    assert any("called failed" in text for text in (await desk.read("audit"))["differences"])
    order = await desk.lightning.find(str(caught.value.context["operation"]))
    assert order is not None
    hear(Notification("payment_sent", order.payment_hash))
    await desk.lightning.look()
    after = await desk.lightning.find(order.id)
    assert after is not None
    assert (after.stage, after.reason) == ("paid", "paid_after_all")
    assert (await desk.read("audit"))["clean"]


async def test_without_a_wallet_the_files_say_so_and_agents_have_none_of_them() -> None:
    clock = SystemClock()
    unit = memory(clock)
    alone = made(unit, await open_gate(unit, clock, LIMITS), connected=False)
    with pytest.raises(NotConnected):
        await alone.call("pay", "lnbc1x")
    with pytest.raises(NotConnected):
        await alone.read("lightning", "status")
    assert "lightning" not in await alone.read("balance")
    session = Session("operator", Role.OPERATOR, "k", unit=unit)
    with pytest.raises(NotConnected):
        await alone.tree.call(("deposit",), orjson.dumps({"sat": 5, "from_lightning": True}), session)
    assert await alone.states() == []
    plain = wallet_service(StandIn(alone.gate), StandIn(alone.gate), _usage, partial(used, unit))
    with pytest.raises(NoSuchFile):
        await plain.read(("lightning", "status"), session)


async def test_an_invoice_that_coins_pay_is_not_paid_over_lightning_too(desk: Desk) -> None:
    invoice = desk.ledger.foreign(21_000)

    async def pays(payment_hash: str) -> OperationId | None:
        return OperationId("melt") if payment_hash == decode(invoice).payment_hash else None

    desk.lightning._debts.add(pays)
    with pytest.raises(InvoiceKnown):
        await desk.call("pay", invoice)
    assert desk.ledger.tried.total() == 0
    assert (await desk.call("pay", desk.ledger.foreign(21_000), key="other"))["state"] == "done"


async def in_doubt(desk: Desk, *said: Fault) -> str:
    """A payment whose answers were lost; its wallet says nothing from then on, or what the script says."""
    desk.client.script = [Fault.ANSWER_LOST, Fault.ANSWER_LOST]
    view = await desk.call("pay", {"invoice": desk.ledger.foreign(21_000)})
    assert view["state"] == "unknown"
    desk.client.script = list(said) or [Fault.UNREACHABLE] * 50
    return str(view["op_id"])


def later(desk: Desk, days: float) -> None:
    desk.client.clock.seconds += days * 86_400


async def silent_twice(desk: Desk, op_id: str) -> None:
    """Two tries that count: the wallet could not be asked. A third one, eight hours later, gives up."""
    for number in (1, 2):
        await refused(desk, op_id, f"cannot be asked just now .try {number} of 3", f"silent {number}")
        later(desk, 1)


async def refused(desk: Desk, op_id: str, why: str, key: str = "g") -> None:
    with pytest.raises(NotGivenUp, match=why):
        await desk.call("give-up", {"op_id": op_id}, key=key)
    assert ("/wallet/lightning/give-up", "fail") in await desk.states()


async def test_a_payment_of_which_its_wallet_never_speaks_again_can_be_given_up_as_paid(desk: Desk) -> None:
    op_id = await in_doubt(desk)
    later(desk, 16)
    await silent_twice(desk, op_id)
    given = await desk.call("give-up", {"op_id": op_id}, key="g")
    assert (given["state"], given["stage"], given["reason"]) == ("done", "paid", "given_up")
    assert (given["amount"], given["fee"], given["preimage"]) == (21_000, 2_000, ""), "with all that its fee may be"
    assert await desk.call("give-up", {"op_id": op_id}, key="g") == given, "the same key answers again"
    assert desk.ledger.tried.total() == 1, "nothing was sent"
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(desk.treasurer.run(ready, stop))
    async with asyncio.timeout(60):
        while ("/wallet/lightning/pay", "commit") not in await desk.states():
            await asyncio.sleep(0.01)
    stop.set()
    await task
    states = await desk.states()
    gave = "/wallet/lightning/give-up"
    assert sorted(states) == [(gave, "commit"), (gave, "fail"), (gave, "fail"), ("/wallet/lightning/pay", "commit")]
    assert not [text for text in (await desk.lightning.audit()).differences if "journal" in text]
    await refused(desk, op_id, "nothing to give up", "again")


async def test_a_payment_is_not_given_up_before_its_time_nor_one_that_nobody_knows(desk: Desk) -> None:
    op_id = await in_doubt(desk)
    later(desk, 13)
    await refused(desk, op_id, "14 days after")
    desk.client.script.clear()
    made = await desk.call("invoice", {"sat": 5}, key="i")
    for unknown in ("x" * 32, made["op_id"]):
        with pytest.raises(NotFound):
            await desk.call("give-up", {"op_id": unknown}, key=unknown[:8])
    view = await desk.lightning.find(op_id)
    assert view is not None
    assert view.stage == "unknown"


async def test_a_wallet_that_speaks_at_last_ends_the_payment_and_nothing_is_given_up(desk: Desk) -> None:
    op_id = await in_doubt(desk, Fault.NONE)
    later(desk, 16)
    await refused(desk, op_id, "just said how it ended: it is paid")
    view = await desk.lightning.find(op_id)
    assert view is not None
    assert (view.stage, view.fee, bool(view.preimage)) == ("paid", 1_000, True)


async def test_a_payment_that_its_wallet_calls_pending_is_not_given_up(desk: Desk) -> None:
    op_id = await in_doubt(desk, Fault.NONE)
    view = await desk.lightning.find(op_id)
    assert view is not None
    entry = desk.ledger.entries[view.payment_hash]
    entry.state, entry.preimage = "pending", ""
    later(desk, 16)
    await refused(desk, op_id, "still answers about it: pending")


async def test_the_key_of_a_give_up_that_was_refused_gives_nothing_up_later_and_says_so(desk: Desk) -> None:
    op_id = await in_doubt(desk)
    later(desk, 13)
    await refused(desk, op_id, "14 days after")
    later(desk, 3)
    with pytest.raises(OperationEnded):
        await desk.call("give-up", {"op_id": op_id}, key="g")
    view = await desk.lightning.find(op_id)
    assert view is not None
    assert view.stage == "unknown"


@pytest.mark.parametrize("looked", [False, True])
async def test_a_give_up_that_a_crash_has_cut_off_is_carried_out_by_its_key(desk: Desk, looked: bool) -> None:
    op_id = await in_doubt(desk)
    later(desk, 16)
    await silent_twice(desk, op_id)
    body, path = canonical({"op_id": op_id}), "/wallet/lightning/give-up"
    await desk.gate.begin(Intent("operator", path, "g", body, EffectClass.IRREVERSIBLE, op_id))
    if looked:  # the node that starts again has found the payment as open as it was
        await desk.treasurer._look()
    given = await desk.call("give-up", {"op_id": op_id}, key="g")
    assert (given["stage"], given["reason"]) == ("paid", "given_up")
    assert (path, "commit") in await desk.states()


async def test_a_give_up_that_was_carried_out_before_a_crash_is_not_refused_to_its_key(desk: Desk) -> None:
    op_id = await in_doubt(desk)
    later(desk, 16)
    await silent_twice(desk, op_id)
    body, path = canonical({"op_id": op_id}), "/wallet/lightning/give-up"
    await desk.gate.begin(Intent("operator", path, "g", body, EffectClass.IRREVERSIBLE, op_id))
    await desk.lightning.give_up(op_id)
    assert (await desk.call("give-up", {"op_id": op_id}, key="g"))["reason"] == "given_up"
    assert (path, "commit") in await desk.states()


async def test_two_calls_of_one_key_give_up_once_and_are_told_the_same(desk: Desk) -> None:
    op_id = await in_doubt(desk)
    later(desk, 16)
    await silent_twice(desk, op_id)
    one, other = await asyncio.gather(*(desk.call("give-up", {"op_id": op_id}, key="g") for _ in range(2)))
    assert one == other
    assert ("/wallet/lightning/give-up", "commit") in await desk.states()


async def test_a_refusal_that_books_what_the_wallet_said_does_not_say_that_nothing_was_changed(desk: Desk) -> None:
    op_id = await in_doubt(desk, Fault.NONE)
    later(desk, 16)
    with pytest.raises(NotGivenUp) as caught:
        await desk.call("give-up", {"op_id": op_id}, key="g")
    assert "it is paid" in str(caught.value)
    assert "Nothing was changed" not in str(caught.value)


async def test_a_payment_of_a_wallet_that_was_taken_out_of_the_settings_can_be_given_up(desk: Desk) -> None:
    op_id = await in_doubt(desk)
    alone = made(desk.unit, desk.gate, connected=False)
    assert [row["op_id"] for row in await alone.read("lightning", "payments")] == [op_id], "its id can still be seen"
    later(alone, 13)
    await refused(alone, op_id, "14 days after", "early")
    later(alone, 3)
    given = await alone.call("give-up", {"op_id": op_id}, key="g")
    assert (given["state"], given["stage"], given["reason"]) == ("done", "paid", "given_up")
    assert (given["amount"], given["fee"]) == (21_000, 2_000)
    assert not [text for text in (await alone.lightning.audit()).differences if "journal" in text]
    await refused(alone, op_id, "nothing to give up", "again")


async def test_a_wallet_that_cannot_be_asked_just_now_is_not_one_that_never_speaks_again(desk: Desk) -> None:
    op_id = await in_doubt(desk)
    later(desk, 16)
    for number in range(5):  # impatience counts once
        await refused(desk, op_id, "try 1 of 3", f"at once {number}")
    later(desk, 0.3)
    await refused(desk, op_id, "try 1 of 3", "seven hours later")
    later(desk, 0.1)
    await refused(desk, op_id, "try 2 of 3", "nine hours later")
    view = await desk.lightning.find(op_id)
    assert view is not None
    desk.ledger.entries[view.payment_hash].state = "pending"
    desk.ledger.entries[view.payment_hash].preimage = ""
    later(desk, 1)
    desk.client.script.clear()
    await refused(desk, op_id, "still answers about it: pending", "it speaks")
    desk.client.script = [Fault.UNREACHABLE] * 50
    later(desk, 1)
    await refused(desk, op_id, "try 1 of 3", "what it was silent before counts no more")


@pytest.mark.parametrize("state", ["failed", "expired"])
async def test_the_audit_names_a_payment_that_was_given_up_and_had_failed(desk: Desk, state: str) -> None:
    op_id = await in_doubt(desk)
    later(desk, 16)
    await silent_twice(desk, op_id)
    given = await desk.call("give-up", {"op_id": op_id}, key="g")
    desk.client.script.clear()
    entry = desk.ledger.entries[given["payment_hash"]]
    entry.state, entry.preimage = state, ""
    found = await desk.read("audit")
    assert not found["clean"]
    assert found["differences"] == [
        f"{op_id}: a payment that was given up, and counts as paid, is called {state} by the wallet"
    ]
