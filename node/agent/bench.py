"""A workbench for one agent: its ticks one by one, on a database in memory, without a node, a key or a network.

    def test_it_answers() -> None:
        with Bench(Path(__file__).with_name("echo.py")) as bench:
            tick = bench.message("hello")
            assert tick.sent == [(PERSON, "You said: hello")]

The tick is the real one, with its commit, its limits and its inbox. Time stands still until `wait` moves it. Of the
files there are `/goals`, `/memory`, `/logs` and `/identity/pubkey`; what is sent to `/nostr/dm/…` and `/compute/new` is
only noted, and a test mounts more where it needs it. For authors of agents: it needs no plugin of pytest.
"""

import asyncio
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import orjson
from pydantic import BaseModel

from core.error import InvalidInput
from core.identifier import PubKey
from core.unit import Row
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.protocol import FileService
from node.agent.inbox.row import DONE, Waiting, envelope
from node.agent.lifecycle import INITIALIZE, Lifecycle
from node.agent.load.source import load_file
from node.agent.program import AnyProgram
from node.agent.stand import BenchClock, Tick, surroundings
from node.agent.state import loaded
from node.agent.tick.guard import Guard
from node.agent.tick.lap import LIVING, Lap
from node.agent.tick.limit import Own, TickLimits
from node.agent.tick.means import Means
from node.agent.tick.runner import TickRunner
from node.agent.wake.bell import Alarms
from node.storage.memory import MemoryDatabase

NAME = "agent"
PERSON = PubKey("79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798")  # the generator of secp256k1
AGENT = PubKey("c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5")  # twice that
_ENDLESS = 10_000
_LIMITS = TickLimits(per_minute=0, compute_s=0)
_OWN = ("tick", "error")  # records that the engine adds by itself


class Bench:
    """One agent, for a `with` block.

    Args:
        program: the program, or the file that it is in.
        config: the agent's settings.
        mounts: services that it finds besides, by path.

    Raises:
        NoProgram: the file cannot be loaded.
        ConfigRefused: the settings do not fit.
    """

    def __init__(
        self,
        program: AnyProgram | Path,
        config: Mapping[str, Any] | None = None,
        mounts: Mapping[str, FileService] | None = None,
    ) -> None:
        self.program = load_file(program) if isinstance(program, Path) else program
        self.clock, self._unit, self._feed = BenchClock(), MemoryDatabase(), Feed()
        self._done = Tick("")
        self._runner, self._count, self._config = asyncio.Runner(), 0, dict(config or {})
        more = [Mount(path, service, Access.WRITE) for path, service in (mounts or {}).items()]
        namespace = Namespace([*surroundings(NAME, AGENT, self._unit, self.clock, self._feed, self._noted), *more])
        guard = Guard(_LIMITS.grace_s, _LIMITS.blocked_ms, lambda: False)
        means = Means(
            self._unit, self.clock, {self.program.name: self.program}, lambda _: namespace, self._feed, _LIMITS, guard
        )
        self._ticks, self._waiting = TickRunner(means), Waiting(self._unit)
        self._alarms = Alarms(self._unit, self.clock, lambda _: None)
        self._lives = Lifecycle(means, lambda _: None, lambda _: None)
        self.first: Tick = Tick(INITIALIZE)

    def __enter__(self) -> "Bench":
        """Make the agent; `first` is its first tick."""
        self._lives.check(self.program.name, self._config)
        made = self._lives.create(NAME, self.program.name, AGENT, self._config, Own())
        self._runner.run(made)
        self.first = self._runner.run(self._work())[-1]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._runner.close()

    # ---- what arrives

    def message(self, text: str, sender: str = PERSON, **more: Any) -> Tick:
        """A message from a contact; `more` are other fields of its payload."""
        payload = {"text": text, "contact": True, "protocol": "nip17", "created_at": self.clock.now(), **more}
        return self.deliver("message", payload, source="nostr", sender=sender)

    def event(self, kind: str, **fields: Any) -> Tick:
        """An event for which the agent has asked."""
        return self.deliver("event", {"type": kind, **fields}, source="node")

    def deliver(self, cause: str, payload: Mapping[str, Any], *, source: str = "node", sender: str = "") -> Tick:
        """Any trigger. Answers its first try; one that failed is tried again when time passes."""
        self._count += 1
        words = orjson.dumps(payload).decode()
        row = envelope(
            NAME, f"bench-{self._count}", cause=cause, source=source, sender=sender, payload=words, at=self.clock.now()
        )
        self._runner.run(self._unit.commit([row]))
        return self._runner.run(self._work())[0]

    def wait(self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0) -> list[Tick]:
        """Let time pass: alarms fire, and what failed is tried again. All ticks of that time."""
        span = seconds + 60 * (minutes + 60 * (hours + 24 * days))
        return self._runner.run(self._pass(self.clock.ms + round(span * 1_000)))

    # ---- what is there

    @property
    def state(self) -> Any:
        """The agent's state, of its own type, as it was last committed."""
        (row,) = self._runner.run(self._unit.select("agent", {"name": NAME}))
        state: BaseModel = loaded(self.program, row["state_version"], row["state"])
        return state

    @property
    def memory(self) -> dict[str, Any]:
        """What it keeps beside its state."""
        rows = self._runner.run(self._unit.select("item", {"agent": NAME}, order=("key",)))
        return {row["key"]: orjson.loads(row["value"]) for row in rows}

    @property
    def alarms(self) -> dict[str, int]:
        """Its alarms, and in how many seconds each is due."""
        rows = self._runner.run(self._unit.select("alarm", {"agent": NAME}, order=("id",)))
        return {row["id"]: (row["due_ms"] - self.clock.ms) // 1_000 for row in rows}

    @property
    def dead(self) -> list[str]:
        """Why triggers were given up."""
        rows = self._runner.run(self._unit.select("inbox", {"agent": NAME, "state": "dead"}, order=("n",)))
        return [row["error"] for row in rows]

    # ---- how it is done

    def _noted(self) -> Tick:
        """Where what is sent now is noted."""
        return self._done

    async def _pass(self, until_ms: int) -> list[Tick]:
        done: list[Tick] = []
        for _ in range(_ENDLESS):
            self.clock.ms = max(self.clock.ms, min(until_ms, await self._next_ms(until_ms)))
            await self._alarms.look()
            done += (ticks := await self._work())
            if self.clock.ms >= until_ms and not ticks:
                return done
        raise InvalidInput(f"The agent had {_ENDLESS} ticks and is not done: let less time pass at once.")

    async def _next_ms(self, until_ms: int) -> int:
        """When something is due next."""
        times = [until_ms]
        times += [row["due_ms"] for row in await self._unit.select("alarm", order=("due_ms",), limit=1)]
        _, look_ms = await self._waiting.due(NAME, self.clock.ms)
        return min(times if look_ms is None else [*times, look_ms])

    async def _work(self) -> list[Tick]:
        """Ticks, until nothing is due."""
        done: list[Tick] = []
        lap = Lap(NAME)
        while rows := (await self._waiting.due(NAME, self.clock.ms))[0]:
            done.append(await self._tick(lap, rows[0]))
            (agent,) = await self._unit.select("agent", {"name": NAME})
            if agent["status"] not in LIVING or len(done) > _ENDLESS:
                break
        return done

    async def _tick(self, lap: Lap, row: Row) -> Tick:
        self._done = Tick(row["cause"])
        before = await self._unit.count("log", {"agent": NAME})
        await self._ticks.run(lap, row)
        said = (await self._unit.select("log", {"agent": NAME}, order=("n",)))[before:]
        (after,) = await self._unit.select("inbox", {"n": row["n"]})
        if after["state"] != DONE:
            self._done.error = after["error"]
        self._done.log = [(one["type"], orjson.loads(one["data"])) for one in said if one["type"] not in _OWN]
        return self._done
