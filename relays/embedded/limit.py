"""The relay's bounds, as data; the NIP-11 document is made from them. Pure."""

from dataclasses import dataclass

from relays.event import MAX_EVENT_BYTES, MAX_TAGS


@dataclass(frozen=True, slots=True)
class Limits:
    """What one relay accepts.

    Attributes:
        message_bytes: longest websocket message; a longer one ends the connection (code 1009).
        event_bytes: longest EVENT message.
        event_tags: most tags of one event.
        indexed_tags: most single-letter tags of one event; each is a row in the index.
        future_s: how far ahead of the relay's clock `created_at` may be, in seconds.
        subscriptions: open subscriptions of one connection.
        filters: filters in one REQ or COUNT.
        filter_values: ids, authors, kinds and tag values in all open filters of one connection.
        sub_id_chars: longest subscription id.
        connections: open connections of the whole relay.
        unanswered: EVENT messages of one connection without an OK yet; then it is not read until some are answered.
        unanswered_bytes: the same, in bytes.
        replays: stored answers that one connection may have under way; then it is not read until one is done.
        send_bytes: what may wait to be sent to one connection; a reader that lags further is cut off.
        store_bytes: size of the events' file; at that size new events are refused.
        trim: the part of `store_bytes` beyond which the oldest ordinary events go, from 0.1 to 0.99; None for never.
        keys: keys that one connection may prove by AUTH.
        listed_keys: keys that one connection may add by key lists.
        syncs: reconciliations (NIP-77) open on one connection.
        sync_items: events in one reconciliation.
        all_sync_items: events in all reconciliations of the relay at once; 41 bytes of memory each.
        handshake_s: how long a connection may take until it is a websocket, in seconds.
    """

    message_bytes: int = 262_144
    event_bytes: int = MAX_EVENT_BYTES
    event_tags: int = MAX_TAGS
    indexed_tags: int = 1_000
    future_s: int = 900
    subscriptions: int = 256
    filters: int = 20
    filter_values: int = 50_000
    sub_id_chars: int = 64
    connections: int = 1_000
    unanswered: int = 1_024
    unanswered_bytes: int = 4 << 20
    replays: int = 16
    send_bytes: int = 4 << 20
    store_bytes: int = 4 << 30
    trim: float | None = None
    keys: int = 64
    listed_keys: int = 20_000
    syncs: int = 8
    sync_items: int = 500_000
    all_sync_items: int = 2_000_000
    handshake_s: float = 10.0
