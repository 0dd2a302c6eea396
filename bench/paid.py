"""What the nodes add to a paid job: whole jobs between two nodes, beside what their mint works on for them.

The mint is a real one with fees, and writes down when it worked. A job's time counts from the call to the delivery;
what is left of it when the mint's own time is taken off is the nodes' and their relay's. Jobs in flight at once are
compared with the same swaps alone, made at the same mint in the same run.
"""

import asyncio
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench.paid_floor import MESSAGES, STEPS, messages_ms, steps_ms
from bench.swapper import Swapper
from bench.target import Section, Target, quantile, ratio
from bench.timed_mint import SPANS
from tests.market_part import PATIENT, Market, Spec, market, until
from tests.mint_part import running_mint

PRICE_SAT, JOBS, AT_ONCE = 21, 25, 20
MAX_OVER_MS = {"locked": 15.0, "atomic": 25.0}
MAX_AT_ONCE = 2.0
FUNDS = 8_000
LOOK_S = 0.3  # the node writes down when it had a result; asking it all the time would be part of what is measured
SELL = f'\n[[sell]]\nkind = 5050\nprice_msat = {1000 * PRICE_SAT}\nprovider = "echo"\nmax_parallel = 64\n'
ATOMIC = {"atomic = false": "atomic = true"}
UNBOUNDED = {'per_day_usd = "1.00"': 'per_day_usd = "1000"', 'per_seller_usd = "0.50"': 'per_seller_usd = "1000"'}
ENDED = ("delivered", "failed", "cancelled")
Say = Callable[[str], None]
Span = tuple[str, float, float]


@dataclass(slots=True)
class Found:
    """Times of whole jobs, of the mint's work in them, and of the rest, in ms."""

    took: list[float] = field(default_factory=list)
    mint: list[float] = field(default_factory=list)
    rest: list[float] = field(default_factory=list)
    failed: int = 0


def spans(file: Path) -> list[Span]:
    """When the mint worked, on what."""
    return [(path, began, ended) for path, began, ended in map(json.loads, file.read_text("utf-8").splitlines())]


def covered(worked: Sequence[Span], began: float, ended: float) -> float:
    """How much of that time the mint was at work, in seconds; what it does at once counts once."""
    total, reached = 0.0, began
    for _, start, end in sorted(worked, key=lambda one: one[1]):
        start, end = max(start, reached), min(end, ended)
        if end > start:
            total, reached = total + end - start, end
    return total


async def job(town: Market, name: str) -> tuple[float, float, dict[str, Any]]:
    """Buy one: when it was asked for, when the buyer had the result, and how it ended."""
    began = time.time()
    status, answer = await town.call("buyer", "node/compute/new", {"kind": 5050, "input": f"text {name}"}, name)
    if status >= 300:
        raise RuntimeError(f"the buyer refused: {answer}")
    limit = time.time() + 120
    while time.time() < limit:
        view = await town.get("buyer", f"node/compute/jobs/{answer['job_id']}/status")
        if view["state"] in ENDED:
            at_ms = [one["at_ms"] for one in view["events"] if one["word"] == view["state"]]
            return began, (at_ms[0] / 1e3 if at_ms else time.time()), view
        await asyncio.sleep(LOOK_S)
    return began, time.time(), {"state": "late"}


async def one_by_one(town: Market, file: Path, method: str, jobs: int) -> Found:
    """Jobs that come one after the other; each is over for both sides before the next."""
    found = Found()
    for number in range(jobs):
        began, ended, view = await job(town, f"{method}-{number}")
        await _rest(town)
        if view["state"] != "delivered" or view.get("method") != method:
            found.failed += 1
            continue
        mint = covered(spans(file), began, ended)
        found.took.append(1e3 * (ended - began))
        found.mint.append(1e3 * mint)
        found.rest.append(1e3 * (ended - began - mint))
    return found


async def _rest(town: Market) -> None:
    async def quiet() -> bool:
        return not (await town.get("seller", "node/sell/status"))["open"]

    await until(quiet, "the seller to have claimed")


async def at_once(town: Market, http: aiohttp.ClientSession, jobs: int, rounds: int) -> tuple[list[float], list[float]]:
    """As many paid jobs at once, until the seller has all of its money, and their swaps alone: ms of each round."""
    whole, alone = [], []
    swapper = Swapper(http, town.mint)
    for number in range(rounds):
        alone.append(await swapper.settle_all(await swapper.prepare(jobs, PRICE_SAT)))
        began = time.time()
        ran = await asyncio.gather(*(job(town, f"together-{number}-{n}") for n in range(jobs)))
        if any(view["state"] != "delivered" for _, _, view in ran):
            raise RuntimeError("a paid job was lost")
        whole.append(1e3 * (max(ended for _, ended, _ in ran) - began))
        await _rest(town)
    return whole, alone


def _row(name: str, found: Found) -> dict[str, Any]:
    row: dict[str, Any] = {"jobs": name, "done": len(found.took), "failed": found.failed}
    for word, values in (("job", found.took), ("mint", found.mint), ("rest", found.rest)):
        row[f"{word} p50 ms"] = round(quantile(values, 0.5), 1) if values else 0.0
    row["rest p99 ms"] = round(quantile(found.rest, 0.99), 1) if found.rest else 0.0
    return row


def _specs(mint: str, method: str) -> dict[str, Spec]:
    change = {**PATIENT, **UNBOUNDED, **(ATOMIC if method == "atomic" else {})}
    return {
        "seller": Spec(SELL, replace=change, mints=[mint]),
        "buyer": Spec(replace=change, mints=[mint]),
    }


async def _measured(folder: Path, method: str, rounds: int, section: Section, say: Say) -> None:
    file = folder / "spans"
    file.touch()
    async with (
        running_mint(folder, script=Path(__file__).with_name("timed_mint.py"), extra={SPANS: str(file)}) as mint,
        market(folder, _specs(mint, method), mint=False) as town,
    ):
        town.mint = mint
        await town.fund("buyer", FUNDS)
        if method == "atomic":
            await _proven(town)
        await one_by_one(town, file, method, 3)  # first statements, first connections: not what is measured
        say(f"{method}, one by one")
        found = await one_by_one(town, file, method, JOBS)
        section.rows.append(_row(method, found))
        over = quantile(found.rest, 0.5) if found.rest else None
        section.targets.append(
            Target(f"{method}: a job's p50 beside the mint's work", MAX_OVER_MS[method],
                   None if over is None else round(over, 1), at_least=False, unit=" ms")
        )  # fmt: skip
        section.targets.append(Target(f"{method}: jobs lost", 0, found.failed, at_least=False, unit=""))
        words, rows = await messages_ms(town.relay), steps_ms(folder)
        section.notes.append(
            f"{method}: {MESSAGES} messages between bare clients of the same relay took {words:.1f} ms, {STEPS} rows "
            f"made durable on the same disk {rows:.1f} ms: what the nodes add is "
            f"{ratio(over, words + rows)} times that"
        )
        if method == "locked":
            say(f"{AT_ONCE} at once")
            whole, alone = await at_once(town, town.http, AT_ONCE, rounds)
            section.notes.append(
                f"{AT_ONCE} jobs at once took {sorted(map(round, whole))} ms, their swaps alone "
                f"{sorted(map(round, alone))} ms"
            )
            section.targets.append(
                Target(f"{AT_ONCE} jobs at once / their swaps alone", MAX_AT_ONCE,
                       ratio(quantile(whole, 0.5), quantile(alone, 0.5)), at_least=False)
            )  # fmt: skip


async def _proven(town: Market) -> None:
    await town.fund("seller", 200)
    for name in ("buyer", "seller"):

        async def proven(name: str = name) -> bool:
            return all(one["proven"] for one in await town.get(name, "node/wallet/mints"))

        await until(proven, f"the mint to be tried by {name}")


async def run(rounds: int, folder: Path, say: Say) -> list[Section]:
    """Jobs paid by locked ecash and by money for the key."""
    section = Section("Paid jobs: what the nodes add to their mint's work")
    for method in MAX_OVER_MS:
        place = folder / method
        place.mkdir()
        await _measured(place, method, rounds, section, say)
    return [section]
