"""`vendo sell` against a real node, relay and mint: put up for sale while it runs, bought, priced, earned, stopped."""

from pathlib import Path
from typing import Any

import pytest

from relays.kind import HANDLER
from relays.nip89 import read_announcement
from tests.market_part import PATIENT, Market, Spec, market, until

TEXT = " ".join(f"This is sentence {n} of a text that is to be made shorter by somebody." for n in range(6))


async def _prices(town: Market) -> dict[int, int]:
    """What the seller's newest announcement says."""
    own = [one for one in await town.events() if one.kind == HANDLER and one.pubkey == town.rings["seller"].node.pubkey]
    newest = max(own, key=lambda one: one.created_at, default=None)
    return {} if newest is None else {kind: price.value for kind, price in read_announcement(newest).prices.items()}


async def _buy(town: Market, text: str) -> dict[str, Any]:
    ran = await town.vendo("buyer", "buy", "--kind", "5001", "--input", text)
    assert ran.code == 0, ran
    return dict(ran.json)


@pytest.mark.timeout(300)
async def test_a_kind_is_sold_priced_earned_and_stopped_while_the_node_runs(tmp_path: Path) -> None:
    async with market(tmp_path, {"seller": Spec(), "buyer": Spec(replace=PATIENT)}) as town:
        await town.fund("buyer", 500)
        started = await town.vendo("seller", "sell", "start", "5001", "--price", "21sat", "--eta", "5")
        assert (started.code, started.json["price_msat"], started.json["provider"]) == (0, 21_000, "summarizer")
        await until(lambda: _announces(town, {5001: 21_000}), "the announcement")
        assert (await _buy(town, TEXT))["paid_msat"] == 21_000

        again = await town.vendo("seller", "sell", "start", "5001", "--price", "9sat")
        assert (again.code, again.error_code) == (75, "dvm.kind_sold")
        priced = await town.vendo("seller", "sell", "price", "5001", "--price", "0.013usd", "--max", "0.0065usd")
        assert (priced.code, priced.json["unit"], priced.json["price_msat"]) == (0, "uusd", None)
        await until(lambda: _announces(town, {}), "the announcement of a price in dollars")
        assert await town.down("seller") == 0
        await town.up("seller")
        assert (await _buy(town, TEXT + " Once more."))["paid_msat"] == 10_000, "65,000 dollars a bitcoin"

        async def earned() -> bool:
            ran = await town.vendo("seller", "sell", "earnings", "--since", "2026-01-01")
            return [(row["kind"], row["sales"], row["earned_msat"]) for row in ran.json] == [(5001, 2, 31_000)]

        await until(earned, "both payments to be claimed")
        stopped = await town.vendo("seller", "sell", "stop", "5001")
        assert (stopped.code, stopped.json["state"]) == (0, "stopped")
        assert (await town.vendo("seller", "sell")).json["services"] == []
        gone = await town.vendo("seller", "sell", "pause", "5001")
        assert (gone.code, gone.error_code) == (65, "fs.not_found")


async def _announces(town: Market, prices: dict[int, int]) -> bool:
    return await _prices(town) == prices
