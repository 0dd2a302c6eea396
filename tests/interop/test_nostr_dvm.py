"""nostr-dvm as a seller to our node, and its bot as a client of it: for nothing, and paid by Lightning invoice.

Both run as their authors wrote them, in processes of their own with the versions that they pin. What stands in for
others is LNbits, which they keep their money with (`tests.lnbits_part`); the invoices and the payments are real mints'.
"""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from relays.kind import HANDLER, JOB_FEEDBACK
from tests.conftest import ROOT
from tests.lightning_part import PATIENT as UNPAID
from tests.lightning_part import lightning_mint
from tests.lnbits_part import Lnbits, lnbits
from tests.market_part import ECHO_FREE, PATIENT, Market, Spec, market, until

pytestmark = [pytest.mark.needs("nostr_dvm"), pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]

PYTHON = ROOT / ".tool/nostr_dvm/bin/python"
SCRIPTS = Path(__file__).parent / "python"
ECHO_PAID = '\n[[sell]]\nkind = 5050\nprice_msat = 21000\nprovider = "echo"\n'
ONLY_MARKET = {**PATIENT, 'order = ["dvm", "builtin"]': 'order = ["dvm"]'}
KIND = "5107"  # which only the foreign machine serves
HANGS_S = 100.0
PRICE_SAT = 15


@dataclass(slots=True)
class Town:
    """Our nodes, and two mints: one pays, the other is paid."""

    market: Market
    folder: Path
    payees: str
    payers: str
    lnbits: Lnbits
    runs: int = 0

    def argv(self, script: str, **options: str) -> tuple[list[str], Path]:
        """How a script of nostr-dvm's is run, and the new folder in which: it keeps its things where it is."""
        self.runs += 1
        home = self.folder / f"{script}-{self.runs}"
        (home / "db").mkdir(parents=True)
        given = {"relay": self.market.relay, "lnbits": self.lnbits.url, **options}
        return [str(PYTHON), str(SCRIPTS / script), *(f"--{name}={value}" for name, value in given.items())], home


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Town]:
    folder = tmp_path_factory.mktemp("nostr-dvm")
    async with AsyncExitStack() as stack:
        payers, network = await stack.enter_async_context(lightning_mint(folder))
        payees, _ = await stack.enter_async_context(lightning_mint(folder, extra=UNPAID, network=network))
        nodes = {
            "free": Spec(ECHO_FREE, mints=[payees]),
            "paid": Spec(ECHO_PAID, mints=[payees]),
            "buyer": Spec(replace=ONLY_MARKET, mints=[payers]),
        }
        opened = await stack.enter_async_context(market(folder, nodes, mint=False))
        there = await stack.enter_async_context(lnbits(opened.http, payees, payers, 500))
        await opened.fund("buyer", 500)
        yield Town(opened, folder, payees, payers, there)


@asynccontextmanager
async def machine(town: Town, sat: int) -> AsyncIterator[str]:
    """A machine of nostr-dvm's at this price; its key, once it has announced itself."""
    argv, home = town.argv("dvm_seller.py", kind=KIND, sat=str(sat))
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, cwd=home, stdout=log, stderr=asyncio.subprocess.STDOUT)
    try:
        yield await until(lambda: _announced(town, process, home / "log"), "the machine's announcement", HANGS_S)
    except BaseException as error:
        error.add_note((home / "log").read_text(errors="replace")[-4_000:])
        raise
    finally:
        if process.returncode is None:
            process.kill()  # it has no other end
        await process.wait()


async def _announced(town: Town, process: asyncio.subprocess.Process, log: Path) -> str:
    assert process.returncode is None, log.read_text(errors="replace")
    said = [line for line in log.read_text(errors="replace").splitlines() if line.startswith('{"pubkey"')]
    key = str(json.loads(said[0])["pubkey"]) if said else ""
    return key if any((one.kind, one.pubkey) == (HANDLER, key) for one in await town.market.events()) else ""


async def bought(town: Town, text: str, *more: str) -> dict[str, Any]:
    """What our node says of a job that it bought."""
    words = ("buy", "--kind", KIND, "--timeout", "120", "--input", text, *more)
    ran = await town.market.vendo("buyer", *words, timeout=HANGS_S)
    assert ran.code == 0, (ran.out, ran.err)
    job: dict[str, Any] = ran.json
    assert (job["result"], job["provider"]) == (text, "dvm")
    return job


async def test_we_buy_from_a_nostr_dvm_machine_for_nothing_in_the_open_and_encrypted(town: Town) -> None:
    async with machine(town, 0) as key:
        for number, more in enumerate([(), ("--to", key, "--private", "nip44"), ("--to", key, "--private", "nip04")]):
            job = await bought(town, f"free, ünïcode ✓ {number}", *more)
            assert (job["seller"], job["money"]) == (key, "none")


async def test_we_pay_a_nostr_dvm_machine_s_invoice_before_it_works(town: Town) -> None:
    async with machine(town, PRICE_SAT) as key:
        for number, more in enumerate([(), ("--to", key, "--private", "nip44")]):
            had, got = await town.market.balance("buyer"), await town.lnbits.sat(town.payees)
            job = await bought(town, f"paid {number}", *more)
            assert (job["seller"], job["money"], job["paid_msat"]) == (key, "claimed", PRICE_SAT * 1000)
            assert await town.lnbits.sat(town.payees) == got + PRICE_SAT
            spent = had["live"] - (await town.market.balance("buyer"))["live"]
            assert spent == job["cost_msat"] // 1000


async def _by_bot(town: Town, seller: str, text: str, **options: str) -> dict[str, Any]:
    """What nostr-dvm's bot says after it has bought at one of our nodes for somebody."""
    pubkey = town.market.rings[seller].node.pubkey
    argv, home = town.argv("dvm_client.py", seller=pubkey, kind="5050", text=text, **options)
    with (home / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(*argv, cwd=home, stdout=log, stderr=asyncio.subprocess.STDOUT)
    try:
        async with asyncio.timeout(HANGS_S):
            await process.wait()
    except TimeoutError as error:
        error.add_note((home / "log").read_text(errors="replace")[-4_000:])
        raise
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    lines = (home / "log").read_text(errors="replace").splitlines()
    said: dict[str, Any] = json.loads(lines[-1])
    assert said["name"] == seller, "it has read our announcement"
    assert any(text in one for one in said["answers"]), said
    return said


async def _jobs_of(town: Town, seller: str, customer: str) -> list[dict[str, Any]]:
    return [one for one in await town.market.get(seller, "node/market/sales") if one["customer"] == customer]


async def test_nostr_dvm_s_bot_gets_a_free_job_done(town: Town) -> None:
    said = await _by_bot(town, "free", "hello from a bot ✓")
    assert await _jobs_of(town, "free", said["client"])


async def test_nostr_dvm_s_bot_pays_our_invoice_and_gets_its_result(town: Town) -> None:
    had, sold = await town.lnbits.sat(town.payers), (await town.market.balance("paid"))["live"]
    said = await _by_bot(town, "paid", "paid by a bot ✓", sat="200")
    (sale,) = [one for one in await _jobs_of(town, "paid", said["client"]) if one["state"] == "done"]
    assert (sale["paid_by"], sale["earned_msat"]) == ("invoice", 21_000)
    assert (await town.market.balance("paid"))["live"] == sold + 21
    assert 21 <= had - await town.lnbits.sat(town.payers) <= 21 + 4
    words = [one for one in await town.market.events() if one.kind == JOB_FEEDBACK and one.value("p") == said["client"]]
    assert words
