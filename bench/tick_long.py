"""What many rows cost a node: a million messages, and an agent with a long life."""

import shutil
from collections.abc import Callable
from pathlib import Path

from bench.process import Children
from bench.target import Section, Target, ratio
from bench.tick_floor import Ground

AGENTS = 1_000
MANY, FEWER, HISTORY = 1_000_000, 100_000, 100_000
_CHILD_S = 3_600.0
Say = Callable[[str], None]


async def section(ground: Ground, kind: str, folder: Path, say: Say, less: int) -> Section:
    """What many rows cost: a million messages, and an agent with a long life; each in a process of its own."""
    found = Section(f"Long inboxes and long lives on {ground.name}, through the whole engine")
    asked = [(FEWER // less, AGENTS), (MANY // less, AGENTS), (HISTORY // less, 1)]
    said = []
    async with Children(folder) as children:
        for number, (count, agents) in enumerate(asked):
            say(f"{ground.name}: {count:,} messages for {agents:,} agents")
            place = folder / f"drain-{number}"
            place.mkdir()
            argv = ("bench.tick_drain", kind, str(place), str(count), str(agents))
            said.append((await children.start(f"drain-{number}", *argv, start_s=_CHILD_S)).said)
            shutil.rmtree(place)
    found.rows = [
        {
            "messages": count, "agents": agents, "enqueued/s": one["enqueued_per_s"], "drained/s": one["drained_per_s"],
            "both/s": one["both_per_s"], "MiB before": one["before_mib"],
            "in its first tenth": one["early_mib"], "at most": one["most_mib"],
            "first ticks µs": one["early_us"], "last ticks µs": one["late_us"], "lost": one["lost"],
            "durable": ground.short,
        }
        for (count, agents), one in zip(asked, said, strict=True)
    ]  # fmt: skip
    fewer, many, life = said
    found.targets = [
        Target(
            f"messages enqueued and drained a second at {MANY // less:,} rows, of those at {FEWER // less:,}", 0.8,
            ratio(many["both_per_s"], fewer["both_per_s"]),
        ),
        Target(
            f"memory at {MANY // less:,} rows, more than at {FEWER // less:,}", 16,
            round(many["most_mib"] - fewer["most_mib"], 1), at_least=False, unit=" MiB",
        ),
        Target(
            f"tick {HISTORY // less:,} of an agent, p50 of 1,000, of those of a new one beside it", 1.2,
            ratio(life["late_us"], life["early_us"]), at_least=False,
        ),
        Target("messages lost or dealt with twice", 0, sum(abs(one["lost"]) for one in said), at_least=False, unit=""),
    ]  # fmt: skip
    parts = [ratio(many[part], fewer[part]) for part in ("enqueued_per_s", "drained_per_s")]
    found.notes = [
        f"{ground.durability}; the same for every line.",
        f"Of the first target, its parts: enqueued alone {parts[0]}, drained alone {parts[1]}.",
        "The agent with the long life gets each message when the one before was dealt with; what counts as its first "
        "ticks are those of a new agent in a new database, in turns with its last.",
    ]
    return found
