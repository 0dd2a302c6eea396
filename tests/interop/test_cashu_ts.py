"""cashu-ts at the same mint as we: tokens and locks (NUT-11) both ways, and a nutzap (NIP-61) that NDK and it make."""

import json
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from relays.key import Key
from tests.market_part import Market, Spec, market, run, until

pytestmark = [pytest.mark.needs("node"), pytest.mark.asyncio(loop_scope="module")]
SCRIPTS = Path(__file__).parent / "node"
# No invoice in the quote: the test mint pays its invoices itself, and would be first.
ECHO_PAID = '\n[[sell]]\nkind = 5050\nprice_msat = 21000\nprovider = "echo"\ninvoice = "none"\n'
HANGS_S = 180.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    async with AsyncExitStack() as stack:
        folder = tmp_path_factory.mktemp("cashu")
        yield await stack.enter_async_context(market(folder, {"seller": Spec(ECHO_PAID)}))


async def _script(name: str, **options: object) -> dict[str, Any]:
    argv = [f"--{option}={value}" for option, value in ({"wait": 150} | options).items()]
    ran = await run("node", name, *argv, cwd=SCRIPTS, timeout=HANGS_S)
    assert ran.out, ran.err
    report: dict[str, Any] = json.loads(ran.out)
    return report


async def _theirs(town: Market, sat: int, **lock: object) -> dict[str, Any]:
    said = await _script("cashu_wallet.mjs", mint=town.mint, do="send", sat=sat, **lock)
    assert said["ok"], said
    return said


async def _wallet_key(town: Market) -> str:
    return str((await town.get("seller", "node/market/tips"))["pubkey"])


@pytest.mark.parametrize("lock", ["none", "for good", "until later", "until later with a refund"])
async def test_we_take_what_cashu_ts_makes(town: Market, lock: str) -> None:
    later: dict[str, object] = {"locktime": int(time.time()) + 3_600} if "later" in lock else {}
    refund: dict[str, object] = {"refund": Key.generate().compressed} if "refund" in lock else {}
    ours: dict[str, object] = {} if lock == "none" else {"pubkey": await _wallet_key(town)}
    said = await _theirs(town, 32, **ours, **later, **refund)
    assert all(secret.startswith('["P2PK"') for secret in said["secrets"]) == (lock != "none")
    ran = await town.vendo("seller", "wallet", "receive", said["token"])
    assert ran.code == 0, (ran.out, ran.err)
    assert ran.json["amount_sat"] + ran.json["fee_sat"] == 32


async def test_what_cashu_ts_locks_to_somebody_else_is_refused_with_the_reason(town: Market) -> None:
    said = await _theirs(town, 8, pubkey=Key.generate().compressed)
    ran = await town.vendo("seller", "wallet", "receive", said["token"])
    assert (ran.code != 0, ran.error_code) == (True, "token.lock")


@pytest.mark.parametrize("locked", [False, True])
async def test_cashu_ts_takes_what_we_make(town: Market, locked: bool) -> None:
    await town.fund("seller", 100)
    theirs = Key.generate()
    lock = ("--lock", theirs.compressed) if locked else ()
    made = await town.vendo("seller", "wallet", "send", "20", *lock)
    assert made.code == 0, (made.out, made.err)
    offered = {"mint": town.mint, "do": "receive", "token": made.json["token"]}
    if locked:
        thief = await _script("cashu_wallet.mjs", **offered, secret=Key.generate().secret.hex())
        assert not thief["ok"], "another key does not open it"
    said = await _script("cashu_wallet.mjs", **offered, **({"secret": theirs.secret.hex()} if locked else {}))
    assert said["ok"], said
    assert 0 < said["sat"] <= 20


async def test_a_nutzap_of_ndk_and_cashu_ts_pays_for_its_senders_job(town: Market) -> None:
    seller = town.rings["seller"].node.pubkey

    async def offered() -> bool:
        return any(one.kind == 10_019 and one.pubkey == seller for one in await town.events())

    await until(offered, "where nutzaps are taken")
    said = await _script(
        "nutzap_customer.mjs", relay=town.relay, provider=seller, mint=town.mint, text="hello nutzap", sat=24
    )
    assert said["ok"], said
    assert (said["result"], said["redeemed"], said["valid"]) == ("hello nutzap", True, True)
    found = await town.get("seller", "node/market/tips")
    tip = next(one for one in found["latest"] if one["id"] == said["nutzap"])
    assert (tip["sender"], tip["request_id"], tip["state"]) == (said["customer"], said["request"], "owed")
    assert tip["owed_msat"] == tip["net_msat"] - 21_000 > 0
    sales = await town.get("seller", "node/market/sales")
    sale = next(one for one in sales if one["request_id"] == said["request"])
    assert (sale["state"], sale["paid_by"], sale["earned_msat"]) == ("done", "credit", 21_000)
    audit = await town.vendo("seller", "wallet", "audit")
    assert audit.code == 0, audit.out
