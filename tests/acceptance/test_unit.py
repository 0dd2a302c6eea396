"""An owner holds dollars at a real mint: in, as a token, out over Lightning, and back from the words."""

import shutil
from collections.abc import AsyncIterator

import pytest

from node import home
from tests.lightning_part import MSAT_PER, Network, lightning_mint
from tests.market_part import Market, Spec, market, vendo
from tests.mint_part import also


@pytest.fixture
async def town(tmp_path) -> AsyncIterator[tuple[Market, Network]]:
    async with (
        lightning_mint(tmp_path / "lightning", extra=also("usd", backend="TrueWallet")) as (url, network),
        market(tmp_path / "town", {"owner": Spec(mints=[url])}, mint=False) as made,
    ):
        yield made, network


async def held(made: Market, name: str) -> dict[str, int]:
    answer = await made.vendo(name, "wallet", "balance")
    return {one["unit"]: one["live"] + one["reserved"] + one["locked"] for one in answer.json["balances"]}


async def test_dollars_are_held_beside_sat_and_found_again(town, tmp_path):
    made, network = town
    shown = (await made.vendo("owner", "wallet", "mints")).json
    assert [unit["unit"] for unit in shown[0]["units"]] == ["sat", "usd"]
    sat = await made.vendo("owner", "wallet", "deposit", "1000", "--wait", "60")
    usd = await made.vendo("owner", "wallet", "deposit", "500", "--unit", "usd", "--wait", "60")
    assert (sat.json["state"], usd.json["state"], usd.json["price_msat"]) == ("done", "done", 500 * MSAT_PER["usd"])
    sent = await made.vendo("owner", "wallet", "send", "120", "--unit", "usd")
    got = await made.vendo("owner", "wallet", "receive", sent.json["token"])
    assert (got.code, got.json["unit"], got.json["amount"] + got.json["fee"]) == (0, "usd", 120)

    bill = network.invoice(100 * MSAT_PER["usd"])
    dear = await made.vendo("owner", "wallet", "withdraw", bill, "--unit", "usd", "--most", "100")
    assert (dear.code, dear.error_code) == (77, "wallet.too_dear")
    paid = await made.vendo("owner", "wallet", "withdraw", bill, "--unit", "usd", "--most", "110")
    assert (paid.code, paid.json["amount"]) == (0, 100)
    audit = (await made.vendo("owner", "wallet", "audit")).json
    assert (audit["clean"], audit["open_operations"]) == (True, 0)
    before = await held(made, "owner")
    assert before["sat"] == 1000

    await made.nodes["owner"].kill()
    made.children.remove(made.nodes.pop("owner"))
    shutil.rmtree(made.homes["owner"])
    words = tmp_path / "words"
    words.write_text(made.rings["owner"].words)
    fresh = await vendo(
        "init", "--home", str(tmp_path / "again"), "--relay", made.relay,
        "--port", "0", "--words", str(words), "--yes", "--no-passphrase", "--json",
    )  # fmt: skip
    assert fresh.code == 0, fresh.err
    made.homes["again"], made.rings["again"] = tmp_path / "again", home.open_keyring(tmp_path / "again")
    await made.up("again")
    found = (await made.vendo("again", "wallet", "restore")).json
    assert {one["unit"]: one["amount"] for one in found["restored"]} == before
    assert await held(made, "again") == before
