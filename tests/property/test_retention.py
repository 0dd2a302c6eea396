"""What is old is deleted, and never a row of which money is open; the books say the same after it (M3, M4)."""

import asyncio
from collections import Counter
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.unit import Insert, Write
from node.config import RetentionSection
from node.retention import family
from node.retention.service import Retention
from node.storage.memory import MemoryDatabase
from tests.wallet_part import HandClock

NOW, DAY = 1_800_000_000, 86_400
TABLES = ("effect", "purchase", "sale", "operation", "posting", "proof", "hold", "entry", "counter")
EFFECT = ("begun", "commit", "fail", "unknown")
JOB = ("staged", "quoting", "paying", "working", "fallback", "delivered", "failed", "cancelled")
MONEY = ("none", "locking", "locked", "refunding", "claimed", "refunded")
SALE = ("quoted", "working", "delivered", "done", "expired", "failed", "lost", "cancelled")
OPERATION = ("waiting", "prepared", "unknown", "done", "refused")
PROOF = ("live", "reserved", "locked", "spent", "incoming")


@dataclass(frozen=True)
class Life:
    """One effect with what names it."""

    state: str
    days: int
    jobs: tuple[tuple[str, str], ...] = ()
    sales: tuple[str, ...] = ()
    operations: tuple[tuple[str, tuple[str, ...]], ...] = ()
    hold: bool = False

    @property
    def is_open(self) -> bool:
        """The rule in its own words, not in the code's."""
        return (
            self.state in ("begun", "unknown")
            or self.hold
            or any(state not in ("delivered", "failed", "cancelled") for state, _ in self.jobs)
            or any(money in ("locking", "locked", "refunding") for _, money in self.jobs)
            or any(state in ("quoted", "working", "delivered") for state in self.sales)
            or any(state in ("waiting", "prepared", "unknown") for state, _ in self.operations)
            or any(coin in ("reserved", "locked") for _, coins in self.operations for coin in coins)
        )


lives = st.builds(
    Life,
    st.sampled_from(EFFECT),
    st.integers(0, 900),
    st.lists(st.tuples(st.sampled_from(JOB), st.sampled_from(MONEY)), max_size=1).map(tuple),
    st.lists(st.sampled_from(SALE), max_size=1).map(tuple),
    st.lists(
        st.tuples(st.sampled_from(OPERATION), st.lists(st.sampled_from(PROOF), max_size=3).map(tuple)), max_size=2
    ).map(tuple),
    st.booleans(),
)


def rows(number: int, life: Life) -> list[Write]:
    name, at = f"e{number}", NOW - life.days * DAY
    ended = at if life.state in ("commit", "fail") else None
    made: list[Write] = [
        Insert("effect", {
            "id": name, "caller": "operator", "path": "/x", "key": name, "digest": "", "subject": name, "effect": 3,
            "state": life.state, "begun_at": at, "ended_at": ended,
        }),
        Insert("entry", {
            "run": "r", "seq": number, "id": name, "prev": "", "type": "begin", "effect_id": name, "raw": "{}",
        }),
    ]  # fmt: skip
    for place, (state, money) in enumerate(life.jobs):
        made.append(Insert("purchase", {
            "id": f"{name}-{place}", "effect_id": name, "request_id": "", "caller": "", "kind": 5001, "state": state,
            "money": money, "body": "{}", "created_at": at, "updated_at": at,
        }))  # fmt: skip
    for place, state in enumerate(life.sales):
        made.append(Insert("sale", {
            "id": f"{name}-{place}", "effect_id": name, "quote_id": f"q{name}", "customer": "", "kind": 5001,
            "state": state, "body": "{}", "expires_at": at, "created_at": at, "updated_at": at,
        }))  # fmt: skip
    for place, (state, coins) in enumerate(life.operations):
        op = f"{name}-op{place}"
        made.append(Insert("operation", {
            "id": op, "kind": "lock", "state": state, "mint": "m", "unit": "sat", "effect_id": name, "amount": 1,
            "plan": b"", "result": b"", "created_at": at, "updated_at": at,
        }))  # fmt: skip
        amount = number + 1
        for account, moved in (("wallet", -amount), ("payments", amount)):
            made.append(Insert("posting", {
                "operation": op, "mint": "m", "unit": "sat", "account": account, "amount": moved, "at": at,
            }))  # fmt: skip
        for coin, kept in enumerate(coins):
            made.append(Insert("proof", {
                "y": f"{op}-{coin}", "mint": "m", "unit": "sat", "keyset": "k", "amount": 1, "state": kept,
                "operation": op, "sealed": b"",
            }))  # fmt: skip
    if life.hold:
        made.append(Insert("hold", {"effect_id": name, "budget": "day", "amount": 1}))
    return made


async def swept(planned: list[Life], settings: dict[str, int]) -> tuple[dict[str, list], dict[str, list]]:
    clock = HandClock(NOW)
    db = MemoryDatabase(clock=clock)
    await db.commit([Insert("counter", {"keyset": "k", "next": 7})])
    for number, life in enumerate(planned):
        await db.commit(rows(number, life))
    before = {table: await db.select(table) for table in TABLES}
    retention = Retention(db, clock, RetentionSection(**settings).model_dump())
    for _ in range(2):
        await retention.sweep(asyncio.Event())
    return before, {table: await db.select(table) for table in TABLES}


def faults(planned: list[Life], before: dict[str, list], after: dict[str, list]) -> list[str]:
    found = []
    for number, life in enumerate(planned):
        if not life.is_open:
            continue
        name = f"e{number}"
        for table in TABLES:
            for row in before[table]:
                named = [str(row.get(column, "")) for column in ("id", "effect_id", "operation", "y")]
                if any(one == name or one.startswith(f"{name}-") for one in named) and row not in after[table]:
                    found.append(f"{table} of the open {name} is gone or changed")
    totals = [Counter(), Counter()]
    for total, rows_ in zip(totals, (before["posting"], after["posting"]), strict=True):
        for row in rows_:
            total[row["account"]] += row["amount"]
    if {k: v for k, v in totals[0].items() if v} != {k: v for k, v in totals[1].items() if v}:
        found.append("the books say something else")
    kept = {row["y"] for row in after["proof"]}
    found += [
        f"the coin {row['y']} is gone"
        for row in before["proof"]
        if row["state"] in ("live", "reserved", "locked") and row["y"] not in kept
    ]
    effects = {row["id"] for row in after["effect"]}
    for table in ("purchase", "sale", "operation"):
        found += [f"{table} {row['id']} has lost its effect" for row in after[table] if row["effect_id"] not in effects]
    found += [f"{table} was touched" for table in ("entry", "counter", "hold") if before[table] != after[table]]
    return found


@given(
    st.lists(lives, max_size=12),
    st.fixed_dictionaries({"free_days": st.integers(0, 60), "effect_days": st.integers(0, 500)}),
)
def test_nothing_of_open_money_is_ever_deleted(planned, settings):
    before, after = asyncio.run(swept(planned, settings))
    assert faults(planned, before, after) == []


@given(st.lists(lives, max_size=12))
def test_what_is_closed_and_old_is_gone(planned):
    _, after = asyncio.run(swept(planned, {"free_days": 30, "effect_days": 400}))
    left = {row["id"] for row in after["effect"]}
    for number, life in enumerate(planned):
        days = 400 if life.operations else 30
        assert (f"e{number}" in left) is (life.is_open or life.days <= days)


# ---------------------------------------------------------------------- planted bugs: the property must see them

SAMPLE = [
    Life("commit", 900, operations=(("done", ("spent", "live")),)),
    Life("commit", 900, hold=True),
    Life("commit", 900, jobs=(("delivered", "locked"),), operations=(("done", ("spent",)),)),
    Life("commit", 900, jobs=(("working", "none"),)),
    Life("fail", 900, sales=("delivered",)),
    Life("commit", 900, operations=(("unknown", ()),)),
    Life("commit", 900, operations=(("done", ("locked",)),)),
    Life("unknown", 900),
]


def test_the_sample_of_the_planted_bugs_is_good():
    before, after = asyncio.run(swept(SAMPLE, {}))
    assert faults(SAMPLE, before, after) == []
    assert len(after["effect"]) == len(SAMPLE) - 1


@pytest.mark.parametrize("ignored", ["holds", "tied", "purchases", "sales", "operations"])
def test_not_looking_at_something_that_is_open_is_caught(monkeypatch, ignored):
    gather = family.gather

    async def blind(unit, effects):
        found = await gather(unit, effects)
        for one in found:
            setattr(one, ignored, 0 if ignored in ("holds", "tied") else [])
        return found

    monkeypatch.setattr("node.retention.step.gather", blind)
    before, after = asyncio.run(swept(SAMPLE, {}))
    assert faults(SAMPLE, before, after)


def test_deleting_postings_without_carrying_them_forward_is_caught(monkeypatch):
    monkeypatch.setattr(family, "_sums", lambda rows, known, now: ())
    before, after = asyncio.run(swept(SAMPLE, {}))
    assert "the books say something else" in faults(SAMPLE, before, after)


def test_taking_coins_of_other_states_is_caught(monkeypatch):
    removal = family.removal

    async def greedy(unit, members, now):
        from dataclasses import replace

        made = []
        for write in await removal(unit, members, now):
            table = getattr(write, "table", "")
            made.append(replace(write, where={"operation": write.where["operation"]}) if table == "proof" else write)
        return made

    monkeypatch.setattr("node.retention.step.removal", greedy)
    before, after = asyncio.run(swept(SAMPLE, {}))
    assert any("coin" in fault for fault in faults(SAMPLE, before, after))
