"""`vendo prepaid` between whole nodes, over a real relay and a real mint with its default fees (ADR 27)."""

import shutil
import time
from pathlib import Path

import pytest

from cli.demo.wire import watching
from dvm import prepaid
from relays.nip17 import wrap
from tests.market_part import PATIENT, Market, Spec, market, until, vendo

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


@pytest.mark.timeout(600)
async def test_the_rest_of_a_deposit_reaches_a_buyer_that_was_made_again_from_its_words(tmp_path: Path) -> None:
    sells = Spec(ECHO_1, replace={"deposit_max_msat = 0": "deposit_max_msat = 100000"})
    async with market(tmp_path, {"seller": sells, "buyer": Spec(replace=BUYS)}) as town:
        await town.fund("buyer", 200)
        await bought(town, "first")
        ring = town.rings["buyer"]
        opened = await town.vendo("buyer", "prepaid", "open", town.rings["seller"].node.npub, "30", "--key", "one")
        assert opened.code == 0, opened
        await becomes(town, "buyer", "open")
        assert (await bought(town, "drawn"))["method"] == "prepaid"
        free = (await town.balance("buyer"))["live"]
        await town.nodes["buyer"].kill()
        town.children.remove(town.nodes.pop("buyer"))
        await _says_that_it_is_closed(town, opened.json["id"])
        row = await becomes(town, "seller", "closed")
        shutil.rmtree(town.homes["buyer"])

        words = tmp_path / "words"
        words.write_text(ring.words)
        made = await vendo(
            "init", "--home", str(tmp_path / "again"), "--relay", town.relay, "--mint", town.mint,
            "--port", "0", "--words", str(words), "--yes", "--no-passphrase", "--json",
        )  # fmt: skip
        assert made.code == 0, made
        town.homes["again"], town.rings["again"] = tmp_path / "again", ring
        await town.up("again")
        restored = await town.vendo("again", "wallet", "restore")
        assert restored.code == 0, restored

        async def back() -> bool:
            return (await town.balance("again"))["live"] > free

        await until(back, "the rest", timeout=120)
        rest = (await town.balance("again"))["live"] - free
        assert row["returned_msat"] // 1_000 - 3 <= rest <= row["returned_msat"] // 1_000
        audit = await town.vendo("again", "wallet", "audit")
        assert audit.code == 0, audit


async def _says_that_it_is_closed(town: Market, deposit: str) -> None:
    """What the buyer would have said next, in its name."""
    key, seller = town.rings["buyer"].node, town.rings["seller"].node.pubkey
    async with watching(town.http, town.relay) as wire:
        said = prepaid.message(prepaid.CLOSE, seller, deposit, int(time.time()), ("seq", "1"))
        await wire.publish(wrap(key, seller, said))
