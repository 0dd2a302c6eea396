"""A Lightning network that test mints share: a folder, so that it outlives each of them and anybody can look at it.

Nutshell's own fake backend calls every invoice paid; here an invoice is paid by who pays it, once, until it ends, and
its preimage is a real one. The network remembers what a mint that was killed has forgotten.

* `<payment hash>` is an invoice, with its preimage and its end;
* `payments` has a line for each time that one was paid;
* while `generous` is there each invoice is paid as soon as it is made: so wallets are filled;
* `life` holds for how many seconds invoices are made.
"""

import json
import os
import secrets
import time
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

FEE_SAT = 1
LIFE_S = 600
FOLDER = "TOY_LIGHTNING"  # the variable that says where it is


@dataclass(frozen=True, slots=True)
class ToyLightning:
    """The network."""

    folder: Path

    def open(self) -> None:
        """Begin; whoever makes an invoice has it paid."""
        self.folder.mkdir()
        (self.folder / "generous").touch()

    def stingy(self, life_s: int) -> None:
        """From now on invoices are paid by who pays them, and end after so many seconds."""
        (self.folder / "life").write_text(str(life_s), encoding="utf-8")
        (self.folder / "generous").unlink(missing_ok=True)

    def life_s(self) -> int:
        """For how long an invoice is made now."""
        file = self.folder / "life"
        return int(file.read_text(encoding="utf-8")) if file.exists() else LIFE_S

    def make(self, expires_at: int) -> str:
        """The payment hash of a new invoice."""
        preimage = secrets.token_bytes(32)
        hash_ = sha256(preimage).hexdigest()
        self._write(hash_, json.dumps({"preimage": preimage.hex(), "expires_at": expires_at}))
        if (self.folder / "generous").exists():
            self.pay(hash_)
        return hash_

    def pay(self, hash_: str) -> str:
        """Pay an invoice: its preimage; empty if it cannot be paid: it is not known, has ended, or was paid before."""
        file = self.folder / hash_
        if not file.exists() or self.times(hash_):
            return ""
        made = json.loads(file.read_text(encoding="utf-8"))
        if time.time() >= made["expires_at"]:
            return ""
        with (self.folder / "payments").open("a", encoding="utf-8") as log:
            log.write(f"{hash_}\n")
            log.flush()
            os.fsync(log.fileno())
        return str(made["preimage"])

    def times(self, hash_: str) -> int:
        """How often it was paid."""
        file = self.folder / "payments"
        return file.read_text(encoding="utf-8").splitlines().count(hash_) if file.exists() else 0

    def receipt(self, hash_: str) -> str:
        """The preimage of what was paid; empty if it was not."""
        if not self.times(hash_):
            return ""
        return str(json.loads((self.folder / hash_).read_text(encoding="utf-8"))["preimage"])

    def _write(self, name: str, text: str) -> None:
        fresh = self.folder / f"{name}.new"
        fresh.write_text(text, encoding="utf-8")
        fresh.replace(self.folder / name)


def backend(network: ToyLightning, paid: Any) -> type:
    """The class that a mint on this network takes for its node; `paid` is called when a payment has gone out."""
    from bolt11 import Bolt11, Feature, Features, FeatureState, MilliSatoshi, TagChar, Tags, decode, encode
    from cashu.core.base import Amount, Unit
    from cashu.lightning.base import InvoiceResponse, PaymentResponse, PaymentResult, PaymentStatus
    from cashu.lightning.fake import FakeWallet

    class ToyNode(FakeWallet):
        """What is not said here is as in nutshell's own fake."""

        supports_incoming_payment_stream = False

        async def create_invoice(self, amount: Any, memo: Any = None, *_: Any, **__: Any) -> InvoiceResponse:
            now = int(time.time())
            life_s = network.life_s()
            hash_ = network.make(now + life_s)
            tags = Tags()
            tags.add(TagChar.features, Features.from_feature_list({Feature.payment_secret: FeatureState.supported}))
            tags.add(TagChar.description, memo or "")
            tags.add(TagChar.expire_time, life_s)
            tags.add(TagChar.payment_secret, secrets.token_hex(32))
            tags.add(TagChar.payment_hash, hash_)
            msat = MilliSatoshi(amount.to(Unit.msat, round="up").amount)
            invoice = encode(Bolt11(currency="bc", amount_msat=msat, date=now, tags=tags), self.privkey)
            return InvoiceResponse(ok=True, checking_id=hash_, payment_request=invoice)

        async def get_invoice_status(self, checking_id: str) -> PaymentStatus:
            known = network.times(checking_id)
            return PaymentStatus(result=PaymentResult.SETTLED if known else PaymentResult.UNKNOWN)

        async def pay_invoice(self, quote: Any, fee_limit: int) -> PaymentResponse:
            preimage = network.pay(decode(quote.request).payment_hash)
            if not preimage:
                return PaymentResponse(result=PaymentResult.FAILED, error_message="no way to pay it")
            paid()
            fee = Amount(unit=self.unit, amount=FEE_SAT)
            return PaymentResponse(
                result=PaymentResult.SETTLED, checking_id=quote.checking_id, fee=fee, preimage=preimage
            )

        async def get_payment_status(self, checking_id: str) -> PaymentStatus:
            preimage = network.receipt(checking_id)
            if not preimage:
                return PaymentStatus(result=PaymentResult.FAILED)
            return PaymentStatus(
                result=PaymentResult.SETTLED, fee=Amount(unit=self.unit, amount=FEE_SAT), preimage=preimage
            )

    return ToyNode
