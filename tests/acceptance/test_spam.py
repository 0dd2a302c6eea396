"""Strangers ask with fresh keys, half of them without the work that is asked for, while paid jobs run."""

from pathlib import Path

from bench.spam import town, trap, window
from tests.market_part import until


async def test_paid_jobs_are_done_among_strangers_and_nothing_is_fetched_for_those(tmp_path: Path) -> None:
    async with trap() as (bait, came), town(tmp_path) as opened:
        found = await window(opened, "stream", 240, 40, 3, bait)
        assert found.failed == 0
        assert len(found.took) >= 3
        assert found.sent == 240
        served = [one for one in await opened.events() if one.kind == 6050]
        assert found.dropped["pow"] == 120, "those with too little work"
        assert found.dropped["declined"] == 60, "addresses"
        assert len(served) == 60, "those with work enough, and a text"
        assert came == []
        assert found.grown_mb < 40
        numbers = opened.nodes["seller"].said["control"] + "/metrics"
        async with opened.http.get(numbers, headers=opened.headers("seller")) as answer:
            assert 'vendo_sell_dropped_total{reason="pow"} 120' in await answer.text()

        async def ended() -> bool:
            return not (await opened.get("seller", "node/sell/status"))["open"]

        await until(ended, "the last payment to be claimed")
