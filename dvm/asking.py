"""The request of a job of ours, as it goes out."""

from dataclasses import replace
from typing import TYPE_CHECKING

from core.identifier import EventId, PubKey, derived_id
from dvm.job import Purchase
from relays.event import Event
from relays.nip90 import Input, request_draft
from relays.private_job import Scheme, sealed_request

if TYPE_CHECKING:
    from dvm.desk import Desk


def parcel_bytes(desk: "Desk", job: Purchase) -> int:
    """Of a result that we would fetch from file servers; 0 if none. Several sellers' results are compared as texts."""
    return desk.unpacking.max_bytes if desk.unpacking is not None and job.seat is None else 0


def request_of(desk: "Desk", job: Purchase) -> tuple[Event, EventId] | None:
    """The signed request, and the id by which it is answered; None if the market is not on the route.

    Its bytes are stored before it is published.

    Raises:
        InvalidInput: none can be made.
    """
    if "dvm" not in job.route:
        return None
    now = desk.clock.now()
    draft = request_draft(
        kind=job.kind,
        inputs=[Input(item.data, item.type) for item in job.inputs],
        created_at=now,
        params=job.params,
        output=job.output,
        bid=job.bid,
        relays=desk.pool.urls,
        deadline=now + job.timeout_s,
        expiration=now + job.timeout_s,
        providers=(job.to,) if job.to else (),
        mints=job.mints,
        results=[(item.data, item.pin) for item in job.inputs if item.pin],
        invoices=desk.checkout is not None and bool(job.mints),
        modes=desk.envelope.modes(job.mints),
        jobkey=desk.envelope.jobkey(job.job_id),
        blob_bytes=parcel_bytes(desk, job),
    )
    # Two jobs alike in one second would be one event (NIP-01), and be paid twice for one result.
    draft = replace(draft, tags=(*draft.tags, ("salt", derived_id("request", job.job_id)[:16])))
    to = PubKey(job.to) if job.to else None
    return sealed_request(desk.key, to, draft, Scheme(job.private))
