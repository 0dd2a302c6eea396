"""/wallet/lightning: the Lightning wallet that is connected over NWC (NIP-47), and what moves its money."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from pydantic import RootModel

from core.effect import EffectClass, Permit
from core.error import VendoError
from core.identifier import EffectId, OperationId
from fs.body import parsed
from fs.service.model import lightning as model
from fs.service.treasury import Treasurer, canonical, shown_lightning
from fs.session import Session
from fs.tree import File, Folder, Node, json_bytes
from wallet.error import PaymentUnknown
from wallet.lightning import Direction
from wallet.lightning_audit import LightningAudit
from wallet.lightning_error import NotConnected
from wallet.lightning_record import LightningView

MSAT = 1_000
MAX_BODY = 16_384


class LightningWallet(Protocol):
    """What `wallet.lightning_wallet.Lightning` does for its owner."""

    @property
    def name(self) -> str:
        """How rows and journal call it."""

    async def pay(
        self, op_id: str, invoice: str, effect_id: EffectId, permit: Permit, *, purpose: str = ""
    ) -> LightningView:
        """Pay an invoice once."""

    async def invoice(
        self, op_id: str, amount: int, note: str, effect_id: EffectId, permit: Permit, *, expiry_s: int = 3_600
    ) -> LightningView:
        """An invoice of the wallet, in msat."""

    async def find(self, op_id: str) -> LightningView | None:
        """One operation."""

    async def balance(self) -> int:
        """What the wallet says it has, in msat."""

    async def status(self) -> Mapping[str, Any]:
        """What is known without asking it."""

    async def audit(self) -> LightningAudit:
        """Whether rows, journal and wallet agree."""


class LightningRows(Protocol):
    """What is written down, whether or not a wallet is connected: `wallet.funding.Funding`."""

    async def latest(self, limit: int = 100) -> Sequence[LightningView]:
        """The newest operations."""

    async def give_up(self, op_id: str) -> LightningView:
        """Count a payment as paid of which its wallet says nothing any more."""


async def held(lightning: LightningWallet) -> dict[str, Any]:
    """What the wallet says it has, or why that is not known."""
    try:
        return {"wallet": lightning.name, "balance_msat": await lightning.balance(), "problem": ""}
    except VendoError as error:
        return {"wallet": lightning.name, "balance_msat": None, "problem": error.code}


def lightning_folder(
    lightning: LightningWallet | None, treasurer: Treasurer, rows: LightningRows | None = None
) -> Folder:
    """The files at `/wallet/lightning`. Where no wallet is connected those that need one say so.

    Args:
        lightning: the wallet, if one is connected.
        treasurer: begins and ends effects.
        rows: what was paid and made; a wallet that is gone has left its own.
    """

    def connected() -> LightningWallet:
        if lightning is None:
            raise NotConnected
        return lightning

    def written() -> LightningRows:
        if rows is None:
            raise NotConnected
        return rows

    async def status(session: Session) -> bytes:
        wallet = connected()
        return json_bytes({**await wallet.status(), **await held(wallet)})

    async def pay(body: bytes, session: Session) -> bytes:
        wallet = connected()
        text = parsed(model.Bill, body).invoice.strip() if body[:1] == b"{" else body.decode("utf-8", "replace").strip()

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> Mapping[str, Any]:
            try:
                return shown_lightning(await wallet.pay(op_id, text, effect_id, permit))
            except PaymentUnknown:
                view = await wallet.find(op_id)
                if view is None:
                    raise
                return shown_lightning(view)

        wish: dict[str, str | int] = {"wallet": wallet.name}
        name, wanted = "lightning/pay", canonical({"invoice": text})
        return json_bytes(await treasurer.move(session, name, wanted, wish, EffectClass.IRREVERSIBLE, act))

    async def invoice(body: bytes, session: Session) -> bytes:
        wallet, wanted = connected(), parsed(model.Wanted, body)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> Mapping[str, Any]:
            amount = wanted.sat * MSAT
            view = await wallet.invoice(op_id, amount, wanted.note, effect_id, permit, expiry_s=wanted.expiry_s)
            return shown_lightning(view)

        wish: dict[str, str | int] = {"wallet": wallet.name, "sat": wanted.sat}
        whole = canonical(wanted.model_dump())
        return json_bytes(await treasurer.move(session, "lightning/invoice", whole, wish, EffectClass.EXTERNAL, act))

    async def give_up(body: bytes, session: Session) -> bytes:
        there, op_id = written(), OperationId(parsed(model.GiveUp, body).op_id)

        async def act() -> dict[str, Any]:
            return shown_lightning(await there.give_up(op_id))

        whole = canonical({"op_id": op_id})
        return json_bytes(await treasurer.decide(session, "lightning/give-up", whole, op_id, act))

    async def listed(kind: Direction) -> bytes:
        found = await written().latest()
        return json_bytes([shown_lightning(view) for view in found if view.kind is kind])

    async def payments(session: Session) -> bytes:
        return await listed(Direction.PAY)

    async def invoices(session: Session) -> bytes:
        return await listed(Direction.INVOICE)

    many = RootModel[list[model.LightningOperation]]
    paid = "an invoice (BOLT-11), as text or as {invoice}: paid once, or looked up until it is known what became of it"
    files: dict[str, Node] = {
        "status": File("the wallet, what it has, what may still be paid today", read=status, gives=model.Lightning),
        "pay": File(paid, call=pay, max_bytes=MAX_BODY, takes=model.Bill, gives=model.LightningOperation),
        "invoice": File(
            "{sat, note?, expiry_s?}: an invoice of ours", call=invoice, takes=model.Wanted,
            gives=model.LightningOperation,
        ),
        "give-up": File(
            "{op_id}: wait no longer for the wallet's word on a payment in doubt; it then counts as paid",
            call=give_up, takes=model.GiveUp, gives=model.LightningOperation,
        ),
        "payments": File("what was paid or is in doubt, newest first", read=payments, gives=many),
        "invoices": File("invoices of ours, newest first", read=invoices, gives=many),
    }  # fmt: skip
    return Folder("A Lightning wallet over Nostr Wallet Connect.", files)
