"""A free service under plain customers who know nothing of us: each gets one right, signed answer."""

from pathlib import Path

from bench.load import measure
from tests.market_part import ECHO_FREE, market


async def test_sixteen_plain_customers_at_once_each_get_one_right_answer(tmp_path: Path) -> None:
    async with market(tmp_path, {"seller": ECHO_FREE}, mint=False) as town:
        load = await measure(town.relay, town.rings["seller"].node.pubkey, customers=16, jobs=160)
        assert load.good, load
        assert not load.faults
        assert await town.down("seller") == 0, town.log("seller")
