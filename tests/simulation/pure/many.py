"""Many histories over several processes, and the floor that their speed is compared with."""

import gc
import heapq
import multiprocessing
import time
from functools import partial

from tests.simulation.pure.play import Played, survey
from tests.simulation.pure.plot import large, plot
from tests.simulation.pure.world import Coverage

CHUNK = 500
FLOOR = 200_000


def floor() -> float:
    """Events a second (of processor time) of a loop that does nothing but keep a heap of as many as a history has."""
    heap: list[tuple[int, int, None]] = [(number, number, None) for number in range(30)]
    began = time.process_time()
    for number in range(FLOOR):
        when, _, _ = heapq.heappop(heap)
        heapq.heappush(heap, (when + 7, number, None))
    return FLOOR / (time.process_time() - began)


def chunk(first: int, count: int, nodes: int = 0) -> tuple[Coverage, list[Played], float]:
    """So many histories from a seed on, in one process."""
    gc.freeze()
    gc.set_threshold(20_000, 20, 50)
    coverage = Coverage()
    began = time.process_time()
    failed = survey(range(first, first + count), coverage, partial(large, nodes=nodes) if nodes else plot)
    return coverage, failed, time.process_time() - began


def many(histories: int, first: int, workers: int, big: int, nodes: int) -> tuple[Coverage, list[Played], float, float]:
    """All of it, over the workers."""
    total, failed, cpu = Coverage(), [], 0.0
    began = time.monotonic()
    tasks = [(first + at, min(CHUNK, histories - at)) for at in range(0, histories, CHUNK)]
    tasks_big = [(first + at, 1, nodes) for at in range(big)]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        for coverage, broken, took in pool.imap_unordered(_spread, [*tasks_big, *tasks]):
            total.add(coverage)
            failed += broken
            cpu += took
    return total, failed, cpu, time.monotonic() - began


def _spread(task: tuple[int, ...]) -> tuple[Coverage, list[Played], float]:
    return chunk(*task)
