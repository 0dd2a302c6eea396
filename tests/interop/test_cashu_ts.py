"""cashu-ts at the same mint as we: tokens and locks (NUT-11) both ways, and a nutzap (NIP-61) that NDK and it make."""

import asyncio
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


async def _wallet_key(town: Market) -> str:
    return str((await town.get("seller", "node/market/tips"))["pubkey"])


async def _theirs(town: Market, *locks: dict[str, object]) -> list[dict[str, Any]]:
    """Tokens of 32 sat that cashu-ts makes, locked so."""
    asked = json.dumps([{"sat": 32, **({"lock": lock} if lock else {})} for lock in locks])
    said = await _script("cashu_wallet.mjs", mint=town.mint, do="send", asked=asked)
    assert said["ok"], said
    made: list[dict[str, Any]] = said["made"]
    assert [one["secrets"][0].startswith('["P2PK"') for one in made] == [bool(lock) for lock in locks]
    return made


async def test_we_take_what_cashu_ts_makes_plain_locked_for_good_and_until_later(town: Market) -> None:
    ours, later = await _wallet_key(town), int(time.time()) + 3_600
    refund = {"refundKeys": [Key.generate().compressed]}
    locks: tuple[dict[str, object], ...] = (
        {},
        {"pubkey": ours},
        {"pubkey": ours, "locktime": later},
        {"pubkey": ours, "locktime": later, **refund},
    )
    for made, lock in zip(await _theirs(town, *locks), locks, strict=True):
        ran = await town.vendo("seller", "wallet", "receive", made["token"])
        assert ran.code == 0, (lock, ran.out, ran.err)
        assert ran.json["amount_sat"] + ran.json["fee_sat"] == 32


async def test_what_cashu_ts_locks_to_others_is_refused_with_the_reason(town: Market) -> None:
    ours, other = await _wallet_key(town), Key.generate().compressed
    locks: tuple[dict[str, object], ...] = ({"pubkey": other}, {"pubkey": [ours, other], "requiredSignatures": 2})
    for made in await _theirs(town, *locks):
        ran = await town.vendo("seller", "wallet", "receive", made["token"])
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


async def _offered(town: Market) -> str:
    """The seller's key, once it has said where nutzaps are taken."""
    seller = town.rings["seller"].node.pubkey

    async def said() -> bool:
        return any(one.kind == 10_019 and one.pubkey == seller for one in await town.events())

    await until(said, "where nutzaps are taken")
    return seller


async def _is_paid_by(town: Market, said: dict[str, Any]) -> None:
    """The facts after a customer's nutzap of 24 sat for a job of 21."""
    assert said["ok"], said
    assert (said["redeemed"], said["valid"]) == (True, True)
    found = await town.get("seller", "node/market/tips")
    tip = next(one for one in found["latest"] if one["id"] == said["nutzap"])
    assert (tip["sender"], tip["request_id"], tip["state"]) == (said["customer"], said["request"], "owed")
    assert tip["owed_msat"] == tip["net_msat"] - 21_000 > 0
    sales = await town.get("seller", "node/market/sales")
    sale = next(one for one in sales if one["request_id"] == said["request"])
    assert (sale["state"], sale["paid_by"], sale["earned_msat"]) == ("done", "credit", 21_000)
    audit = await town.vendo("seller", "wallet", "audit")
    assert audit.code == 0, audit.out


async def test_a_nutzap_of_ndk_and_cashu_ts_pays_for_its_senders_job(town: Market) -> None:
    said = await _script(
        "nutzap_customer.mjs", relay=town.relay, provider=await _offered(town), mint=town.mint, text="hello", sat=24
    )
    await _is_paid_by(town, said)
    assert said["result"] == "hello"


async def test_a_nutzap_that_came_while_our_node_was_killed_is_taken_when_it_is_up_again(town: Market) -> None:
    given: dict[str, object] = {"relay": town.relay, "provider": await _offered(town), "mint": town.mint}
    before = {one.id for one in await town.events()}
    customer = asyncio.ensure_future(_script("nutzap_customer.mjs", **given, text="meanwhile", sat=24, delay=3))

    async def there(kind: int) -> bool:
        assert not customer.done(), customer.result()
        return any(one.kind == kind and one.id not in before for one in await town.events())

    await until(lambda: there(7_000), "the quote")
    town.nodes["seller"].process.kill()
    await town.nodes["seller"].process.wait()
    town.children.remove(town.nodes.pop("seller"))
    await until(lambda: there(9_321), "the nutzap")
    await town.up("seller")
    said = await customer
    await _is_paid_by(town, said)
    assert said["result"] == "meanwhile"
