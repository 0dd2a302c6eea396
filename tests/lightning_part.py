"""A nutshell mint whose Lightning has true preimages. Run as a script it is that mint; imported, it is the network.

The network is a folder: each invoice is a file named by its payment hash, with its preimage and what becomes of a
payment. So a test can make invoices as a payee, say how payments go while they are under way, and see what was paid,
and the mint is a process of its own. (Nutshell's own FakeWallet shows receipts that belong to no invoice.)
"""

import asyncio
import hashlib
import json
import os
import secrets
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from bolt11 import Bolt11, Feature, Features, FeatureState, MilliSatoshi, TagChar, Tags, decode, encode

# What becomes of a payment. `pending` and `unknown` are read again at each look-up, so a test can end them.
SETTLED, FAILED, PENDING, UNKNOWN = "SETTLED", "FAILED", "PENDING", "UNKNOWN"

# What the mint's node thinks one of a unit is worth, in msat.
MSAT_PER = {"sat": 1_000, "msat": 1, "usd": 13_370, "eur": 14_000}

# Settings of a mint that waits until its invoices are paid, and looks each time it is asked.
PATIENT = {"LIGHTNING_PATIENT": "1", "MINT_QUOTE_BACKEND_CHECK_RATE_LIMIT": "0"}


@dataclass(frozen=True)
class Network:
    """The folder that all payees and the mint's node share."""

    folder: Path

    def _file(self, hash_: str) -> Path:
        return self.folder / f"{hash_}.json"

    def read(self, hash_: str) -> dict[str, str]:
        """What is known of an invoice."""
        found: dict[str, str] = json.loads(self._file(hash_).read_text())
        return found

    def _write(self, hash_: str, body: dict[str, str]) -> None:
        fresh = self._file(hash_).with_suffix(f".{secrets.token_hex(4)}")
        fresh.write_text(json.dumps(body))
        fresh.replace(self._file(hash_))

    def invoice(self, msat: int, fate: str = SETTLED, *, age: int = 0, false: bool = False) -> str:
        """Somebody's invoice. `fate`: how a payment of it goes; `age` in seconds; `false`: its receipt is wrong."""
        self.folder.mkdir(parents=True, exist_ok=True)
        preimage = secrets.token_bytes(32)
        hash_ = hashlib.sha256(preimage).hexdigest()
        shown = secrets.token_bytes(32) if false else preimage
        self._write(hash_, {"preimage": shown.hex(), "fate": fate})
        tags = Tags()
        tags.add(TagChar.payment_hash, hash_)
        tags.add(TagChar.payment_secret, secrets.token_hex(32))
        tags.add(TagChar.description, "a test")
        tags.add(TagChar.expire_time, 3600)
        tags.add(TagChar.features, Features.from_feature_list({Feature.payment_secret: FeatureState.required}))
        plain = Bolt11(currency="bc", amount_msat=MilliSatoshi(msat), date=int(time.time()) - age, tags=tags)
        return encode(plain, hashlib.sha256(b"payee").hexdigest())

    def ends(self, text: str, fate: str) -> None:
        """A payment goes on so from now on."""
        hash_ = decode(text).payment_hash
        self._write(hash_, {**self.read(hash_), "fate": fate})

    def tried(self, text: str) -> int:
        """How often the mint's node was told to pay it."""
        return len(list(self.folder.glob(f"{decode(text).payment_hash}.try.*")))

    def default(self, fate: str) -> None:
        """How payments of the mints' own invoices go from now on."""
        (self.folder / "fate").write_text(fate)

    def fate(self) -> str:
        """See `default`."""
        file = self.folder / "fate"
        return file.read_text() if file.exists() else SETTLED

    def known(self, text: str) -> bool:
        """Whether it is an invoice of this network."""
        return self._file(decode(text).payment_hash).exists()

    def pay(self, text: str) -> None:
        """Somebody with a wallet of another kind pays this invoice."""
        self.told(decode(text).payment_hash)

    def was_paid(self, hash_: str) -> bool:
        """Whether anybody has paid an invoice."""
        tried = bool(list(self.folder.glob(f"{hash_}.try.*")))
        return tried and self.read(hash_)["fate"] == SETTLED

    def told(self, hash_: str) -> str:
        """The node is told to pay; how it goes."""
        (self.folder / f"{hash_}.try.{secrets.token_hex(4)}").touch()
        return self.read(hash_)["fate"]


@asynccontextmanager
async def lightning_mint(
    path: Path, *, port: int | None = None, extra: dict[str, str] | None = None, network: Network | None = None
) -> AsyncIterator[tuple[str, Network]]:
    """A mint with this Lightning: its address, and the network, which several mints may share.

    Its own invoices pay themselves, unless `extra` is `PATIENT`: then somebody has to.
    """
    from tests.mint_part import running_mint

    network = network or Network(path / "network")
    network.folder.mkdir(parents=True, exist_ok=True)
    settings = {
        "MINT_BACKEND_BOLT11_SAT": "TrueWallet",
        "LIGHTNING_FOLDER": str(network.folder),
        "PYTHONPATH": str(Path(__file__).parents[1]),
        **(extra or {}),
    }
    async with running_mint(path, port=port, extra=settings, script=Path(__file__)) as url:
        yield url, network


def serve() -> None:
    """Be the mint: put the backend in before nutshell looks for it."""
    import cashu.lightning
    from cashu.core.base import Amount, MeltQuote, Unit
    from cashu.core.models import PostMeltQuoteRequest
    from cashu.lightning.base import (
        InvoiceResponse,
        LightningBackend,
        PaymentQuoteResponse,
        PaymentResponse,
        PaymentResult,
        PaymentStatus,
        StatusResponse,
    )

    network = Network(Path(os.environ["LIGHTNING_FOLDER"]))

    class TrueWallet(LightningBackend):
        supported_units: ClassVar[set[Unit]] = {Unit.sat, Unit.msat, Unit.usd, Unit.eur}
        supports_description = True
        supports_incoming_payment_stream = False
        unit = Unit.sat

        def __init__(self, unit: Unit = Unit.sat, **_: object) -> None:
            self.assert_unit_supported(unit)
            self.unit = unit

        async def status(self) -> StatusResponse:
            return StatusResponse(balance=Amount(self.unit, 1_000_000))

        async def create_invoice(self, amount: Amount, *_: object, **__: object) -> InvoiceResponse:
            text = network.invoice(amount.amount * MSAT_PER[self.unit.name], network.fate())
            return InvoiceResponse(ok=True, checking_id=decode(text).payment_hash, payment_request=text)

        async def get_invoice_status(self, checking_id: str) -> PaymentStatus:
            paid = "LIGHTNING_PATIENT" not in os.environ or network.was_paid(checking_id)
            return PaymentStatus(result=PaymentResult.SETTLED if paid else PaymentResult.PENDING)

        async def get_payment_quote(self, melt_quote: PostMeltQuoteRequest) -> PaymentQuoteResponse:
            asked = decode(melt_quote.request)
            value = -(-int(asked.amount_msat or 0) // MSAT_PER[self.unit.name])
            fee = Amount(self.unit, max(2, value // 100))
            return PaymentQuoteResponse(checking_id=asked.payment_hash, amount=Amount(self.unit, value), fee=fee)

        async def pay_invoice(self, quote: MeltQuote, fee_limit_msat: int) -> PaymentResponse:
            hash_ = decode(quote.request).payment_hash
            result = PaymentResult[network.told(hash_)]
            settled = result is PaymentResult.SETTLED
            return PaymentResponse(
                result=result,
                checking_id=hash_,
                fee=Amount(self.unit, 1) if settled else None,
                preimage=network.read(hash_)["preimage"] if settled else None,
            )

        async def get_payment_status(self, checking_id: str) -> PaymentStatus:
            held = network.read(checking_id)
            result = PaymentResult[held["fate"]]
            settled = result is PaymentResult.SETTLED
            fee, preimage = (Amount(self.unit, 1), held["preimage"]) if settled else (None, None)
            return PaymentStatus(result=result, fee=fee, preimage=preimage)

        async def paid_invoices_stream(self) -> AsyncIterator[str]:
            while True:
                await asyncio.sleep(3600)
                yield ""

    cashu.lightning.TrueWallet = TrueWallet  # where the mint looks up the backend it is named
    from cashu.mint.main import main

    sys.argv = ["mint"]
    main()


if __name__ == "__main__":
    serve()
