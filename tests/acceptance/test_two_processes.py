"""Two processes of one node on one PostgreSQL: nothing is lost or done twice, whichever of them dies or stands still.

The tests share one market and run in any order: each brings up what the one before it ended.
"""

import asyncio
import json
import secrets
import signal
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from cli.demo.checker import Mint, Party, read_jobs, restored_balance
from node.gate.verify import verify_rows
from node.share.claim import IDLE_S
from node.share.tenure import turn
from node.storage.seat import Place as Seat
from relays.event import parse, verify
from relays.key import Key
from relays.nip17 import unwrap
from tests.company_part import FENCED, LEASE_S, Delays, Proxy, company, holds, leads, pause, processes, rows, wake
from tests.market_part import ECHO_FREE, SUMMARY_21, Market, Spec

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

TEXT = " ".join(f"Sentence number {n} says that two hands on one purse pay once, and not {n} times." for n in range(6))
OWNER = Key.generate()
AGENTS = [f"marker-{number}" for number in range(6)]
SLOW = "slow"
# It says in a file when each tick begins and ends, and where; a line is written in one go.
MARKER = """
import asyncio, os
from pydantic import BaseModel
from node.agent.program import Program

class Seen(BaseModel):
    messages: list[str] = []
    events: dict[str, dict] = {}

class Where(BaseModel):
    marks: str = ""
    seconds: float = 0.15
    owner: str = ""

def mark(ctx, word, trigger):
    with open(ctx.config.marks, "ab", buffering=0) as file:
        file.write(f"{word} {os.getpid()} {ctx.agent} {trigger.envelope_id}\\n".encode())

class Marker(Program[Seen, Where]):
    name = "marker"
    state_type, config_type = Seen, Where

    async def on_trigger(self, ctx, trigger):
        if trigger.cause == "event":
            ctx.state.events[trigger.payload["type"]] = trigger.payload
        if trigger.cause != "message":
            return
        mark(ctx, "begin", trigger)
        if trigger.payload.get("text") == "act":
            await ctx.fs.call("/compute/new", b'{"kind": 5050, "input": "from a tick"}', "job")
            await ctx.fs.call("/identity/sign", b'{"kind": 1, "content": "signed in a tick"}', "note")
            await ctx.fs.call(f"/nostr/dm/{ctx.config.owner}", b"written in a tick", "letter")
        await asyncio.sleep(ctx.config.seconds)
        ctx.state.messages.append(trigger.envelope_id)
        mark(ctx, "end", trigger)
"""


def _agents(marks: Path) -> str:
    told = [(name, 0.15) for name in AGENTS] + [(SLOW, 5.0)]
    return "".join(
        f'\n[[agent]]\nname = "{name}"\nprogram = "marker"\nconfig = {{ marks = "{marks}", seconds = {seconds} }}\n'
        for name, seconds in told
    )


@dataclass(slots=True)
class Place:
    """What the tests share."""

    town: Market
    url: str
    proxy: Proxy
    marks: Path

    async def both(self) -> tuple[str, str]:
        """See to it that both processes are up; the steward's name, and the other's."""
        for name in ("one", "two"):
            child = self.town.nodes.get(name)
            if child is not None and child.process.returncode is None:
                child.process.send_signal(signal.SIGCONT)
            elif child is not None:  # put out, as one is that stood still for too long on a busy machine
                self.town.children.remove(self.town.nodes.pop(name))
            if name not in self.town.nodes:
                await self.town.up(name)

        async def who() -> tuple[str, str] | None:
            for one, other in (("one", "two"), ("two", "one")):
                if await leads(self.town, one) and len((await processes(self.town, other))["members"]) == 2:
                    return one, other
            return None

        found: tuple[str, str] = await holds(who, "one of two to lead", LEASE_S + 60)
        return found

    async def send(self, name: str, agent: str, text: str) -> str:
        """A message for an agent, left at one of the processes; its envelope's id."""
        status, answer = await self.town.call(name, f"{agent}/inbox/new", {"text": text}, f"{agent}-{text}")
        assert status < 300, answer
        return str(answer["envelope_id"])

    async def until_done(self, sent: Sequence[tuple[str, str]], timeout: float = 60.0) -> None:
        """Wait until all of these (agent, envelope) are dealt with."""
        ids = [envelope for _, envelope in sent]
        sql = "SELECT count(*) FROM inbox WHERE envelope_id = ANY($1) AND state = 'done'"

        async def are() -> bool:
            return bool((await rows(self.url, sql, ids))[0][0] == len(ids))

        await holds(are, "all messages to be dealt with", timeout)

    def lines(self) -> list[tuple[str, int, str, str]]:
        """What the ticks have marked: (begin or end, pid, agent, envelope), in the order in which it was written."""
        found = []
        for line in self.marks.read_text().splitlines():
            word, pid, agent, envelope = line.split(" ")
            found.append((word, int(pid), agent, envelope))
        return found

    async def committed(self, sent: Sequence[tuple[str, str]]) -> Counter[str]:
        """How many ticks were committed for each envelope, by the table of ticks."""
        sql = "SELECT envelope_id, count(*) FROM tick WHERE envelope_id = ANY($1) AND error = '' GROUP BY 1"
        return Counter({row[0]: row[1] for row in await rows(self.url, sql, [envelope for _, envelope in sent])})

    async def verify_ledger(self) -> None:
        """Walk the ledger that all processes have written, each in runs of its own."""
        names = ("run", "seq", "id", "prev", "type", "effect_id", "raw")
        found = await rows(self.url, f"SELECT {', '.join(names)} FROM entry ORDER BY n")
        report = verify_rows([dict(zip(names, row, strict=True)) for row in found], self.town.rings["one"].node.pubkey)
        assert report.ok, report.problem
        assert report.runs == 2

    async def told(self, agent: str) -> dict[str, Any]:
        """The events that an agent's state has kept, by their type."""
        found = await rows(self.url, "SELECT state FROM agent WHERE name = $1", agent)
        return dict(json.loads(found[0][0]).get("events", {})) if found else {}

    async def state(self, agent: str) -> list[str]:
        """The envelopes that an agent's state has seen."""
        found = await rows(self.url, "SELECT state FROM agent WHERE name = $1", agent)
        return list(json.loads(found[0][0])["messages"])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def place(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Place]:
    folder, proxy = tmp_path_factory.mktemp("two"), Proxy()
    marks = folder / "marks"
    marks.touch()
    async with company(
        folder,
        Spec(_agents(marks), owner=OWNER.npub),
        {"seller": ECHO_FREE + SUMMARY_21},
        mint=True,
        proxy=proxy,
        programs={"marker": MARKER},
    ) as (town, url):
        await town.fund("one", 500)
        yield Place(town, url, proxy, marks)


def _overlaps(lines: Sequence[tuple[str, int, str, str]]) -> list[str]:
    """Agents that had two ticks at once: a begin before the end of the one that began before it."""
    running: dict[str, tuple[int, str]] = {}
    found = []
    for word, pid, agent, envelope in lines:
        if word == "begin":
            if agent in running:
                found.append(f"{agent}: {envelope} in {pid} within {running[agent]}")
            running[agent] = (pid, envelope)
        elif running.pop(agent, None) != (pid, envelope):
            found.append(f"{agent}: {envelope} ended in {pid} and had not begun there")
    return found


async def test_ticks_are_shared_out_and_no_agent_has_two_at_once(place: Place) -> None:
    _, other = await place.both()
    facts = await processes(place.town, other)

    async def are_free() -> bool:
        held = await rows(place.url, "SELECT name FROM agent WHERE name = ANY($1) AND holder <> ''", AGENTS)
        return not held

    pids = {one["id"]: one["pid"] for one in facts["members"]}
    for round_ in range(6):  # where the machine is busy one of them may come too late to its turn
        await holds(are_free, "the agents to be given back by whoever ticked them before")
        lines, sent = await _shared(place, round_)
        assert _overlaps(lines) == []
        assert await place.committed(sent) == Counter({envelope: 1 for _, envelope in sent})
        for agent in AGENTS:
            mine = [envelope for name, envelope in sent if name == agent]
            assert [one for one in await place.state(agent) if one in mine] == mine, "each once, in its sender's order"
        if {pid for _, pid, _, _ in lines} >= {pids[_first(agent, facts)] for agent in AGENTS}:
            return
    raise AssertionError("the work was never shared")


async def _shared(place: Place, round_: int) -> tuple[list[tuple[str, int, str, str]], list[tuple[str, str]]]:
    """Twelve messages for each agent, left here and there: what their ticks have marked, and (agent, envelope)."""
    before = len(place.lines())
    sent: list[tuple[str, str]] = []

    async def write(agent: str) -> None:
        for number in range(12):
            sent.append((agent, await place.send(("one", "two")[number % 2], agent, f"shared-{round_}-{number}")))

    await asyncio.gather(*(write(agent) for agent in AGENTS))
    await place.until_done(sent)
    return place.lines()[before:], sent


async def test_what_a_tick_asks_for_away_from_the_steward_is_done_like_anywhere(place: Place) -> None:
    town = place.town
    _, other = await place.both()
    facts = await processes(town, other)
    pid = town.nodes[other].process.pid
    for _ in range(6):  # on a busy machine the steward may be quicker, though it is not its turn
        agent = next(
            name
            for name in (f"actor-{secrets.token_hex(4)}" for _ in iter(int, 1))
            if _first(name, facts) == facts["me"]
        )
        config = {"marks": str(place.marks), "owner": OWNER.npub}
        settings = {"name": agent, "program": "marker", "config": config}
        status, made = await town.call(other, "node/agents/new", settings, agent)
        assert status < 300, made
        await asyncio.sleep(2 * IDLE_S)  # its first tick was the steward's, who gives it back after a while
        sent = [(agent, await place.send(other, agent, "act"))]

        async def told(agent: str = agent) -> dict[str, Any] | None:
            found = await place.told(agent)
            return found if {"job.finished", "identity.signed"} <= set(found) else None

        events = await holds(told, "what the tick asked for")
        if {mark[1] for mark in place.lines() if mark[2] == agent} == {pid}:
            break
    else:
        raise AssertionError("no tick was ever that of the process whose turn it was")
    assert events["job.finished"]["job"]["result"] == "from a tick"
    signed = parse(events["identity.signed"]["event"])
    verify(signed)
    sql = "SELECT pubkey FROM agent WHERE name = $1"
    assert (signed.content, signed.pubkey) == ("signed in a tick", (await rows(place.url, sql, agent))[0][0])

    async def settled() -> bool:
        sql = "SELECT path, state FROM effect WHERE caller = $1 ORDER BY path"
        states = dict(await rows(place.url, sql, f"agent:{agent}"))
        return len(states) == 3 and set(states.values()) == {"commit"}

    await holds(settled, "its three effects to end")
    letters = [unwrap(OWNER, event) for event in await town.wraps_to(OWNER.pubkey)]
    assert [one.content for one in letters if one.sender == signed.pubkey] == ["written in a tick"]
    assert len([event for event in await town.requests("one") if event.value("i") == "from a tick"]) >= 1
    assert await place.committed(sent) == Counter({sent[0][1]: 1})


def _first(agent: str, facts: dict[str, Any]) -> str:
    """The process whose turn an agent is first: its place decides, which is drawn when it starts."""
    places = [Seat(int(one["id"].split(".")[0]), int(one["id"].split(".")[1])) for one in facts["members"]]
    return turn(agent, {one.id: one.slot * 1_000_003 + one.token for one in places})


async def _is_ready(town: Market, name: str) -> bool:
    async with town.http.get(f"{town.nodes[name].said['control']}/readyz") as answer:
        return answer.status == 200


async def test_it_is_all_one_which_process_is_asked(place: Place) -> None:
    town = place.town
    steward, other = await place.both()
    wish = {"kind": 5050, "input": "asked there", "timeout_s": 5}
    assert (await town.call(other, "node/ctl/pause", {}, "pause"))[0] < 300
    for name in (steward, other):
        status, answer = await town.call(name, "node/compute/new", wish, f"paused-{name}")
        assert (status, answer["code"]) == (503, "node.paused")
    assert (await town.call(other, "node/ctl/resume", {}, "resume"))[0] < 300
    bought = await town.vendo(other, "buy", "--kind", "5050", "--input", "asked there", "--timeout", "5")
    assert (bought.code, bought.json["result"]) == (0, "asked there")
    job = f"node/compute/jobs/{bought.json['job_id']}/status"
    assert await town.get(steward, job) == await town.get(other, job)
    facts = [await processes(town, name) for name in (steward, other)]
    assert [one["me"] == one["steward"] for one in facts] == [True, False]
    assert {member["pid"] for member in facts[1]["members"]} == {town.nodes[one].process.pid for one in ("one", "two")}
    for name in (steward, other):
        await holds(lambda name=name: _is_ready(town, name), "it to be ready")
    watched = town.url(other, f"{AGENTS[0]}/logs/trace?watch=1&after=0")
    async with town.http.get(watched, headers=town.headers(other)) as stream:
        sent = [(AGENTS[0], await place.send(steward, AGENTS[0], f"watched-{time.monotonic()}"))]
        seen = b""
        async with asyncio.timeout(60):
            while sent[0][1].encode() not in seen and b"event: tick" not in seen:
                seen += await stream.content.readany()
    await place.until_done(sent)


async def test_one_that_is_stopped_in_order_is_followed_at_once(place: Place) -> None:
    steward, other = await place.both()
    sent = [
        (agent, await place.send(other, agent, f"ordered-{time.monotonic()}")) for agent in AGENTS for _ in range(2)
    ]
    gone = (await processes(place.town, steward))["me"]
    assert await place.town.down(steward) == 0
    await holds(lambda: leads(place.town, other), "the other one to lead")
    assert f"member {gone} was put out" not in place.town.log(other), "it did not wait for the lease"
    await place.until_done(sent)
    assert await place.committed(sent) == Counter({envelope: 1 for _, envelope in sent})


async def test_one_that_is_killed_is_followed_and_no_message_is_lost_or_dealt_with_twice(place: Place) -> None:
    steward, other = await place.both()
    before = len(place.lines())
    dead = place.town.nodes[steward].process.pid
    sent: list[tuple[str, str]] = []
    for number in range(8):
        for agent in AGENTS:
            sent.append((agent, await place.send(other, agent, f"killed-{number}")))
        if number == 4:
            gone = (await processes(place.town, steward))["me"]
            await place.town.nodes[steward].kill()
            async with Delays() as delays:
                at = time.monotonic()
                await holds(lambda: leads(place.town, other), "the other one to lead")
                took = time.monotonic() - at
            assert took < LEASE_S + 2 + 2 + 3 * delays.seconds, "the lease, two seconds, and what a busy machine takes"
            assert f"member {gone} was put out" in place.town.log(other)
    place.town.children.remove(place.town.nodes.pop(steward))
    await place.until_done(sent)
    lines = [line for line in place.lines()[before:] if line[1] != dead]
    assert _overlaps(lines) == []
    assert await place.committed(sent) == Counter({envelope: 1 for _, envelope in sent})
    for agent in AGENTS:
        mine = [envelope for name, envelope in sent if name == agent]
        assert [one for one in await place.state(agent) if one in mine] == mine


async def test_one_that_stood_still_past_its_lease_finds_its_late_commit_refused(place: Place) -> None:
    await place.both()
    before = len(place.lines())
    sent = [(SLOW, await place.send("one", SLOW, f"slow-{time.monotonic()}"))]

    async def began() -> list[int]:
        return [pid for word, pid, agent, _ in place.lines()[before:] if (word, agent) == ("begin", SLOW)]

    pids = await holds(began, "the tick to begin")
    stuck = next(name for name, child in place.town.nodes.items() if child.process.pid == pids[0])
    other = "two" if stuck == "one" else "one"
    pause(place.town, stuck)
    await place.until_done(sent, LEASE_S + 60)
    assert await wake(place.town, stuck) == FENCED, place.town.log(stuck)[-2_000:]
    assert "store.fenced" in place.town.log(stuck)
    words: dict[int, list[str]] = defaultdict(list)
    for word, pid, _, _ in place.lines()[before:]:
        words[pid].append(word)
    assert words[pids[0]][:1] == ["begin"]
    assert words[place.town.nodes[other].process.pid] == ["begin", "end"], "the other one began it anew, and ended it"
    assert await place.committed(sent) == Counter({sent[0][1]: 1})
    assert (await place.state(SLOW)).count(sent[0][1]) == 1
    assert len((await processes(place.town, other))["members"]) == 1


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_payment_in_flight_is_paid_once_when_its_process_stands_still_and_comes_back(
    place: Place, when: str
) -> None:
    town = place.town
    steward, other = await place.both()
    ring, mint, seller = town.rings["one"], Mint(town.http, town.mint), Party("seller", town.rings["seller"].node)
    had = await restored_balance(ring, town.mint, town.http)
    earned = await restored_balance(town.rings["seller"], town.mint, town.http)
    place.proxy.hold(when)
    wish = {"kind": 5001, "input": f"{when} the mint has it. {TEXT}", "max_usd": "0.05", "timeout_s": 300}
    status, made = await town.call(other, "node/compute/new", wish, f"in-flight-{when}")
    assert status < 300, made
    await asyncio.wait_for(place.proxy.held.wait(), 60)
    pause(town, steward)
    await holds(lambda: leads(town, other), "the other process to lead")

    async def is_closed() -> bool:
        job: dict[str, Any] = await town.get(other, f"node/compute/jobs/{made['job_id']}/status")
        return bool(job["state"] == "delivered" and job["closed"])

    await holds(is_closed, "the job to be delivered and settled")
    place.proxy.release()
    assert await wake(town, steward) == FENCED, town.log(steward)[-2_000:]
    assert "store.fenced" in town.log(steward)

    jobs = await read_jobs(await town.events(), ring.node.pubkey, [seller], mint)
    found = [job for job in jobs if (job.request.value("i") or "").startswith(when)]
    assert len(found) == 1, "one request on the relay"
    job = found[0]
    assert len({payment.ys for payment in job.payments}) == 1, "one payment on the relay"
    assert (set(job.states.values()), len(job.results)) == ({"SPENT"}, 1)
    paid = job.payments[0].sat
    got = await restored_balance(town.rings["seller"], town.mint, town.http) - earned
    assert got == paid - job.claim_fee_sat == 21, "at the mint the seller has one payment more"
    left = await restored_balance(ring, town.mint, town.http)
    assert 0 <= had - left - paid <= 3, "and the buyer one payment and the fee of one swap less"
    assert (await town.get(other, "node/wallet/audit"))["clean"]
    await place.verify_ledger()
