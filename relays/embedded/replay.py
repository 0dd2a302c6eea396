"""Stored events for one subscription, paced by what the client reads; and counts."""

from collections.abc import Callable, Sequence

from core.clock import Clock
from relays.embedded import frame
from relays.embedded.client import TOO_SLOW, Client, Subscription
from relays.embedded.error import EventFileFailed, QueryTooBroad
from relays.embedded.store import Store
from relays.embedded.store_query import PAGE, is_empty
from relays.filter import Filter

_SHARE = 4  # a stored answer waits when this part of the send limit is in use, so that it alone never trips it
_PATIENCE_S = 15.0
_TOO_BROAD = "error: too broad; add kinds, authors or dates"
_FAILED = "error: the event store failed"


async def replay(
    subscription: Subscription,
    filters: Sequence[Filter],
    store: Store,
    clock: Clock,
    fail: Callable[[Subscription, str], None],
    may_get: Callable[[bytes], bool],
    most: int,
) -> None:
    """Send what is stored and `may_get` lets through, `most` events at most, EOSE, and then what came meanwhile.

    Stops silently if the subscription ends.
    """
    if all(is_empty(wanted) for wanted in filters):
        _end(subscription, 0)
        return
    try:
        snapshot = await store.snapshot(filters, clock.now())
        page, at = snapshot.first, PAGE
        while True:
            for raw in page:
                if _is_over(subscription):
                    return
                if not most or not may_get(raw):
                    continue
                most -= 1
                subscription.client.send(frame.event(subscription.head, raw))
                if subscription.client.lag * _SHARE > subscription.client.limits.send_bytes:
                    await _drained(subscription, clock)
            if at >= len(snapshot.seqs) or not most:
                break
            page = await store.page(snapshot.seqs[at : at + PAGE], clock.now())
            at += PAGE
    except QueryTooBroad:
        fail(subscription, _TOO_BROAD)
    except EventFileFailed:
        fail(subscription, _FAILED)
    else:
        _end(subscription, snapshot.top)


def _end(subscription: Subscription, top: int) -> None:
    if not _is_over(subscription):
        subscription.client.send(frame.eose(subscription.sub_id))
        subscription.ended_stored(top)


def _is_over(subscription: Subscription) -> bool:
    client = subscription.client
    return client.gone or client.subscriptions.get(subscription.sub_id) is not subscription


async def _drained(subscription: Subscription, clock: Clock) -> None:
    client = subscription.client
    client.flush()
    deadline = clock.monotonic() + _PATIENCE_S
    while client.lag * _SHARE * 2 > client.limits.send_bytes and not _is_over(subscription):
        if clock.monotonic() > deadline:
            client.cut(TOO_SLOW)
        await clock.sleep(0.002)


async def tally(client: Client, sub_id: str, filters: Sequence[Filter], store: Store, clock: Clock) -> None:
    """Answer a COUNT (NIP-45)."""
    try:
        number = await store.count(filters, clock.now())
    except QueryTooBroad:
        client.send(frame.closed(sub_id, _TOO_BROAD))
    except EventFileFailed:
        client.send(frame.closed(sub_id, _FAILED))
    else:
        client.send(frame.count(sub_id, number))
