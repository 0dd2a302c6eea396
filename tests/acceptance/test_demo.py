"""`vendo demo` is the product's promise in one command: real parts, checked from outside, every fact true."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.market_part import Ran, run

VENDO = Path(sys.executable).parent / "vendo"
LIMIT_S = 120.0  # beside other tests; alone it takes a third of a minute


async def _demo(*options: str) -> tuple[Ran, dict[str, Any], float]:
    begun = time.monotonic()
    ran = await run(str(VENDO), "demo", "--json", *options, timeout=LIMIT_S + 30)
    took = time.monotonic() - begun
    lines = ran.out.strip().splitlines()
    assert len(lines) == 1, (
        f"standard output holds one JSON object and nothing else: {ran.out[:2000]} {ran.err[-2000:]}"
    )
    return ran, json.loads(lines[0]), took


def _check(ran: Ran, report: dict[str, Any], took: float) -> None:
    untrue = [name for name, good in report.get("facts", {}).items() if good is not True]
    assert not untrue, (untrue, report)
    assert report["facts"], "no facts were checked"
    assert report["ok"] is True
    assert ran.code == 0, ran.err
    assert took < LIMIT_S


@pytest.mark.timeout(300)
async def test_an_agent_buys_real_work_and_every_fact_holds() -> None:
    ran, report, took = await _demo()
    _check(ran, report, took)
    summary, work, fallback = report["jobs"]
    assert summary["chosen"] == min(summary["quotes"], key=lambda quote: quote["amount_msat"])["seller"]
    assert work["chosen"] == min(work["quotes"], key=lambda quote: quote["amount_msat"])["seller"]
    assert len(summary["quotes"]) == len(work["quotes"]) == 2
    for job in (summary, work):
        assert 0 < job["paid_msat"] <= job["paid_msat"] + job["fees_msat"] <= job["reserved_msat"]
    assert fallback["chosen"] == "built-in"
    assert fallback["paid_msat"] == fallback["fees_msat"] == 0
    assert len(set(report["processes"].values())) == len(report["processes"]) >= 6, "each part is its own process"


@pytest.mark.timeout(300)
async def test_a_buyer_killed_after_it_paid_ends_the_job_and_has_paid_once() -> None:
    ran, report, took = await _demo("--crash")
    _check(ran, report, took)
    assert report["crash"]["killed_pid"] != report["crash"]["restarted_pid"]
    assert report["facts"]["conserved"]
