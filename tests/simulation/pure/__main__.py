"""`python -m tests.simulation.pure`: many histories, or one with its story (`make simulate`)."""

import argparse
import sys

from tests.simulation.pure.cover import strays, zeros
from tests.simulation.pure.many import floor, many
from tests.simulation.pure.play import Played, play, recording, shrink
from tests.simulation.pure.plot import large, plot
from tests.simulation.pure.world import Coverage


def _say(*lines: object) -> None:
    sys.stdout.write("\n".join(map(str, lines)) + "\n")


def _one(seed: int, nodes: int, shrinks: bool) -> int:
    """Tell the story of one history; if it breaks a rule, of the shortest that still does."""
    script = large(seed, nodes) if nodes else plot(seed)
    with recording(Coverage()):
        played = play(script, Coverage(), tells=True)
    if played.breaches and shrinks:
        script = shrink(script, played.breaches[0][0])
        with recording(Coverage()):
            played = play(script, Coverage(), tells=True)
    _say(script, *played.story, f"{played.events} events")
    for rule, text in played.breaches:
        _say(f"{rule} is broken: {text}")
    return bool(played.breaches)


def _told(failed: list[Played]) -> None:
    for played in failed[:5]:
        script = shrink(played.plot, played.breaches[0][0])
        _say(f"seed {played.plot.seed}: {played.breaches[:3]}\n  still broken by {script}")
        _say(f"  the story: python -m tests.simulation.pure --seed {played.plot.seed}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate ARGS=...", description=__doc__)
    parser.add_argument("--seed", type=int, help="play this history alone, and tell its story")
    parser.add_argument("--whole", action="store_true", help="with --seed: do not shrink it")
    parser.add_argument("--histories", type=int, default=100_000)
    parser.add_argument("--large", type=int, default=20, help="histories with many nodes")
    parser.add_argument("--nodes", type=int, default=2_000, help="nodes of a large history")
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    if asked.seed is not None:
        return _one(asked.seed, asked.nodes if asked.large == 1 else 0, not asked.whole)
    least = floor()
    total, failed, cpu, wall = many(asked.histories, asked.first, asked.workers, asked.large, asked.nodes)
    rate = total.events / cpu
    _say(
        total.report(),
        f"{total.histories} histories from seed {asked.first} ({asked.large} of them with {asked.nodes} nodes), "
        f"{total.events} events ({total.events / total.histories:.1f} each), {sum(total.crashes.values())} crashes",
        f"{wall:.0f} s with {asked.workers} workers; {rate:,.0f} events per second of one core's time, "
        f"1/{least / rate:.0f} of a loop over an empty heap ({least:,.0f})",
    )
    _told(failed)
    missing, wrong = zeros(total), strays(total)
    for name in missing:
        _say(f"never met: {name}")
    for name in wrong:
        _say(f"met, though it is said that it cannot be: {name}")
    _say("every rule held" if not failed else f"{len(failed)} histories broke a rule")
    return bool(failed or wrong or (missing and asked.histories >= 10_000))


if __name__ == "__main__":
    sys.exit(main())
