"""Everything of a lost node is found again from its words and a relay alone: coins, locked payments, deposits."""

import asyncio
import shutil
import sqlite3
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from core.clock import SystemClock
from core.effect import Permit
from core.identifier import EffectId
from core.money import Msat
from node import home
from node.storage.chain import unsigned_seal
from node.storage.database import open_database
from relays.key import Key
from tests.market_part import Market, Spec, market, until, vendo
from tests.mint_part import running_mint
from wallet.cashu.mint import MintClient
from wallet.memo import is_memo, open_event
from wallet.model import Locked, LockTerms
from wallet.payment import Kind
from wallet.wallet import Wallet

CLOCK = SystemClock()
EFFECT = EffectId("effect")
UNPAID = {"FAKEWALLET_BRR": "false", "MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT": "0"}
LOCK_S = 12


def pay(folder: Path, invoice: str) -> None:
    """Somebody pays a mint's invoice: this mint's Lightning is made up, and so is that it was paid."""
    (file,) = folder.glob("mint-*/db/*.sqlite3")
    with sqlite3.connect(file, timeout=30) as rows:
        done = rows.execute(
            "UPDATE mint_quotes SET state = 'PAID', paid_time = created_time, amount_paid = amount WHERE request = ?",
            (invoice,),
        )
        assert done.rowcount == 1


async def invoice_at(town: Market, name: str, mint: str, sat: int) -> str:
    status, answer = await town.call(name, "node/wallet/deposit", {"sat": sat, "mint": mint}, f"{mint}-{sat}")
    assert status < 300, answer
    return str(answer["invoice"])


async def locked_away(town: Market, name: str, mint: str, sat: int) -> Locked:
    """The node, while it is down, locks a payment to somebody who will never take it."""
    ring = town.rings[name]
    async with AsyncExitStack() as stack:
        http = await stack.enter_async_context(aiohttp.ClientSession())
        database = await open_database(town.homes[name] / "node.db", seal=unsigned_seal, clock=CLOCK)
        stack.push_async_callback(database.aclose)
        client = MintClient(mint, http, lambda _: None)
        wallet = Wallet(database, ring, CLOCK, lambda _: None, [client], permit_for=Permit)
        terms = LockTerms(mint, Msat.of_sat(sat), Key.generate().compressed, CLOCK.now() + LOCK_S, quote_id="quote")
        return await wallet.lock("a lock", terms, Msat.of_sat(sat + 20), EFFECT, Permit(EFFECT))


async def told(town: Market, name: str) -> set[Kind]:
    """What kinds of operations the relay's memo of a node names."""
    key = town.rings[name].node
    chunks = [open_event(one, key) for one in await town.events() if is_memo(one, key.pubkey)]
    return {one.kind for chunk in chunks for one in chunk.memo.pending}


async def live(town: Market, name: str) -> int:
    return (await town.balance(name))["live"]


async def test_words_and_a_relay_bring_back_all_money_also_when_the_restore_is_killed(tmp_path):
    async with AsyncExitStack() as stack:
        folders = [tmp_path / "one", tmp_path / "two"]
        first, second = [await stack.enter_async_context(running_mint(one, extra=UNPAID)) for one in folders]
        town = await stack.enter_async_context(market(tmp_path, {"lost": Spec(mints=[first, second])}, mint=False))
        for folder, mint, sat in zip(folders, (first, second), (300, 200), strict=True):
            pay(folder, await invoice_at(town, "lost", mint, sat))

        async def funded() -> bool:
            return await live(town, "lost") == 500

        await until(funded, "both deposits")
        await town.down("lost")
        lock = await locked_away(town, "lost", first, 50)
        await town.up("lost")
        kept = await live(town, "lost")
        assert kept == 500 - lock.gross.sat_up()
        later = await invoice_at(town, "lost", second, 70)

        async def remembered() -> bool:
            return await told(town, "lost") == {Kind.LOCK, Kind.DEPOSIT}

        await until(remembered, "the memo")
        await town.nodes["lost"].kill()
        town.children.remove(town.nodes.pop("lost"))
        shutil.rmtree(town.homes["lost"])
        pay(folders[1], later)  # after the loss

        words = tmp_path / "words"
        words.write_text(town.rings["lost"].words)
        made = await vendo(
            "init", "--home", str(tmp_path / "again"), "--relay", town.relay,
            "--port", "0", "--words", str(words), "--yes", "--no-passphrase", "--json",
        )  # fmt: skip
        assert made.code == 0, made.err
        town.homes["again"], town.rings["again"] = tmp_path / "again", home.open_keyring(tmp_path / "again")
        await town.up("again")
        restoring = asyncio.create_task(town.vendo("again", "wallet", "restore"))

        async def begun() -> bool:
            return restoring.done() or await live(town, "again") > 0

        await until(begun, "the first coins")
        await town.nodes["again"].kill()  # in the middle, or at its end
        town.children.remove(town.nodes.pop("again"))
        await restoring
        await town.up("again")

        # Nobody asks again: the deposit is minted, and the lock taken back when it is due.
        fee = -(-len(lock.ys) * 100 // 1000)
        due = kept + 70 + lock.amount.sat_up() - fee

        async def whole() -> bool:
            return await town.balance("again") == {"live": due, "reserved": 0, "locked": 0}

        await until(whole, "all money", timeout=120)
        audit = await town.vendo("again", "wallet", "audit")
        assert (audit.code, audit.json["clean"], audit.json["open_operations"]) == (0, True, 0), audit.out
        once_more = await town.vendo("again", "wallet", "restore")
        assert once_more.code == 0, (once_more.out, once_more.err, town.log("again")[-2000:])
        assert {one["mint"]: one["amount"] for one in once_more.json["restored"]} == {first: 0, second: 0}
        assert {one["standing"] for one in once_more.json["pending"]} <= {"done", "gone"}
        assert once_more.json["memos"] == 1
        assert await town.balance("again") == {"live": due, "reserved": 0, "locked": 0}
