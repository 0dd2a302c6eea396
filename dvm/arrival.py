"""How a sale begins: who asks, where that stands in the gate, and the sale as it is judged. Pure."""

from core.identifier import PubKey, derived_id
from core.money import Msat
from dvm.admission import MakeQuote, Serve
from dvm.seller import Sale
from relays.nip90 import JobRequest


def caller_of(request: JobRequest) -> str:
    """The customer, as the gate names it."""
    return f"customer:{PubKey(request.customer)}"


def path_of(request: JobRequest) -> str:
    """What it asks for, as the gate names it."""
    return f"/serve/{request.kind}"


def sale_of(request: JobRequest, decision: MakeQuote | Serve) -> Sale:
    """The sale of an admitted request. Nothing of it is written yet."""
    return Sale(
        request_id=request.event_id,
        effect_id=derived_id(caller_of(request), path_of(request), request.event_id),
        customer=request.customer,
        kind=request.kind,
        request=request.wire.to_json(),
        price=decision.price or Msat(0) if isinstance(decision, MakeQuote) else Msat(0),
        mints=decision.mints if isinstance(decision, MakeQuote) else (),
    )
