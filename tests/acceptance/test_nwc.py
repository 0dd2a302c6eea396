"""A whole node at a Lightning wallet over NWC: paid, being paid, killed in between, and nothing secret in its log."""

import asyncio
import os
import signal
import time
from pathlib import Path

from bolt11 import decode

from tests.market_part import Market, Spec, market, until, vendo
from tests.nwc_part import Ledger, serving

NWC = {'nwc_file = ""': 'nwc_file = "wallet.nwc"'}


def connected(town: Market, uri: str, mode: int = 0o600) -> None:
    file = town.homes["node"] / "wallet.nwc"
    file.write_text(uri + "\n")
    file.chmod(mode)


async def test_a_node_pays_and_is_paid_over_lightning(tmp_path: Path) -> None:
    ledger = Ledger(time.time)
    async with (
        market(tmp_path, {"node": Spec(replace=NWC, start=False)}, mint=False) as town,
        serving(town.relay, ledger) as service,
    ):
        connected(town, service.uri, 0o644)
        refused = await vendo("up", "--home", str(town.homes["node"]))
        assert refused.code != 0
        assert "chmod 600" in refused.err
        connected(town, service.uri)
        await town.up("node")
        invoice = ledger.foreign(21_000)
        paid = (await town.vendo("node", "wallet", "pay", invoice, "--key", "one")).json
        assert (paid["state"], paid["amount"], paid["fee"]) == ("done", 21_000, 1_000)
        assert paid["preimage"] == ledger.preimages[decode(invoice).payment_hash]
        again = (await town.vendo("node", "wallet", "pay", invoice, "--key", "one")).json
        assert again["preimage"] == paid["preimage"]
        other = await town.vendo("node", "wallet", "pay", invoice, "--key", "two")
        assert other.error_code == "lightning.known"
        assert ledger.tried.total() == 1

        made = (await town.vendo("node", "wallet", "invoice", "7", "--note", "tea")).json
        ledger.receive(made["invoice"])

        async def settled() -> bool:
            return bool((await town.get("node", f"node/wallet/operations/{made['op_id']}"))["state"] == "done")

        await until(settled, "the invoice to be known as paid")
        balance = (await town.vendo("node", "wallet", "balance")).json["lightning"]
        assert (balance["balance_msat"], balance["problem"]) == (ledger.balance, "")
        audit = (await town.vendo("node", "wallet", "audit")).json
        assert audit["clean"], audit
        assert audit["lightning"]["journal"]["wallet"] == 7_000 - 22_000
        shown = (await town.vendo("node", "wallet", "lightning")).json
        assert {row["stage"] for row in shown["operations"]} == {"paid"}
        secret = service.client.secret_key().to_hex()
        assert secret not in town.log("node")
        ledger_text = await town.http.get(town.url("node", "node/ledger/entries"), headers=town.headers("node"))
        assert secret not in await ledger_text.text()


async def test_a_node_that_is_killed_while_it_pays_finds_out(tmp_path: Path) -> None:
    ledger = Ledger(time.time)
    async with (
        market(tmp_path, {"node": Spec(replace=NWC, start=False)}, mint=False) as town,
        serving(town.relay, ledger) as service,
    ):
        connected(town, service.uri)
        await town.up("node")
        ledger.knobs.drop = {"pay_invoice"}
        invoice = ledger.foreign(21_000)
        paying = asyncio.create_task(town.call("node", "node/wallet/lightning/pay", {"invoice": invoice}, "one"))

        async def tried() -> bool:
            return ledger.tried.total() == 1

        await until(tried, "the wallet to pay")
        child = town.nodes.pop("node")
        os.kill(child.process.pid, signal.SIGKILL)
        await asyncio.gather(paying, return_exceptions=True)
        await child.process.wait()
        await town.up("node")
        told = await town.vendo("node", "wallet", "pay", invoice, "--key", "one")
        assert told.json["state"] == "done", told
        assert ledger.tried.total() == ledger.paid.total() == 1
        assert (await town.vendo("node", "wallet", "audit")).json["clean"]
