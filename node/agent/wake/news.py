"""What is told of jobs, payments, files, what came over Nostr, and signatures: each as one event, told once. Pure."""

from collections.abc import Mapping
from typing import Any

from core.identifier import derived_id
from node.agent.wake.event import Event
from wallet.model import OperationView
from wallet.payment import Kind

_PAYMENTS = {
    Kind.DEPOSIT: "payment.received",
    Kind.RECEIVE: "payment.received",
    Kind.CLAIM: "payment.received",
    Kind.LOCK: "payment.sent",
    Kind.SEND: "payment.sent",
    Kind.MELT: "payment.sent",
    Kind.REFUND: "payment.refunded",
}


def job_ended(owner: str, view: Mapping[str, Any]) -> Event:
    """A job has ended. Whoever asked for it is told without an interest."""
    job = str(view["job_id"])
    body = {"type": "job.finished", "job": view}
    return Event(f"job-{job}", "job.finished", "market", job, view, owner, direct=True, body=body)


def job_moved(owner: str, view: Mapping[str, Any]) -> Event:
    """A job has come to a state, for the first time: `job.quoting`, `job.paying`, `job.working`, `job.fallback`."""
    job, state = str(view["job_id"]), str(view["state"])
    data = {name: view[name] for name in ("job_id", "kind", "status", "state", "seller")}
    return Event(f"job-{job}-{state}", f"job.{state}", "market", job, data, owner)


def paid(owner: str, view: OperationView) -> Event:
    """Money was received, sent or taken back: what the wallet says of the operation, without token or invoice.

    `amount` and `fee` are in the mint's unit; the fee is the mint's.
    """
    data = {
        "op_id": str(view.id),
        "kind": view.kind.value,
        "mint": view.mint,
        "unit": view.unit,
        "amount": view.amount,
        "fee": view.fee,
    }
    return Event(f"payment-{view.id}", _PAYMENTS[view.kind], "wallet", str(view.id), data, owner)


def file_changed(owner: str, path: str, size: int, caller: str, by: str, key: str) -> Event:
    """A file in an agent's tree was written."""
    data = {"path": path, "bytes": size, "by": caller}
    name = derived_id("file", owner, path, caller, key)
    return Event(f"file-{name}", "file.changed", "files", path, data, owner, by=by)


def came(type_: str, owner: str, rumor: str, sender: str, written_at: int, data: Mapping[str, Any]) -> Event:
    """Somebody has sent an agent something that is no message: `nostr.mention`, `nostr.file`. It is told always.

    `rumor` is its Nostr id, `sender` a public key. One note may mention several agents: to others each of that is a
    thing of its own.
    """
    told = {"agent": owner, **data}
    return Event(
        rumor, type_, "nostr", sender, told, owner, direct=True, body={"type": type_, **told},
        id_afar=f"nostr-{owner}-{rumor}", written_at=written_at,
    )  # fmt: skip


def signed(owner: str, effect: str, type_: str, data: Mapping[str, Any]) -> Event:
    """What an agent's tick wanted signed is signed (`identity.signed`), or is not (`identity.unsigned`)."""
    told = {"agent": owner, **data}
    body = {"type": type_, **told}
    return Event(f"signature-{effect}", type_, "identity", effect, told, owner, direct=True, body=body)
