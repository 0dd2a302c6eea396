"""An agent leaves and comes: between two ticks, whole, frozen where it was, and with nothing that is its node's."""

import asyncio
import sys
from hashlib import sha256
from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import Conflict, NotFound
from core.unit import Insert, Update
from node.agent.error import AgentStatus, NoProgram
from node.agent.inbox.row import envelope
from node.agent.load.source import load_file
from node.agent.program import Trigger
from node.backup.error import BackupTarget, CodeDiffers
from node.config import AgentSection
from node.error import AgentTaken
from node.identity.registry import Imported
from node.storage.error import StoreFull
from node.storage.memory import MemoryDatabase
from tests.integration.backup.home_part import parts_of
from tests.move_part import OTHER_WORDS, SECTION, Port, busy
from tests.unit.node.agent.agent_part import Here, Scripted

FILE = """
from pydantic import BaseModel
from node.agent.program import Nothing, Program

class Told(BaseModel):
    seen: list[str] = []

class Own(Program[Told, Nothing]):
    state_type, config_type = Told, Nothing

    async def on_trigger(self, ctx, trigger):
        ctx.state.seen.append(trigger.envelope_id)
"""


@pytest.fixture
async def source(tmp_path):
    port = Port(MemoryDatabase(), tmp_path / "source")
    await port.settle()
    return port


@pytest.fixture
def target(tmp_path):
    return Port(MemoryDatabase(), tmp_path / "target", words=OTHER_WORDS)


def files_of(home: Path) -> dict[str, bytes]:
    return {str(path.relative_to(home)): path.read_bytes() for path in sorted(home.rglob("*")) if path.is_file()}


# ---- the tick lock, and the frozen source


async def test_an_export_waits_for_the_tick_that_runs_and_none_begins_meanwhile(tmp_path):
    inside, go = asyncio.Event(), asyncio.Event()

    async def slow(ctx: Here, trigger: Trigger) -> None:
        await busy(ctx, trigger)
        if trigger.cause == "message":
            inside.set()
            await go.wait()

    port = Port(MemoryDatabase(), tmp_path / "h", act=slow)
    port.bench.limits = port.bench.limits.__class__(seconds=30)
    port.bench.engine = port.bench.fresh()
    port.departure._lives = port.bench.engine
    async with port.bench.running():
        await port.bench.engine.create("a", "scripted", (await port.keys.add("a")).pubkey)
        await port.bench.idle("a")
        await port.bench.put("a", "m1")
        await asyncio.wait_for(inside.wait(), 60)
        leaving = asyncio.create_task(port.export(tmp_path / "x"))
        await asyncio.sleep(0.1)
        assert not leaving.done(), "it waits for the tick"
        await port.bench.put("a", "m2")
        go.set()
        manifest = await asyncio.wait_for(leaving, 60)
        assert manifest.tables["inbox"].rows == 3
        await asyncio.sleep(0.2)
        assert (await port.bench.state("a"))["seen"] == ["initialize", "m1"], "m2 waits"
        await port.bench.engine.thaw("a")
        await port.bench.idle("a")
        assert (await port.bench.state("a"))["seen"] == ["initialize", "m1", "m2"]
    target = Port(MemoryDatabase(), tmp_path / "t", words=OTHER_WORDS)
    await target.bring(tmp_path / "x")
    assert (await target.bench.state("a"))["seen"] == ["initialize", "m1"]


async def test_a_frozen_agent_has_no_tick_until_it_is_thawed_not_even_after_a_restart(source, tmp_path):
    await source.export(tmp_path / "x")
    source.bench.engine = source.bench.fresh()
    async with source.bench.running() as engine:
        await asyncio.sleep(0.2)
        assert (await source.bench.inbox("a"))["m2"]["state"] == "new"
        for ask in (engine.start, engine.wake, engine.release, engine.stop):
            with pytest.raises(AgentStatus):
                await ask("a")
        assert await engine.thaw("a") == "active"
        await source.bench.idle("a")
    assert (await source.bench.state("a"))["seen"] == ["initialize", "m1", "m2"]


class Talker(Scripted):
    """Says something at its end."""

    def __init__(self) -> None:
        super().__init__(busy)
        self.said: list[str] = []

    async def on_terminate(self, ctx: Here) -> None:
        self.said.append(ctx.agent)


async def test_who_is_deleted_while_frozen_says_no_last_words_here(tmp_path):
    talker = Talker()
    port = Port(MemoryDatabase(), tmp_path / "h", programs={"scripted": talker})
    for name in ("a", "b"):
        await port.bench.engine.create(name, "scripted", (await port.keys.add(name)).pubkey)
    await port.export(tmp_path / "x")
    for name in ("a", "b"):
        await port.bench.engine.delete(name)
    assert talker.said == ["b"]


async def test_only_what_is_frozen_is_thawed(source):
    for name, error in (("a", None), ("b", NotFound)):
        if error is None:
            await source.bench.engine.stop(name)
            with pytest.raises(AgentStatus):
                await source.bench.engine.thaw(name)
        else:
            with pytest.raises(error):
                await source.bench.engine.thaw(name)


@pytest.mark.parametrize("status", ["active", "dormant", "stopped", "quarantined"])
async def test_an_export_that_fails_leaves_the_agent_as_it_was(source, status):
    await source.unit.commit([Update("agent", {"name": "a"}, {"status": status})])
    with Path("/dev/full").open("wb", buffering=0) as full, pytest.raises(OSError, match="No space left"):
        await source.departure.export(SECTION, full)
    assert (await source.rows("agent"))[0]["status"] == status


async def test_who_is_not_there_cannot_leave(source, tmp_path):
    with pytest.raises(NotFound):
        await source.export(tmp_path / "x", AgentSection(name="nobody", program="scripted"))
    await source.bench.engine.delete("a")
    with pytest.raises(NotFound):
        await source.export(tmp_path / "x")


async def test_what_was_taken_without_freezing_is_good_for_a_clone_only(source, tmp_path):
    manifest = await source.export(tmp_path / "x", freeze=False)
    assert (manifest.frozen, (await source.rows("agent"))[0]["status"]) == (False, "active")
    with pytest.raises(AgentStatus, match="only a clone"):
        await source.bring(tmp_path / "x")
    target = Port(MemoryDatabase(), tmp_path / "t", words=OTHER_WORDS)
    with pytest.raises(AgentStatus, match="only a clone"):
        await target.bring(tmp_path / "x")
    assert (await target.bring(tmp_path / "x", clone="a2"))["name"] == "a2"


@pytest.mark.parametrize("status", ["stopped", "quarantined"])
async def test_who_was_stopped_or_set_aside_is_so_there_too(source, target, tmp_path, status):
    await source.unit.commit([Update("agent", {"name": "a"}, {"status": status, "reason": "because", "failures": 3})])
    await source.export(tmp_path / "x")
    assert (await target.bring(tmp_path / "x"))["status"] == status
    row = (await target.rows("agent"))[0]
    assert (row["reason"], row["failures"]) == ("because", 3)
    assert (await target.bring(tmp_path / "x", clone="b"))["status"] == "active", "a clone has failed at nothing"


# ---- what travels


async def test_no_key_no_money_and_nothing_else_of_the_node_is_in_it(source, tmp_path):
    secret = b"S3CR3T-of-a-proof-of-money"
    proof = {
        "y": "12" * 32, "mint": "http://m", "unit": "sat", "keyset": "k", "amount": 1, "state": "live",
        "operation": "operation-of-money", "sealed": secret,
    }  # fmt: skip
    job = {
        "id": "job-of-the-node", "effect_id": "e", "request_id": "r", "caller": "agent:a", "kind": 5050,
        "state": "working", "money": "locked", "body": "{}", "created_at": 1, "updated_at": 1,
    }  # fmt: skip
    named = {"agent": "a", "name": "openai", "sealed": b"sealed-all-the-same", "size": 9, "set_at_ms": 1}
    await source.unit.commit([Insert("proof", proof), Insert("purchase", job), Insert("secret", named)])
    await source.export(tmp_path / "x")
    parts = parts_of(tmp_path / "x")
    whole = b"\n".join(parts.values())
    key = source.ring.agent("a", 0)
    for word in (
        source.words, key.secret.hex(), key.nsec, source.ring.node.secret.hex(), source.ring.node.nsec, secret.decode(),
        "operation-of-money", "job-of-the-node", "secret-effect", "0" * 32, "sealed-all-the-same", "openai",
    ):  # fmt: skip
        assert word.encode() not in whole, word
    assert {name.split("/")[1] for name in parts if name.startswith("db/")} == {
        "item", "goal", "mark", "alarm", "interest", "hook", "inbox", "message",
    }  # fmt: skip
    assert set(parts) - {name for name in parts if name.startswith("db/")} == {
        "agent.json", "manifest.json", "signature.json",
    }  # fmt: skip


async def test_history_is_bounded_and_the_newest_of_it_goes_along(source, target, tmp_path):
    row = (await source.rows("message"))[0]
    more = [{**row, "id": f"{n:064x}", "text": str(n), "changed_ms": 10_000 + n, "state": "sent", "direction": "out"}
            for n in range(50)]  # fmt: skip
    await source.unit.commit([Insert("message", one) for one in more])
    await source.unit.commit([Update("message", {"id": "aa" * 32}, {"changed_ms": 1})])
    manifest = await source.export(tmp_path / "x", history=10)
    assert manifest.tables["message"].rows == 10
    await target.bring(tmp_path / "x")
    assert sorted(int(one["text"]) for one in await target.rows("message")) == list(range(40, 50))


async def test_files_come_along_and_a_clone_gets_only_those_of_its_work(source, target, tmp_path):
    body = b"a file that somebody sent"
    digest = sha256(body).hexdigest()
    shelf = source.home / "files" / "in" / "a"
    shelf.mkdir(parents=True)
    (shelf / digest).write_bytes(body)
    (shelf / f"{digest[:-1]}x.part").write_bytes(b"half")
    work = source.home / "work" / "a"
    (work / "deep").mkdir(parents=True)
    (work / "deep" / "notes").write_text("mine")
    (work / "run").write_text("#!/bin/sh\n")
    (work / "run").chmod(0o700)
    (work / "out").symlink_to("/etc/passwd")
    other = source.home / "files" / "in" / "b"
    other.mkdir()
    (other / digest).write_bytes(b"another's")
    manifest = await source.export(tmp_path / "x")
    assert any("work/out" in line for line in manifest.left_out)
    await target.bring(tmp_path / "x")
    want = {"work/a/deep/notes": b"mine", "work/a/run": b"#!/bin/sh\n"}
    assert files_of(target.home) == {f"files/in/a/{digest}": body} | want
    assert (target.home / "work/a/run").stat().st_mode & 0o777 == 0o700
    assert (target.home / "work/a/deep/notes").stat().st_mode & 0o777 == 0o600
    await target.bring(tmp_path / "x", clone="b")
    assert set(files_of(target.home)) == {
        f"files/in/a/{digest}", *want, "work/b/deep/notes", "work/b/run",
    }  # fmt: skip


async def test_what_lies_in_the_way_of_its_files_is_not_touched(source, target, tmp_path):
    (source.home / "work" / "a").mkdir(parents=True)
    (source.home / "work" / "a" / "notes").write_text("mine")
    await source.export(tmp_path / "x")
    (target.home / "work" / "a").mkdir(parents=True)
    (target.home / "work" / "a" / "notes").write_text("somebody's")
    with pytest.raises(BackupTarget):
        await target.bring(tmp_path / "x")
    assert files_of(target.home) == {"work/a/notes": b"somebody's"}
    assert not await target.rows("agent")


# ---- keys


async def test_the_key_that_was_moved_first_is_the_one_that_it_has_and_it_hears_from_the_export_on(
    source, target, tmp_path
):
    manifest = await source.export(tmp_path / "x")
    await target.keys.add("a", Imported(source.ring.agent("a", 0)))
    told = await target.bring(tmp_path / "x")
    assert told["same_key"]
    row = (await target.rows("agent"))[0]
    assert (row["pubkey"], row["created_at"]) == (manifest.pubkey, manifest.taken_at)


async def test_a_new_key_is_this_nodes_own_and_the_identity_is_there_with_the_agent(source, target, tmp_path):
    await source.export(tmp_path / "x")
    told = await target.bring(tmp_path / "x")
    assert target.keys["a"].pubkey == target.ring.agent("a", 0).pubkey
    assert told["was"] != told["npub"]
    assert [row["source"] for row in await target.rows("identity")] == ["derived"]
    clone = await source.bring(tmp_path / "x", clone="b")
    assert source.keys["b"].pubkey not in (source.keys["a"].pubkey, target.keys["a"].pubkey)
    assert not clone["same_key"]


# ---- code


@pytest.fixture
async def with_file(tmp_path):
    """A node whose agent runs a program of its own, from a file."""
    home = tmp_path / "source"
    (home / "agents").mkdir(parents=True, mode=0o700)
    path = home / "agents" / "own.py"
    path.write_text(FILE)
    path.chmod(0o600)
    home.chmod(0o700)
    port = Port(MemoryDatabase(), home, programs={"own": load_file(path)}, files={"own": path})
    section = AgentSection(name="a", program="own")
    signer = await port.keys.add("a")
    await port.bench.engine.create("a", "own", signer.pubkey)
    async with port.bench.running():
        await port.bench.idle("a")
    await port.export(tmp_path / "x", section)
    return port, path


async def test_code_that_comes_with_an_agent_runs_only_if_that_is_accepted(with_file, tmp_path):
    target = Port(MemoryDatabase(), tmp_path / "target", words=OTHER_WORDS, programs={})
    before = "vendo_agent_own" in sys.modules and sys.modules["vendo_agent_own"]
    with pytest.raises(CodeDiffers, match="in the archive"):
        await target.bring(tmp_path / "x")
    assert before is sys.modules["vendo_agent_own"], "nothing of it ran"
    assert files_of(target.home) == {}
    told = await target.bring(tmp_path / "x", accept_code=True)
    assert told["code"] == "installed"
    installed = target.home / "agents" / "own.py"
    assert installed.read_text() == FILE
    assert (installed.stat().st_mode & 0o777, installed.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert load_file(installed).digest == (await target.rows("agent"))[0]["code"]


async def test_a_program_that_is_there_is_never_replaced_and_another_one_must_be_accepted(with_file, tmp_path):
    home = tmp_path / "target"
    (home / "agents").mkdir(parents=True, mode=0o700)
    path = home / "agents" / "own.py"
    path.write_text(FILE + "\n# another\n")
    target = Port(MemoryDatabase(), home, words=OTHER_WORDS, programs={"own": load_file(path)})
    with pytest.raises(CodeDiffers, match="was"):
        await target.bring(tmp_path / "x")
    assert not await target.rows("agent")
    assert (await target.bring(tmp_path / "x", accept_code=True))["code"] == "other"
    assert path.read_text().endswith("# another\n")


async def test_a_program_that_is_nowhere_stops_it(source, tmp_path):
    await source.export(tmp_path / "x")
    target = Port(MemoryDatabase(), tmp_path / "t", words=OTHER_WORDS, programs={})
    for accept in (False, True):
        with pytest.raises(NoProgram):
            await target.bring(tmp_path / "x", accept_code=accept)


async def test_a_file_that_was_changed_since_it_was_loaded_does_not_go_along(with_file, tmp_path):
    port, path = with_file
    path.write_text(FILE + "\n# not loaded yet\n")
    await port.bench.engine.thaw("a")
    manifest = await port.export(tmp_path / "y", AgentSection(name="a", program="own"))
    assert not [part for part in manifest.parts if part.name.startswith("program/")]
    assert any("changed since" in line for line in manifest.left_out)


async def test_settings_that_say_what_runs_on_the_machine_are_code(tmp_path):
    """The program `command` is the same everywhere; what it starts stands in the agent's settings."""
    from node.agent.outside.command import FOLDER, Command
    from node.backup.luggage import RUNS_ITS_SETTINGS, WORK

    assert {Command.name} == RUNS_ITS_SETTINGS
    assert WORK == FOLDER

    async def nothing(ctx: Here, trigger: Trigger) -> None: ...

    section = AgentSection(name="a", program="command")
    source, target = Port(MemoryDatabase(), tmp_path / "s", act=nothing), Port(MemoryDatabase(), tmp_path / "t")
    for port in (source, target):
        port.bench.programs["command"] = port.bench.programs["scripted"]
    await source.bench.engine.create("a", "command", (await source.keys.add("a")).pubkey)
    await source.export(tmp_path / "x", section)
    with pytest.raises(CodeDiffers, match="what runs on this machine"):
        await target.bring(tmp_path / "x", clone="b")
    assert not await target.rows("agent", "b")
    assert (await target.bring(tmp_path / "x", clone="b", accept_code=True))["status"] == "active"


# ---- back where it came from


async def test_what_it_has_done_since_is_not_done_again_when_it_goes_back(source, tmp_path):
    """The archive is taken, the agent is let go on and answers, and then it is put back: m2 was dealt with."""
    await source.export(tmp_path / "x")
    async with source.bench.running() as engine:
        await engine.thaw("a")
        await source.bench.idle("a")
        assert (await source.bench.state("a"))["seen"] == ["initialize", "m1", "m2"]
    await source.export(tmp_path / "y")
    told = await source.bring(tmp_path / "x")
    assert told["status"] == "active"
    async with source.bench.running():
        await source.bench.idle("a")
        await asyncio.sleep(0.1)
    assert (await source.bench.state("a"))["seen"] == ["initialize", "m1"], "the state is the archive's"
    assert (await source.bench.inbox("a"))["m2"]["state"] == "done", "and the trigger is not dealt with twice"


async def test_an_agent_that_goes_on_is_not_replaced(source, target, tmp_path):
    await source.export(tmp_path / "x")
    await target.bring(tmp_path / "x")
    before = await target.all_of()
    with pytest.raises(AgentTaken):
        await target.bring(tmp_path / "x")
    assert await target.all_of() == before
    await source.bench.engine.thaw("a")
    with pytest.raises(AgentTaken):
        await source.bring(tmp_path / "x")
    await source.bench.engine.delete("a")
    with pytest.raises(AgentTaken):
        await source.bring(tmp_path / "x")
    for name in ("a", "b"):
        if name == "b":
            await source.bring(tmp_path / "x", clone="b")
        with pytest.raises(AgentTaken):
            await source.bring(tmp_path / "x", clone=name)


async def test_a_commit_that_fails_takes_files_and_program_back(with_file, tmp_path, monkeypatch):
    port, _ = with_file
    await port.bench.engine.thaw("a")
    (port.home / "work" / "a").mkdir(parents=True)
    (port.home / "work" / "a" / "notes").write_text("mine")
    body = b"sent"
    (port.home / "files" / "in" / "a").mkdir(parents=True)
    (port.home / "files" / "in" / "a" / sha256(body).hexdigest()).write_bytes(body)
    await port.export(tmp_path / "x", AgentSection(name="a", program="own"))
    target = Port(MemoryDatabase(), tmp_path / "target", words=OTHER_WORDS, programs={})

    async def full(writes):
        raise StoreFull

    monkeypatch.setattr(target.unit, "commit", full)
    with pytest.raises(StoreFull):
        await target.bring(tmp_path / "x", accept_code=True)
    assert files_of(target.home) == {}
    assert "a" not in target.keys
    assert target.desk.sections == {}
    monkeypatch.undo()
    assert (await target.bring(tmp_path / "x", accept_code=True))["code"] == "installed"


async def test_somebody_who_thaws_it_meanwhile_is_not_overruled(source, tmp_path, monkeypatch):
    await source.export(tmp_path / "x")
    commit = source.unit.commit

    async def thawed_first(writes):
        await commit([Update("agent", {"name": "a"}, {"status": "active"}, {"version": 1})])
        await commit(writes)

    monkeypatch.setattr(source.unit, "commit", thawed_first)
    with pytest.raises(Conflict):
        await source.bring(tmp_path / "x")


async def test_two_imports_at_once_make_one_agent(source, target, tmp_path):
    (source.home / "work" / "a").mkdir(parents=True)
    (source.home / "work" / "a" / "notes").write_text("mine")
    await source.export(tmp_path / "x")
    done = await asyncio.gather(*(target.bring(tmp_path / "x") for _ in range(3)), return_exceptions=True)
    assert sum(isinstance(one, AgentTaken) for one in done) == 2
    assert files_of(target.home) == {"work/a/notes": b"mine"}, "those that were refused took nothing away"


async def test_an_alarm_that_fires_between_the_reading_of_its_row_and_of_the_inbox_rings_once(source, target, tmp_path):
    """It is then in both, and what it puts into the inbox is known by one name."""
    at_ms = SystemClock().millis() - 1_000
    await source.unit.commit([Update("alarm", {"agent": "a", "id": "once"}, {"due_ms": at_ms})])
    rung = envelope(
        "a", f"alarm:once:{at_ms}", cause="alarm", source="scheduler", sender="once", payload="{}", at=at_ms // 1000
    )
    await source.unit.commit([rung])
    await source.export(tmp_path / "x")
    await target.bring(tmp_path / "x")
    from node.agent.wake.bell import Alarms

    await Alarms(target.unit, SystemClock(), lambda _: None).look()
    rows = [row for row in await target.rows("inbox") if row["envelope_id"] == f"alarm:once:{at_ms}"]
    assert len(rows) == 1


async def test_many_kept_values_travel(tmp_path):
    """Twenty thousand kept values: the archive is written and read page by page."""
    port = Port(MemoryDatabase(), tmp_path / "s")
    signer = await port.keys.add("a")
    await port.bench.engine.create("a", "scripted", signer.pubkey)
    rows = [Insert("item", {"agent": "a", "key": f"key-{n:06}", "value": f'"{n}"'}) for n in range(20_000)]
    await port.unit.commit(rows)
    manifest = await port.export(tmp_path / "x")
    assert manifest.tables["item"].rows == 20_000
    target = Port(MemoryDatabase(), tmp_path / "t", words=OTHER_WORDS)
    await target.bring(tmp_path / "x")
    assert await target.unit.count("item", {"agent": "a"}) == 20_000


# ---- whose archive it is


@pytest.mark.parametrize("wish", [{}, {"clone": "b"}])
async def test_an_archive_for_which_nobody_vouches_arrives_stopped(source, target, tmp_path, wish):
    """Its state, its contacts and what waits for it could have it pay somebody at once."""
    await source.export(tmp_path / "x")
    told = await target.bring(tmp_path / "x", node=None, **wish)
    name = told["name"]
    assert (told["status"], told["reason"].split(":")[0]) == ("stopped", "backup.unvouched")
    assert f"vendo call /ctl/start --agent {name}" in told["reason"]
    before = await target.bench.state(name)
    async with target.bench.running() as engine:
        await target.bench.put(name, "m9")
        await asyncio.sleep(0.1)
        assert await target.bench.state(name) == before, "no tick"
        assert await engine.start(name) == "active"
        await target.bench.idle(name)
    assert (await target.bench.state(name))["seen"][-1] == "m9"


async def test_what_this_node_signed_itself_needs_nobody_to_vouch_for_it(source, tmp_path):
    await source.export(tmp_path / "x")
    assert (await source.bring(tmp_path / "x", node=None))["status"] == "active"
    assert (await source.bring(tmp_path / "x", node=None, clone="b"))["status"] == "active"


async def test_no_reason_in_a_strangers_archive_has_its_agent_go_on_at_the_next_start(source, target, tmp_path):
    """One that is quarantined for want of a program is let out when the program is there."""
    reason = "agent.no_program: There is none."
    await source.unit.commit([Update("agent", {"name": "a"}, {"status": "quarantined", "reason": reason})])
    await source.export(tmp_path / "x")
    assert (await target.bring(tmp_path / "x", node=None))["status"] == "stopped"
    async with target.bench.running() as engine:
        await engine.heal()
    assert [row["status"] for row in await target.rows("agent")] == ["stopped"]


# ---- frozen, and back


@pytest.mark.parametrize("status", ["stopped", "quarantined"])
async def test_what_was_stopped_before_its_export_is_stopped_in_every_archive_and_after_it_thaws(
    source, target, tmp_path, status
):
    reason = "agent.tick_failed: It failed." if status == "quarantined" else ""
    await source.unit.commit([Update("agent", {"name": "a"}, {"status": status, "reason": reason, "failures": 5})])
    await source.export(tmp_path / "x")
    await source.export(tmp_path / "y")
    assert (await target.bring(tmp_path / "y"))["status"] == status
    assert await source.departure.thaw("a") == status
    (row,) = await source.rows("agent")
    assert (row["status"], row["reason"]) == (status, reason)
    assert await source.unit.count("meta", {"key": "frozen/a"}) == 0


async def test_one_that_is_not_frozen_is_not_thawed(source, tmp_path):
    await source.bench.engine.stop("a")
    with pytest.raises(AgentStatus):
        await source.departure.thaw("a")
