"""`vendo prepaid` between whole nodes, over a real relay and a real mint with its default fees (ADR 27)."""

from pathlib import Path

import pytest

from tests.market_part import PATIENT, Market, Spec, market, until

BUYS = {"prepaid_msat = 0": "prepaid_msat = 100000", "prepaid_after = 3": "prepaid_after = 1", **PATIENT}
ECHO_1 = '\n[[sell]]\nkind = 5050\nprice_msat = 1000\nprovider = "echo"\n'


async def bought(town: Market, text: str) -> dict:
    ran = await town.vendo("buyer", "buy", "--kind", "5050", "--input", text)
    assert ran.code == 0, ran

    async def closed() -> dict | None:
        shown = await town.get("buyer", f"node/compute/jobs/{ran.json['job_id']}/status")
        return shown if shown["closed"] else None

    return dict(await until(closed, "the job to close"))


async def becomes(town: Market, name: str, state: str) -> dict:
    async def there() -> dict | None:
        found = (await town.vendo(name, "prepaid", "list")).json
        return found[0] if found and found[0]["state"] == state else None

    return dict(await until(there, f"the deposit to be {state}"))


@pytest.mark.timeout(600)
async def test_a_deposit_is_opened_drawn_over_a_kill_and_closed(tmp_path: Path) -> None:
    sells = Spec(ECHO_1, replace={"deposit_max_msat = 0": "deposit_max_msat = 100000"})
    async with market(tmp_path, {"seller": sells, "buyer": Spec(replace=BUYS)}) as town:
        await town.fund("buyer", 200)
        seller = town.rings["seller"].node.npub
        early = await town.vendo("buyer", "prepaid", "open", seller, "30")
        assert (early.code, early.error_code) == (75, "prepaid.refused")
        assert (await bought(town, "first"))["method"] == "locked"
        opened = await town.vendo("buyer", "prepaid", "open", seller, "30", "--key", "one")
        assert opened.code == 0, opened
        again = await town.vendo("buyer", "prepaid", "open", seller, "30", "--key", "one")
        assert again.json["id"] == opened.json["id"]
        await becomes(town, "buyer", "open")
        shown = await bought(town, "second")
        assert (shown["method"], shown["cost_msat"], shown["fees_msat"]) == ("prepaid", 1_000, 0)
        town.nodes["buyer"].process.kill()
        await town.nodes["buyer"].process.wait()
        town.children.remove(town.nodes.pop("buyer"))
        await town.up("buyer")
        assert (await bought(town, "third"))["method"] == "prepaid"
        (theirs,) = (await town.vendo("seller", "prepaid")).json
        assert (theirs["side"], theirs["state"], theirs["drawn_msat"]) == ("seller", "open", 2_000)
        closing = await town.vendo("buyer", "prepaid", "close", opened.json["id"])
        assert closing.code == 0, closing
        row = await becomes(town, "buyer", "closed")
        assert (row["drawn_msat"], row["fault"]) == (2_000, None)
        assert row["returned_msat"] >= 24_000
        for name in ("buyer", "seller"):
            ran = await town.vendo(name, "wallet", "audit")
            assert ran.code == 0, ran
