"""A node's owner pays Lightning invoices at a real mint, by the command and over HTTP."""

import hashlib
from collections.abc import AsyncIterator

import pytest
from bolt11 import decode

from tests.lightning_part import FAILED, PENDING, SETTLED, Network, lightning_mint
from tests.market_part import Market, Spec, market


@pytest.fixture
async def town(tmp_path) -> AsyncIterator[tuple[Market, Network]]:
    async with (
        lightning_mint(tmp_path / "lightning") as (url, network),
        market(tmp_path / "town", {"payer": Spec(mints=[url])}, mint=False) as made,
    ):
        deposit = await made.vendo("payer", "wallet", "deposit", "1000", "--wait", "60")
        assert deposit.json["state"] == "done"
        yield made, network


def proves(preimage: str, text: str) -> bool:
    return hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == decode(text).payment_hash


async def test_an_owner_pays_invoices_and_is_told_the_truth_of_each(town):
    made, network = town
    text = network.invoice(100_000)
    _, plan = await made.call("payer", "node/wallet/prepare", {"invoice": text}, "prepare")
    paid = await made.vendo("payer", "wallet", "withdraw", f"lightning:{text.upper()}", "--key", "one")
    assert (paid.code, paid.json["amount_sat"]) == (0, 100)
    assert 0 < paid.json["fee_sat"] <= plan["max_fee_sat"]
    assert proves(paid.json["preimage"], text)
    again = await made.vendo("payer", "wallet", "withdraw", text, "--key", "one")
    assert (again.code, again.json["preimage"], again.json["op_id"]) == (0, paid.json["preimage"], paid.json["op_id"])
    assert network.tried(text) == 1

    # What fails is refused, and costs nothing.
    before = await made.balance("payer")
    failed = await made.vendo("payer", "wallet", "withdraw", network.invoice(50_000, FAILED))
    assert (failed.code, failed.error_code) == (75, "wallet.mint_refused")
    dear = await made.vendo("payer", "wallet", "withdraw", network.invoice(50_000), "--max-fee", "0")
    assert (dear.code, dear.error_code) == (77, "wallet.too_dear")
    none = await made.vendo("payer", "wallet", "withdraw", "lnbc1x")
    assert (none.code, none.error_code) == (64, "wallet.invoice_unfit")
    assert await made.balance("payer") == before

    # What is under way is unknown, survives the node, and ends as it goes.
    slow = network.invoice(100_000, PENDING)
    doubt = await made.vendo("payer", "wallet", "withdraw", slow, "--key", "slow")
    assert (doubt.code, doubt.error_code) == (75, "wallet.unknown")
    audit = (await made.vendo("payer", "wallet", "audit")).json
    assert (audit["clean"], audit["pending_sat"], audit["open_operations"]) == (True, 100, 1)
    await made.nodes["payer"].kill()
    await made.up("payer")
    network.ends(slow, SETTLED)
    done = await made.vendo("payer", "wallet", "withdraw", slow, "--key", "slow", "--wait", "60")
    assert (done.code, proves(done.json["preimage"], slow)) == (0, True)
    assert network.tried(slow) == 1
    audit = (await made.vendo("payer", "wallet", "audit")).json
    assert (audit["clean"], audit["pending_sat"], audit["open_operations"]) == (True, 0, 0)
    assert (await made.vendo("payer", "ledger", "verify")).code == 0
