"""From an event to what the buyer's machine is told, as `dvm.answer` does it; invoices are read by the product."""

from functools import lru_cache
from types import SimpleNamespace
from typing import Any

from core.money import Msat
from dvm import buyer_event as e
from dvm.invoice import billed
from dvm.job import Purchase, State
from dvm.selection import Nature, Offer, Terms
from dvm.settlement import Method, choose
from tests.simulation.pure.sealing import OFFER, Seal
from tests.simulation.pure.world import Msg
from wallet.planner import lock_cost as priced

_lock_cost = lru_cache(1_024)(priced)


def translate(node: Any, msg: Msg, job: Purchase) -> Any:
    """What a verified event that answers our request means for the job."""
    now = node.world.now
    if msg.to and msg.to != node.key:
        return e.Refuse(now, msg.id, msg.author, "it is for somebody else")
    if msg.kind == "quote":
        return e.Answered(now, _offer(node, msg, job))
    if msg.kind == "result":
        return _result(node, msg, job)
    status = msg.content
    if status == "error":
        return e.SellerFailed(now, msg.id, msg.author, "no")
    if status == "success" and job.payment is not None and job.payment.seller == msg.author:
        node.watched.pop(job.payment.op_id, None)  # a receipt is a hint; the mint's word is what counts
        node.watch(job.job_id, job.payment)
    return e.Progress(now, msg.id, msg.author, status)


def _offer(node: Any, msg: Msg, job: Purchase) -> Offer:
    body, now = msg.body, node.world.now
    price, key, mints = body["price"], body["key"], body["mints"]
    ways = [(m, _lock_cost(price, m.ppk)) for m in node.world.mints if m.url in mints]
    terms = tuple([Terms(mint.url, key, gross) for mint, gross in ways])
    how = refusal = ""
    mode = body.get("mode")
    if mode and mode in node.asks[job.job_id].modes:
        sealed = [
            Terms(mint.url, key, gross, Method.ATOMIC, mode, body["hash"], body["seal_key"]) for mint, gross in ways
        ]
        out = Msat(sum(one.unsecured(msg.author).value for one in node.jobs.values() if one is not job))
        terms, how = choose([*sealed, *terms], price, OFFER, out)
        refusal = "" if terms else how
    if body.get("prepaid") and node.balances is not None:
        terms, how = _drawn(node, msg, terms)
    nature = Nature.QUOTE if body["id"] else Nature.IMPLICIT
    if nature is Nature.IMPLICIT:
        terms = ()
    offer = Offer(
        msg.id, msg.author, nature, now, price, body["id"], body["expires"], body["eta"], terms,
        how=how, refusal=refusal,
    )  # fmt: skip
    invoice = body.get("invoice")
    if invoice and node.asks[job.job_id].invoices and job.state is State.QUOTING:
        offer = billed(offer, node.checkout.bill(invoice, price, job, now // 1000, Method.INVOICE_BEFORE))
    return offer


def _drawn(node: Any, msg: Msg, ways: tuple[Terms, ...]) -> tuple[tuple[Terms, ...], str]:
    """With the deposit that the quote names, as `dvm.answer` and `dvm.settlement` have it."""
    body, deposit = msg.body, node.balances.disk.get(msg.body["prepaid"].deposit)
    method = body["prepaid"]
    quote = SimpleNamespace(seller=msg.author, amount=body["price"], eta_s=body["eta"])
    if deposit is not None and node.balances.drawable(method, quote):
        ways = (Terms(method.mint, body["key"], body["price"], Method.PREPAID, deposit=method.deposit), *ways)
    out = Msat(sum(one.unsecured(msg.author).value for one in node.jobs.values())) + node.balances.at_risk(msg.author)
    return choose(ways, body["price"], OFFER, out)


def _result(node: Any, msg: Msg, job: Purchase) -> Any:
    now, body = node.world.now, msg.body
    if type(body) is Seal and job.payment is not None and job.payment.atomic:
        fault = "" if body.fits else "The sealed result is not the one whose hash is signed with it."
        return e.SealedArrived(now, msg.id, msg.author, msg.id, body.hash, f"of {body.text}", fault)
    fault = "it is empty" if msg.content == "junk" else ""
    price, bill = body, None
    if type(body) is tuple:
        price, invoice = body
        if not fault and node.asks[job.job_id].invoices and job.state is State.QUOTING:
            bill = node.checkout.bill(invoice, price, job, now // 1000, Method.INVOICE_AFTER)
    elif type(body) is Seal:
        price = None
    return e.ResultArrived(now, msg.id, msg.author, msg.content, fault, price, bill)
