"""What goes after a while, table by table; what stays; and that every table has its line."""

import asyncio

import orjson
import pytest

from core.unit import Insert, Row
from node.config import RetentionSection
from node.retention.rule import FAMILY, KEPT, RULES, Family, Rule
from node.retention.service import Retention
from node.storage.memory import MemoryDatabase
from node.storage.schema import facts
from node.storage.table import METADATA
from tests.gate_part import SetClock
from tests.wallet_part import HandClock

DAY = 86_400
NOW = 1_800_000_000
OLD, YOUNG = NOW - 1_000 * DAY, NOW - 3_600


class SlowClock(HandClock):
    """Every pause is as long as all that one call may take."""

    async def sleep(self, seconds: float) -> None:
        self.seconds += 3.0


class Shop:
    """A database with a retention over it."""

    def __init__(self, **settings: int) -> None:
        self.clock = HandClock(NOW)
        self.db = MemoryDatabase(clock=self.clock)
        chosen = RetentionSection(**settings).model_dump()
        self.retention = Retention(self.db, self.clock, chosen, own=30)

    async def put(self, table: str, **values) -> None:
        """A row; columns that are not named get something that fits."""
        about = facts(table)
        row: Row = {
            column: {int: 0, str: "", bytes: b""}[kind]
            for column, kind in about.kinds.items()
            if column in about.required and column not in values
        }
        await self.db.commit([Insert(table, {**row, **values})])

    async def keys(self, table: str, column: str) -> set:
        return {row[column] for row in await self.db.select(table)}

    async def sweep(self) -> None:
        await self.retention.sweep(asyncio.Event())
        self.clock.seconds = NOW


def tables_of(rule: Rule) -> tuple[str, ...]:
    return FAMILY if isinstance(rule, Family) else (rule.table,)


def test_every_table_has_a_rule_or_a_reason_to_stay():
    ruled = {table for rule in RULES for table in tables_of(rule)}
    assert ruled | set(KEPT) == set(METADATA.tables)
    assert not ruled & set(KEPT)
    assert all(KEPT.values())


def test_every_rule_names_columns_and_settings_that_are_there():
    settings = RetentionSection().model_dump()
    for rule in RULES:
        assert rule.days in settings
        assert not getattr(rule, "rows", "") or rule.rows in settings
        for table in tables_of(rule):
            known = facts(table).kinds
            for name in (*getattr(rule, "key", ()), *getattr(rule, "where", {})):
                assert name in known
            for name in ("column", "blank"):
                assert not getattr(rule, name, "") or getattr(rule, name) in known


def test_every_setting_is_used():
    used = {rule.days for rule in RULES} | {getattr(rule, "rows", "") for rule in RULES} | {"every_minutes"}
    assert used - {""} == set(RetentionSection.model_fields)


def test_an_aged_rule_has_an_index_that_begins_with_its_age():
    for rule in RULES:
        if hasattr(rule, "column") and hasattr(rule, "scale") and hasattr(rule, "key"):
            indexes = [[column.name for column in index.columns] for index in METADATA.tables[rule.table].indexes]
            fixed = [name for name, wanted in rule.where.items() if isinstance(wanted, str)]
            assert any(
                columns[: len(fixed)] == fixed and columns[len(fixed) :][:1] == [rule.column] for columns in indexes
            ), rule


@pytest.mark.parametrize("state", ["done", "dropped", "expired", "discarded"])
async def test_a_trigger_that_was_dealt_with_loses_its_payload_and_later_its_row(state):
    shop = Shop()
    ages = {"now": NOW, "week": NOW - 8 * DAY, "half year": NOW - 181 * DAY}
    for name, at in ages.items():
        await shop.put("inbox", agent="a", envelope_id=name, payload="said", state=state, at=at, ended_at=at)
    await shop.sweep()
    rows = {row["envelope_id"]: row["payload"] for row in await shop.db.select("inbox")}
    assert rows == {"now": "said", "week": ""}


async def test_a_trigger_that_waits_stays_however_old_it_is():
    shop = Shop()
    await shop.put("inbox", agent="a", envelope_id="waits", payload="said", state="new", at=OLD)
    await shop.sweep()
    assert (await shop.db.select("inbox"))[0]["payload"] == "said"


async def test_payloads_that_ended_in_the_same_second_all_go_and_only_once():
    shop = Shop()
    for number in range(1_203):
        await shop.put("inbox", agent="a", envelope_id=str(number), payload="x", state="done", ended_at=NOW - 9 * DAY)
    await shop.put("inbox", agent="a", envelope_id="next", payload="x", state="done", ended_at=NOW - 9 * DAY + 1)
    await shop.sweep()
    assert not [row for row in await shop.db.select("inbox") if row["payload"]]
    mark = (await shop.db.select("meta", {"key": "retention/inbox"}))[0]["value"]
    again = Retention(shop.db, shop.clock, RetentionSection().model_dump())
    before = shop.db.stats()["units"]
    shop.retention = again
    await shop.sweep()
    assert shop.db.stats()["units"] == before, "a restart does not write it all again"
    assert (await shop.db.select("meta", {"key": "retention/inbox"}))[0]["value"] == mark


async def test_dead_letters_are_given_up_and_their_ids_stay_known():
    shop = Shop()
    await shop.put("inbox", agent="a", envelope_id="old", payload="x", state="dead", at=NOW - 91 * DAY)
    await shop.put("inbox", agent="b", envelope_id="old", payload="x", state="dead", at=NOW - 91 * DAY)
    await shop.put("inbox", agent="b", envelope_id="young", payload="x", state="dead", at=YOUNG)
    await shop.sweep()
    rows = {(row["agent"], row["envelope_id"]): row for row in await shop.db.select("inbox")}
    assert rows["a", "old"]["state"] == rows["b", "old"]["state"] == "discarded"
    assert rows["a", "old"]["payload"] == ""
    assert (rows["b", "young"]["state"], rows["b", "young"]["payload"]) == ("dead", "x")


async def test_more_triggers_than_may_stay_go_the_oldest_first():
    shop = Shop(inbox_rows=600)
    for number in range(1_300):
        await shop.put("inbox", agent="a", envelope_id=str(number), state="done", ended_at=NOW - 5 * DAY + number)
    for number in range(5):
        await shop.put("inbox", agent="a", envelope_id=f"waits {number}", state="new")
    await shop.sweep()
    assert len(await shop.db.select("inbox", {"state": "done"})) == 600
    assert "1299" in await shop.keys("inbox", "envelope_id")
    assert "0" not in await shop.keys("inbox", "envelope_id")
    assert len(await shop.db.select("inbox", {"state": "new"})) == 5


async def test_an_id_that_a_relay_may_bring_again_stays_however_many_there_are():
    shop = Shop(inbox_rows=10)
    for number in range(400):
        await shop.put("inbox", agent="a", envelope_id=f"old {number}", state="done", ended_at=NOW - 5 * DAY)
        await shop.put("inbox", agent="a", envelope_id=f"late {number}", state="done", ended_at=NOW - 3 * DAY)
    await shop.sweep()
    assert await shop.keys("inbox", "envelope_id") == {f"late {number}" for number in range(400)}


async def test_what_died_long_after_it_came_is_kept_from_then_on():
    """As what waited in a backup: after a restore its operator has as much time to hand it out again as ever."""
    shop = Shop()
    came, died = NOW - 200 * DAY, {"next_at_ms": YOUNG * 1_000}
    await shop.put("inbox", agent="a", envelope_id="restored", payload="x", state="dead", at=came, **died)
    await shop.put("inbox", agent="a", envelope_id="old", payload="x", state="dead", at=came, next_at_ms=came * 1_000)
    await shop.sweep()
    rows = {row["envelope_id"]: row["state"] for row in await shop.db.select("inbox")}
    assert rows == {"restored": "dead", "old": "discarded"}


@pytest.mark.parametrize(
    ("table", "column", "scale", "more"),
    [
        ("tick", "at_ms", 1_000, lambda n: {"id": str(n)}),
        ("recording", "at_ms", 1_000, lambda n: {"tick_id": str(n)}),
        ("log", "at_ms", 1_000, lambda n: {}),
        ("rate", "taken_at", 1, lambda n: {}),
    ],
)
async def test_numbered_rows_go_by_age_and_the_newest_stays(table, column, scale, more):
    shop = Shop()
    for number in range(1_207):
        await shop.put(table, **{column: OLD * scale}, **more(number))
    await shop.sweep()
    assert await shop.keys(table, "n") == {1_207}, "else its number would come again"
    await shop.put(table, **{column: YOUNG * scale}, **more("a"))
    await shop.put(table, **{column: YOUNG * scale}, **more("b"))
    await shop.sweep()
    assert await shop.keys(table, "n") == {1_208, 1_209}


@pytest.mark.parametrize("table", ["tick", "recording", "log"])
async def test_numbered_rows_go_when_there_are_too_many(table):
    shop = Shop(**{f"{table}_rows": 700})
    for number in range(1_900):
        key = {"tick": {"id": str(number)}, "recording": {"tick_id": str(number)}, "log": {}}[table]
        await shop.put(table, at_ms=YOUNG * 1_000, **key)
    await shop.sweep()
    assert await shop.keys(table, "n") == set(range(1_201, 1_901))


async def test_large_bodies_go_a_day_after_the_recordings_that_named_them():
    shop = Shop()
    for name, days in (("young", 14), ("old", 16)):
        await shop.put("blob", digest=name, at=NOW - days * DAY)
    await shop.sweep()
    assert await shop.keys("blob", "digest") == {"young"}


async def test_messages_go_unless_something_is_still_under_way():
    shop = Shop()
    for state in ("queued", "held", "sent", "failed", "seen", "received", "dropped"):
        await shop.put("message", agent="a", id=state, state=state, changed_ms=OLD * 1_000)
    await shop.put("message", agent="a", id="young", state="sent", changed_ms=YOUNG * 1_000)
    await shop.sweep()
    assert await shop.keys("message", "id") == {"queued", "held", "young"}


async def test_the_outbox_keeps_what_was_not_sent():
    shop = Shop()
    for state in ("pending", "sent", "refused"):
        await shop.put("outbox", event_id=state, relay="r", state=state, next_at_ms=OLD * 1_000)
    await shop.put("outbox", event_id="young", relay="r", state="sent", next_at_ms=YOUNG * 1_000)
    await shop.sweep()
    assert await shop.keys("outbox", "event_id") == {"pending", "young"}


async def test_budgets_of_long_ago_go_unless_they_hold_something():
    shop = Shop()
    old, today = "2024-01-01", "2027-01-15"
    for name, held in (
        (f"day:{old}", 0), (f"day:{old}:msat", 0), (f"seller:{'ab' * 32}:{old}", 0), ("day:2024-01-02", 5),
        (f"day:{today}", 0), ("agent:forever", 0),
    ):  # fmt: skip
        await shop.put("budget", name=name, held=held)
    await shop.sweep()
    assert await shop.keys("budget", "name") == {"day:2024-01-02", f"day:{today}", "agent:forever"}


async def test_replaced_keys_go_and_the_last_of_a_name_stays():
    shop = Shop()
    rows = [
        ("a", 0, "retired", OLD), ("a", 1, "retired", YOUNG), ("a", 2, "active", None),
        ("b", 0, "retired", NOW - 394 * DAY), ("b", 1, "active", None),
        ("gone", 0, "deleted", OLD), ("odd", 0, "retired", OLD),
    ]  # fmt: skip
    for name, epoch, state, at in rows:
        await shop.put("identity", name=name, epoch=epoch, state=state, retired_at=at)
    await shop.sweep()
    left = {(row["name"], row["epoch"]) for row in await shop.db.select("identity")}
    assert left == {("a", 1), ("a", 2), ("b", 0), ("b", 1), ("gone", 0), ("odd", 0)}


async def test_lists_that_were_fetched_long_ago_go():
    shop = Shop()
    for number in range(1_104):
        await shop.put("relay_list", pubkey=f"{number % 300:03}", kind=number, fetched_at=OLD if number % 2 else YOUNG)
        await shop.put("seen", event_id=f"{number}", at=OLD if number % 2 else YOUNG)
    await shop.sweep()
    assert {number % 2 for number in await shop.keys("relay_list", "kind")} == {0}
    assert len(await shop.db.select("relay_list")) == 552
    assert len(await shop.db.select("seen")) == 552


async def test_zero_days_keep_everything():
    names = [name for name in RetentionSection.model_fields if name.endswith(("_days", "_rows"))]
    shop = Shop(**dict.fromkeys(names, 0))
    await shop.put("log", at_ms=0)
    await shop.put("log", at_ms=0)
    await shop.put("inbox", agent="a", envelope_id="x", payload="x", state="done", ended_at=1)
    await shop.put("effect", id="e", state="commit", ended_at=1)
    await shop.sweep()
    assert len(await shop.db.select("log")) == 2
    assert (await shop.db.select("inbox"))[0]["payload"] == "x"
    assert len(await shop.db.select("effect")) == 1


# ---- money

DONE = {"state": "commit", "ended_at": OLD}


async def family(
    shop: Shop, name: str, *, effect=None, purchase=None, sale=None, operation=None, proof=None, tip=None, hold=0
):
    await shop.put("effect", id=name, **{**DONE, **(effect or {})})
    if purchase is not None:
        await shop.put("purchase", id=f"job {name}", effect_id=name, **purchase)
    if sale is not None:
        await shop.put("sale", id=f"sale {name}", effect_id=name, quote_id=f"q {name}", **sale)
        await shop.put("proof", y=f"shown {name}", operation=f"quote:q {name}", state="incoming")
    if tip is not None:
        await shop.put("tip", id=f"tip {name}", effect_id=name, **tip)
        await shop.put("proof", y=f"given {name}", operation=f"nutzap:tip {name}", state="incoming")
    if operation is not None:
        await shop.put("operation", id=f"op {name}", effect_id=name, **operation)
        for account, amount in (("wallet", -10), ("payments", 9), ("fees", 1)):
            await shop.put("posting", operation=f"op {name}", mint="m", unit="sat", account=account, amount=amount)
    if proof is not None:
        await shop.put("proof", y=f"coin {name}", operation=f"op {name}", **proof)
    if hold:
        await shop.put("hold", effect_id=name, budget="day", amount=hold)


CLOSED = {
    "purchase": {"state": "delivered", "money": "claimed"},
    "sale": {"state": "done"},
    "operation": {"state": "done"},
    "proof": {"state": "spent"},
    "tip": {"state": "repaid"},
}
OPEN = [
    {"effect": {"state": "begun", "ended_at": None}},
    {"effect": {"state": "unknown", "ended_at": None}},
    {"effect": {"state": "unknown", "ended_at": OLD}},
    {"hold": 5},
    *(
        {"purchase": {"state": state, "money": "none"}}
        for state in ("staged", "quoting", "paying", "working", "fallback")
    ),
    *({"purchase": {"state": "delivered", "money": money}} for money in ("locking", "locked", "refunding")),
    *({"sale": {"state": state}} for state in ("quoted", "working", "delivered", "owed")),
    *({"tip": {"state": state}} for state in ("taken", "owed")),
    {"tip": {"state": "repaid", "beside": "an invoice"}},
    *({"operation": {"state": state}} for state in ("waiting", "prepared", "unknown")),
    *({"proof": {"state": state}} for state in ("reserved", "locked")),
]


async def test_a_closed_effect_goes_with_everything_that_names_it_and_the_books_stay_what_they_were():
    shop = Shop()
    for number in range(250):
        await family(shop, f"e{number}", **CLOSED)
    await shop.sweep()
    for table in ("effect", "purchase", "sale", "tip", "operation", "proof"):
        assert await shop.db.select(table) == [], table
    rows = await shop.db.select("posting")
    assert {row["operation"] for row in rows} == {"carried"}
    assert {row["account"]: row["amount"] for row in rows} == {"wallet": -2_500, "payments": 2_250, "fees": 250}


@pytest.mark.parametrize("change", OPEN)
async def test_nothing_of_an_effect_goes_as_long_as_some_of_its_money_is_open(change):
    shop = Shop()
    await family(shop, "open", **{**CLOSED, **change})
    await family(shop, "closed", **CLOSED)
    tables = ("effect", "purchase", "sale", "tip", "operation", "posting", "proof", "hold")
    before = {table: [row for row in await shop.db.select(table) if "open" in orjson.dumps(
        {k: v for k, v in row.items() if not isinstance(v, bytes)}).decode()] for table in tables}  # fmt: skip
    await shop.sweep()
    for table in tables:
        for row in before[table]:
            assert row in await shop.db.select(table), table
    assert "closed" not in await shop.keys("effect", "id")


async def test_effects_without_money_go_sooner_than_those_with():
    shop = Shop()
    at = NOW - 60 * DAY
    await family(shop, "free", effect={"ended_at": at}, sale={"state": "expired"})
    await family(shop, "paid", effect={"ended_at": at}, **CLOSED)
    await family(shop, "young", effect={"ended_at": YOUNG})
    await shop.sweep()
    assert await shop.keys("effect", "id") == {"paid", "young"}
    assert await shop.keys("sale", "id") == {"sale paid"}


async def test_coins_that_an_operation_made_and_that_are_still_ours_stay():
    shop = Shop()
    await family(shop, "e", **{**CLOSED, "proof": {"state": "live"}})
    await shop.sweep()
    assert await shop.keys("proof", "y") == {"coin e"}
    assert await shop.db.select("effect") == []


async def test_an_effect_that_is_opened_again_at_this_very_moment_stays():
    shop = Shop()
    for name in ("one", "two", "three"):
        await family(shop, name, **CLOSED)
    commit, seen = shop.db.commit, []

    async def racing(writes):
        writes = list(writes)
        if not seen and any(getattr(write, "table", "") == "effect" for write in writes):
            seen.append(1)
            from core.unit import Update

            await commit([Update("operation", {"id": "op two"}, {"state": "prepared"})])
        await commit(writes)

    shop.db.commit = racing
    await shop.sweep()
    assert seen
    assert await shop.keys("effect", "id") == {"two"}
    assert await shop.keys("operation", "id") == {"op two"}
    assert {row["amount"] for row in await shop.db.select("posting", {"operation": "op two"})} == {-10, 9, 1}


# ---- what the operator asks for


async def test_a_dry_run_counts_and_deletes_nothing():
    shop = Shop()
    for number in range(7):
        await shop.put("log", at_ms=OLD * 1_000)
        await shop.put("tick", id=str(number), at_ms=OLD * 1_000)
    await family(shop, "e", **CLOSED)
    answer = await shop.retention.run_once(dry=True)
    assert answer["dry_run"]
    assert answer["old"]["log"] == answer["old"]["tick"] == 7
    assert answer["old"]["effect"] == 1
    assert len(await shop.db.select("log")) == 7


async def test_a_piece_says_whether_there_is_more():
    shop = Shop()
    for _ in range(3_000):
        await shop.put("log", at_ms=OLD * 1_000)
    shop.retention = Retention(shop.db, SlowClock(NOW), RetentionSection().model_dump())
    answers = [await shop.retention.run_once(dry=False)]
    while answers[-1]["more"]:
        answers.append(await shop.retention.run_once(dry=False))
    assert len(answers) > 1
    assert sum(one["removed"].get("log", 0) for one in answers) == 2_999


async def test_the_service_sweeps_when_the_disk_is_low_and_not_before_its_time():
    shop, clock = Shop(), SetClock(NOW)
    shop.retention = Retention(shop.db, clock, RetentionSection().model_dump())
    await shop.put("log", at_ms=OLD * 1_000)
    await shop.put("log", at_ms=OLD * 1_000)
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(shop.retention.run(ready, stop))
    await ready.wait()
    await asyncio.sleep(0.01)
    assert len(await shop.db.select("log")) == 2
    shop.retention.hurry()
    async with asyncio.timeout(10):
        while len(await shop.db.select("log")) == 2:
            await asyncio.sleep(0.001)
    assert len(await shop.db.select("log")) == 1
    stop.set()
    await running
