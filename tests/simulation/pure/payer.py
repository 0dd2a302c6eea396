"""What a buyer's driver does for invoices (`dvm.payer`), and for the keys of sealed results (`dvm.till`)."""

import json
from typing import Any

from core.error import VendoError
from dvm import buyer_event as e
from dvm.job import Funds, Payment, State
from tests.simulation.pure.lightning import read
from tests.simulation.pure.sealing import opened
from wallet.cashu.lock import revealed
from wallet.error import MintRefused
from wallet.melt import check_ceiling, check_quote
from wallet.payment import Kind
from wallet.payment import State as Op


def pay(node: Any, job_id: str, payment: Payment) -> None:
    """As `dvm.payer` and `wallet.withdrawal`: the mint's quote is checked before anything is begun."""
    world = node.world
    stored = node.purse.ops.get(payment.op_id)
    if stored is not None:
        if stored.op.state is Op.DONE or stored.op.state is Op.REFUSED:
            node.op_ended(stored)
        else:
            node.purse.resume(stored)
        return
    invoice = read(payment.invoice)
    if invoice.expires_at <= world.now // 1000:
        return node.tell(job_id, e.LockFailed(world.now, payment.op_id, "the invoice has expired"))
    mint = node.mint_at(payment.mint)

    def heard(word: str, quote: Any) -> None:
        if payment.op_id in node.purse.ops:
            return
        job = node.jobs.get(job_id)
        if job is None or job.money is not Funds.LOCKING:
            return
        try:
            if word != "ok":
                raise MintRefused("The mint gives no usable quote for this invoice.")
            check_quote(quote, invoice, payment.invoice, "sat", world.now // 1000)
            chosen = node.purse.choose(mint, quote.amount + quote.fee_reserve)
            if chosen is None:
                world.coverage.faults["no funds"] += 1
                raise MintRefused("too few coins")
            names, worth = chosen
            check_ceiling(quote, mint.fee(len(names)), payment.ceiling)
        except VendoError as error:
            return node.tell(job_id, e.LockFailed(world.now, payment.op_id, error.message))
        terms = {
            "quote": quote.id, "amount": quote.amount, "reserve": quote.fee_reserve, "hash": invoice.payment_hash,
        }  # fmt: skip
        world.judge.pays(node, job, quote)
        node.purse.begin(
            payment.op_id, Kind.MELT, mint, names, worth, "", job_id, terms, expires=invoice.expires_at * 1000
        )

    world.ask(node, lambda: world.lightning.quote(mint, payment.invoice), heard)


def shown_at(node: Any, job_id: str, payment: Payment, word: str) -> None:
    """NUT-07: the witness of a spent coin shows the preimage, unless the mint hides it."""
    job = node.jobs.get(job_id)
    if not payment.hash or word != "ok" or job is None or job.state is not State.SEALED:
        return
    shown = node.mint_at(payment.mint).shown
    preimage = next((shown[name] for name in payment.ys if name in shown), None)
    if preimage is None:
        return
    if node.world.hides:
        node.world.coverage.faults["mint: hides the key"] += 1
        return
    found = revealed(json.dumps({"preimage": preimage}), payment.hash)
    if found is not None:
        node.tell(job_id, opened(node.world.log[job.sealed].body, found, job.ask, node.world.now))


def seek(node: Any, job_id: str, payment: Payment) -> None:
    if payment.op_id not in node.seeking:
        node.seeking.add(payment.op_id)
        _seek_on(node, job_id, payment, 250)


def _seek_on(node: Any, job_id: str, payment: Payment, pause: int) -> None:
    job = node.jobs.get(job_id)
    if job is None or job.state is not State.SEALED:
        node.seeking.discard(payment.op_id)
        return

    def heard(word: str, spent: bool) -> None:
        shown_at(node, job_id, payment, word)
        node.world.soon(node, pause, _seek_on, node, job_id, payment, min(pause * 3 // 2, 15_000))

    node.world.ask(node, lambda: node.is_spent(payment), heard)
