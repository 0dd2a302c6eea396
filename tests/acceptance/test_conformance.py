"""The conformance suite of the agent runtime, by the names that it was planned under, on every database.

`test_budget_enforcement` and `test_idempotent_effects` are in `test_gate.py`. `test_fuse_mount` belongs to the mount of
the files in the kernel, which comes with a later change.
"""

import asyncio
import copy
import logging
import pickle
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson
import pytest

from core.clock import SystemClock
from core.error import Conflict, VendoError
from fs.error import AccessDenied
from fs.namespace import Access, Mount, Namespace
from fs.protocol import let_go
from fs.service.inbox import inbox_service
from fs.service.logs import logs_service
from fs.session import Role, Session
from node import app
from node import home as homes
from node.agent.inbox.intake import Intake
from node.agent.inbox.mailbox import AgentInbox
from node.agent.inbox.overflow import Overflow
from node.agent.inbox.row import envelope
from node.agent.program import Trigger
from node.agent.tick.engine import Engine
from node.agent.tick.limit import TickLimits
from node.agent.wake.bell import Alarms
from node.config import load
from node.gate.ledger import ledger_seal
from node.identity.registry import Imported
from node.storage.chain import unsigned_seal
from node.storage.database import open_database
from node.storage.memory import MemoryDatabase
from relays.event import Draft
from relays.key import Key
from tests.move_part import OTHER_WORDS, Port
from tests.unit.node.agent.agent_part import PUBKEY, QUICK, Bench, Here, Scripted, remember
from tests.unit_part import ENGINES, EVERY, Base

Open = Callable[[], Awaitable[Base]]


@pytest.fixture(params=EVERY)
async def open_again(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Open]:
    """Opens the test's database; called again, it closes it and opens it again, as a process does that starts anew."""
    held: list[Base] = []

    async def opened() -> Base:
        if request.param == "memory" and held:
            return held[0]
        if held:
            await held.pop().aclose()
        held.append(await ENGINES[request.param](tmp_path, unsigned_seal, SystemClock()))
        return held[0]

    yield opened
    for one in held:
        await one.aclose()


@pytest.fixture
async def unit(open_again: Open) -> Base:
    return await open_again()


PATIENT = replace(QUICK, seconds=30)


def bench_on(unit: Base, act: Callable[[Here, Trigger], Awaitable[None]] = remember) -> Bench:
    return Bench(unit=unit, programs={"scripted": Scripted(act)}, limits=PATIENT)


async def test_single_tick_lock(unit: Base) -> None:
    """Two triggers that come together never have ticks that overlap; both are dealt with."""
    inside: list[str] = []
    overlap: list[list[str]] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        inside.append(trigger.envelope_id)
        if len(inside) > 1:
            overlap.append(list(inside))
        try:
            await asyncio.sleep(0.05)
        finally:  # also where the tick is cut off
            inside.remove(trigger.envelope_id)
        await remember(ctx, trigger)

    bench = bench_on(unit, act)
    async with bench.running("a"):
        await asyncio.gather(bench.put("a", "m1", "anna"), bench.put("a", "m2", "bert"))
        await bench.idle("a")
    assert not overlap
    assert sorted((await bench.state("a"))["seen"]) == ["initialize", "m1", "m2"]
    assert (await bench.row("a"))["ticks"] == 3


async def test_hibernation_state_persists(open_again: Open) -> None:
    """What an agent remembers is there after it slept, and after the process that held it has gone."""

    async def act(ctx: Here, trigger: Trigger) -> None:
        await remember(ctx, trigger)
        if trigger.envelope_id == "m1":
            ctx.hibernate()

    bench = bench_on(await open_again(), act)
    async with bench.running("a") as engine:
        await bench.put("a", "m1")
        await bench.idle("a")
        assert (await bench.until_row("a", lambda row: row["status"] == "dormant"))["ticks"] == 2
        async with asyncio.timeout(30):
            while engine.busy:
                await asyncio.sleep(0.002)
    again = bench_on(await open_again(), act)
    async with again.running():
        assert (await again.row("a"))["status"] == "dormant", "a start wakes nobody"
        await again.put("a", "m2")
        await again.idle("a")
    assert (await again.row("a"))["status"] == "active"
    assert (await again.state("a"))["seen"] == ["initialize", "m1", "m2"]


async def test_dedup_helpers(open_again: Open) -> None:
    """`seen` and `mark_seen` hold from tick to tick and over a restart; the same envelope comes once."""

    async def act(ctx: Here, trigger: Trigger) -> None:
        note = str(trigger.payload.get("note", ""))
        if not note:
            return
        before = await ctx.seen(note)
        ctx.state.seen.append("again" if before else "new")
        ctx.mark_seen(note)
        assert await ctx.seen(note), "what is marked in a tick is seen in it"

    bench = bench_on(await open_again(), act)
    async with bench.running("a"):
        await bench.put("a", "m1", payload={"note": "n"})
        await bench.idle("a")
    again = bench_on(await open_again(), act)
    async with again.running():
        await again.put("a", "m2", payload={"note": "n"})
        await again.put("a", "m3", payload={"note": "other"})
        same = envelope(
            "a", "m1", cause="message", source="test", sender="operator", payload="{}", at=1, or_ignore=True
        )
        await again.unit.commit([same])
        again.engine.notify("a")
        await again.idle("a")
    assert (await again.state("a"))["seen"] == ["new", "again", "new"]


async def test_at_least_once_delivery(open_again: Open) -> None:
    """A message that was taken is dealt with, whatever happens to the process between."""
    tries: list[str] = []

    async def dies(ctx: Here, trigger: Trigger) -> None:
        tries.append(trigger.envelope_id)
        if trigger.cause == "message":
            await asyncio.sleep(30)

    bench = bench_on(await open_again(), dies)
    await bench.engine.create("a", "scripted", PUBKEY)
    ready, stop = asyncio.Event(), asyncio.Event()
    running = asyncio.create_task(bench.engine.run(ready, stop))
    await ready.wait()
    await bench.put("a", "m1")
    await bench.put("a", "m2", "bert")
    async with asyncio.timeout(30):
        while "m1" not in tries:
            await asyncio.sleep(0.002)
    running.cancel()  # in the middle of a tick, as a process that is killed
    with pytest.raises(asyncio.CancelledError):
        await running
    again = bench_on(await open_again())
    rows = await again.inbox("a")
    assert {rows["m1"]["state"], rows["m2"]["state"]} == {"new"}
    async with again.running():
        await again.idle("a")
    assert (await again.state("a"))["seen"] == ["m1", "m2"]


async def test_per_sender_ordering(unit: Base) -> None:
    """Each sender's messages are dealt with in the order in which they were sent, whatever fails between them."""
    failed: set[str] = set()

    async def act(ctx: Here, trigger: Trigger) -> None:
        if trigger.envelope_id.endswith("3") and trigger.envelope_id not in failed:
            failed.add(trigger.envelope_id)
            raise ValueError("the first time it fails")
        await remember(ctx, trigger)

    bench = bench_on(unit, act)
    async with bench.running("a"):
        for number in range(6):
            for sender in ("anna", "bert", "carl"):
                await bench.put("a", f"{sender}{number}", sender)
        await bench.idle("a")
    seen = (await bench.state("a"))["seen"]
    for sender in ("anna", "bert", "carl"):
        assert [one for one in seen if one.startswith(sender)] == [f"{sender}{number}" for number in range(6)]
    assert failed == {"anna3", "bert3", "carl3"}


async def test_trigger_envelope_id(unit: Base) -> None:
    """Every trigger has an envelope id, whatever its cause, and no two of an agent's have the same."""
    seen: list[Trigger] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        seen.append(trigger)
        if trigger.cause == "initialize":
            ctx.set_alarm("soon", after_ms=0)

    bench = bench_on(unit, act)
    alarms = Alarms(unit, SystemClock(), bench.engine.notify)
    async with bench.running("a"):
        await bench.until("a", lambda rows: all(row["state"] == "done" for row in rows.values()))
        await alarms.look()
        for cause, name in (("message", "m1"), ("event", "e1"), ("manual", "t1")):
            row = envelope("a", name, cause=cause, source="test", sender="", payload="{}", at=1)
            await unit.commit([row])
            bench.engine.notify("a")
        await bench.until("a", lambda rows: len(rows) == 5 and all(row["state"] == "done" for row in rows.values()))
    assert {trigger.cause for trigger in seen} == {"initialize", "alarm", "message", "event", "manual"}
    ids = [trigger.envelope_id for trigger in seen]
    assert len(set(ids)) == len(ids) == 5
    assert all(0 < len(one) <= 200 and one.isprintable() for one in ids)
    assert {trigger.envelope_id for trigger in seen} == set(await bench.inbox("a"))
    (alarm,) = [trigger for trigger in seen if trigger.cause == "alarm"]
    assert alarm.envelope_id == f"alarm:soon:{alarm.payload['due_ms']}", "it is named after its time"


async def test_overflow_deadletter(unit: Base) -> None:
    """What there is no room for lands in the dead letter with the reason, and is handed out again or given up."""
    bench = bench_on(unit)
    await bench.engine.create("a", "scripted", PUBKEY)
    intake = Intake(unit, bench.clock, Overflow(max_depth=3, dead_letter_max=3))
    inbox = AgentInbox("a", unit, bench.clock, bench.engine.notify, intake)
    tree = Namespace([Mount("/inbox", inbox_service(inbox), Access.READ)])

    def asked(key: str = "k") -> Session:
        return Session("operator", Role.OPERATOR, key, unit=unit)

    answers = [orjson.loads(await tree.call("/inbox", b"hello", asked(f"k{number}"))) for number in range(7)]
    states = [answer["status"] for answer in answers]
    assert states == ["queued", "queued", "dead", "dead", "dead", "dropped", "dropped"], "`initialize` waits as well"
    assert orjson.loads(await tree.read("/inbox/count", asked())) == {"new": 3, "dead": 3, "dropped": 2, "expired": 0}
    dead = orjson.loads(await tree.read("/inbox/deadletter", asked()))
    assert [row["error"].split(":")[0] for row in dead] == ["agent.inbox_full"] * 3
    first, second, third = (answer["envelope_id"] for answer in answers[2:5])
    await tree.call(f"/inbox/deadletter/{second}/discard", b"", asked())
    with pytest.raises(AccessDenied):
        await tree.call("/inbox/deadletter/replay", b"", Session("agent:a", Role.AGENT, "k", unit=unit))
    async with bench.running():
        await bench.idle("a")
        await tree.call(f"/inbox/deadletter/{first}/replay", b"", asked())
        assert orjson.loads(await tree.call("/inbox/deadletter/replay", b"", asked())) == {"replayed": 1}
        await bench.idle("a")
        again = orjson.loads(await tree.call(f"/inbox/deadletter/{third}/replay", b"", asked()))
        assert again == {"envelope_id": third, "state": "done"}, "asked for again it does nothing"
    handled = [answers[0]["envelope_id"], answers[1]["envelope_id"], first, third]
    assert (await bench.state("a"))["seen"] == ["initialize", *handled]


async def test_watch_semantics(unit: Base) -> None:
    """A watch tells of changes as they come, of those before it on request, and every watcher sees the same."""
    bench = bench_on(unit)
    files = Namespace([Mount("/logs", logs_service(bench.trace("a")), Access.READ)])
    watcher = Session("operator", Role.OPERATOR)
    async with bench.running("a"):
        await bench.idle("a")
        live = [files.watch("/logs/trace", watcher) for _ in range(2)]
        waiting = [asyncio.create_task(anext(one)) for one in live]
        await asyncio.sleep(0.05)
        assert not any(one.done() for one in waiting), "nothing has happened yet"
        await bench.put("a", "m1")
        first, second = await asyncio.wait_for(asyncio.gather(*waiting), 5)
        assert first == second
        assert orjson.loads(first.data)["data"]["cause"] == "message"
        past = files.watch("/logs/trace", watcher, 0)
        told = [await asyncio.wait_for(anext(past), 5) for _ in range(2)]
        assert [orjson.loads(one.data)["data"]["cause"] for one in told] == ["initialize", "message"]
        assert told[1] == first
        resumed = files.watch("/logs/trace", watcher, told[0].id)
        assert await asyncio.wait_for(anext(resumed), 5) == first, "from a cursor on nothing is left out or twice"
        for one in (*live, past, resumed):
            await let_go(one)


async def test_export_import_roundtrip(unit: Base, tmp_path: Path) -> None:
    """What an agent is travels whole: to another node, back to its own, and into a clone, which is another agent."""
    source = Port(unit, tmp_path / "source")
    await source.settle()
    before, stored = await source.all_of(), (await source.rows("agent"))[0]["stored"]
    manifest = await source.export(tmp_path / "a.vendo")
    assert (await source.rows("agent"))[0]["status"] == "frozen", "it does not go on in two places"

    target = Port(MemoryDatabase(), tmp_path / "target", words=OTHER_WORDS)
    told = await target.bring(tmp_path / "a.vendo")
    assert (told["status"], told["same_key"], told["code"], told["waiting"]) == ("active", False, "same", 1)
    ended = [row for row in before["inbox"] if ("state", "done") in row]
    moved = await target.all_of()
    assert moved | {"inbox": [], "message": []} == before | {"inbox": [], "message": []}
    assert [row for row in moved["inbox"] if ("state", "new") in row] == [
        row for row in before["inbox"] if ("state", "new") in row
    ]
    assert len(moved["inbox"]) == len(ended) + 1, "and the names of what is over, so that it is not done again"
    assert [dict(row)["text"] for row in moved["message"]] == ["hello"], "what is on its way stays with its node"
    row = (await target.rows("agent"))[0]
    assert row["stored"] == stored
    assert row["pubkey"] == target.keys["a"].pubkey != manifest.pubkey
    async with target.bench.running():
        with pytest.raises(Conflict):
            await target.bench.put("a", "m1", "anna")  # known: it was dealt with at the source
        await target.bench.idle("a")
    assert (await target.bench.state("a"))["seen"] == ["initialize", "m1", "m2"]

    back = await source.bring(tmp_path / "a.vendo")
    assert (back["status"], back["same_key"]) == ("active", True)
    assert await source.all_of() == before
    twin = await source.bring(tmp_path / "a.vendo", clone="b")
    assert (twin["name"], twin["same_key"], twin["waiting"]) == ("b", False, 0)
    like = await source.all_of("b")
    assert not like["inbox"]
    assert not like["message"]
    for table in ("agent", "item", "goal", "mark", "interest"):
        assert like[table] == before[table], table
    ids = {row["id"] for name in "ab" for row in await source.rows("hook", name)}
    assert len(ids) == 2, "each has a hook of its own, with a secret of its own"


async def test_multi_agent_scale(unit: Base) -> None:
    """A thousand agents on one engine: each gets what was sent to it and nothing else, and few have a task at once."""
    count, at_once, most = 1_000, 16, 0

    async def act(ctx: Here, trigger: Trigger) -> None:
        nonlocal most
        assert trigger.payload.get("to", ctx.agent) == ctx.agent
        most = max(most, sum(task.get_name().startswith("agent ") for task in asyncio.all_tasks()))
        await remember(ctx, trigger)

    limits = TickLimits(parallel=at_once, open=at_once)
    bench = Bench(unit=unit, programs={"scripted": Scripted(act)}, limits=limits)
    names = [f"a{number}" for number in range(count)]
    await asyncio.gather(*(bench.engine.create(name, "scripted", PUBKEY) for name in names))
    async with bench.running() as engine:
        sent = [bench.put(name, f"m-{name}", payload={"to": name}) for name in names]
        await asyncio.gather(*sent)
        async with asyncio.timeout(60):
            while engine.busy or await unit.count("inbox", {"state": "new"}, limit=1):
                await asyncio.sleep(0.02)
        assert not [task for task in asyncio.all_tasks() if task.get_name().startswith("agent ")]
    assert 1 < most <= at_once
    rows = await unit.select("agent")
    seen = {row["name"]: orjson.loads(row["state"])["seen"] for row in rows}
    assert seen == {name: ["initialize", f"m-{name}"] for name in names}
    assert {(row["ticks"], row["failures"]) for row in rows} == {(2, 0)}


async def _all_files(tree: Namespace, session: Session) -> str:
    """What this caller finds in all files that it may read, the refusals included."""
    found, paths = [], ["/"]
    while paths:
        path = paths.pop()
        try:
            body = await tree.read(path, session)
            found.append(f"{path} {body.decode(errors='replace')}")
        except VendoError as error:
            found.append(f"{path} {error!r} {error}")
        try:
            listed = await tree.list(path, session)
        except VendoError:
            continue
        found.append(f"{path} {listed}")
        paths += [f"{path.rstrip('/')}/{one.name}" for one in listed]
    return "\n".join(found)


async def test_signer_no_key_leak(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A signer signs, and no file, error, log, representation, copy, row or recording has any of its secret."""
    caplog.set_level(logging.DEBUG)
    said: list[str] = []

    async def act(ctx: Here, trigger: Trigger) -> None:
        for path in ("/identity/pubkey", "/identity/keys"):
            said.append((await ctx.fs.read(path)).decode())
        ctx.log(f"I am {ctx!r}, and see {ctx.fs!r}")
        await remember(ctx, trigger)

    home = tmp_path / "home"
    homes.create(home, relays=["ws://127.0.0.1:9"], mints=[], port=0, name="a")
    ring, imported = homes.open_keyring(home), Key.generate()
    database = await open_database(home / homes.DATABASE, seal=ledger_seal(ring.node), clock=SystemClock())
    try:
        async with aiohttp.ClientSession() as http:
            with ThreadPoolExecutor(1) as executor:
                node = app.Node(load(home), ring, database, app.Outside(http, executor), homes.read_token(home))
                await node.prepare()
                await node.identities.add("guest", Imported(imported))
                name = next(iter(node.config.agent)).name
                bench = Bench(unit=database, programs={**node.programs, "scripted": Scripted(act)})
                bench.engine = Engine(database, bench.clock, bench.programs, lambda _: node.namespace(name), bench.feed)
                async with bench.running("reader"):
                    await bench.idle("reader")
                assert (await bench.state("reader"))["seen"] == ["initialize"], (await bench.row("reader"))["reason"]
                operator = Session("operator", Role.OPERATOR, unit=database)
                said += [await _all_files(node.namespace(one), operator) for one in ("node", name)]
                said.append(await _all_files(node.namespace(name), Session(f"agent:{name}", Role.AGENT)))
                signers = [node.identities.current(name), node.identities.current("guest")]
                for signer in signers:
                    await signer.sign(Draft(1, "hello", (), 1))
                    with pytest.raises(VendoError) as refused:
                        await signer.decrypt(ring.node.pubkey, "no cipher")
                    said.append(repr(refused.value))
    finally:
        await database.aclose()
    keys = [ring.operator, ring.node, ring.agent(name), imported]
    said += [repr(node.identities), repr(node.identities.all())]
    for held in (ring, *keys, *signers):
        said += [repr(held), str(held)]
        for way in (pickle.dumps, copy.deepcopy):
            with pytest.raises((TypeError, AttributeError, pickle.PicklingError)):
                way(held)
    stored = b"".join(file.read_bytes() for file in home.glob(f"{homes.DATABASE}*"))
    kept = "\n".join((*said, caplog.text)).encode() + stored
    for key in keys:
        for secret in (key.secret, key.secret.hex().encode(), key.nsec.encode()):
            assert secret not in kept
    assert ring.words.encode() not in kept
    assert ring.agent(name).pubkey.encode() in kept, "what is public is there"
