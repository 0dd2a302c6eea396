"""kill -9 of who pays over Lightning, between any two steps: paid once or not at all, and known which."""

import asyncio
import os
import signal
import sys
import time
from pathlib import Path

import pytest
from bolt11 import decode

from tests.integration.relays.embedded.relay_part import running
from tests.integration.wallet.lightning_part import desk
from tests.nwc_part import Ledger, serving
from wallet.journal import Account, balances

ROOT = Path(__file__).parents[3]
CHILD = "tests.integration.wallet.lightning_crash_part"
WHENS = ("commit-1", "commit-2", "before_request", "after_request", "after_answer", "commit-3")


@pytest.mark.parametrize("when", WHENS)
async def test_a_killed_payment_is_found_out_and_never_paid_twice(tmp_path: Path, when: str) -> None:
    ledger = Ledger(time.time)
    ledger.knobs.slow = 3.0 if when == "after_request" else 0.0
    invoice = ledger.foreign(21_000)
    payment_hash = decode(invoice).payment_hash
    async with running(tmp_path / "relay.db") as relay, serving(relay.url, ledger) as service:
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", CHILD, str(tmp_path / "node.db"), service.uri, invoice, when, cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        async with asyncio.timeout(120):
            out, _ = await child.communicate()
        assert child.returncode == -signal.SIGKILL, out
        ledger.knobs.slow = 0.0
        async with desk(tmp_path / "node.db", service.uri) as made:
            order = await made.book.find("op-k")
            assert order is not None, "what had begun was forgotten"
            assert order.payment.stage != "failed"
            await made.until("op-k", "paid", "failed")
            after = await made.book.find("op-k")
            assert after is not None
            assert after.request == order.request
            ended = after.payment.stage, ledger.tried[payment_hash], ledger.paid[payment_hash]
            # Nothing was asked for yet: a wallet that is not reached in time then is not asked any more.
            never = when == "commit-1" and ended == ("failed", 0, 0)
            assert never or ended == ("paid", 1, 1)
            name = made.lightning.name
            accounts = balances(await made.book.posted(name)).get((name, "msat"), {})
            assert (sum(accounts.values()), accounts.get(Account.WALLET, 0)) == (0, 0 if never else -22_000)
            assert (await made.lightning.audit()).differences == ()
        assert len(service.paying) == (0 if never else 1)
