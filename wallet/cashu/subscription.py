"""A mint's websocket, as text (NUT-17): what we ask to be told of, and what we are told. Pure.

What a mint says there is a hint that something has changed and nothing more: the driver then asks in the usual way.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Any

import orjson

MAX_FRAME = 65_536
MAX_NAMES = 100  # in one subscription


class Topic(StrEnum):
    """What can be watched, as NUT-17 spells it."""

    COINS = "proof_state"  # by Y
    DEPOSIT = "bolt11_mint_quote"  # by quote id
    WITHDRAWAL = "bolt11_melt_quote"


# States in which nothing is final; a mint tells the first two right after a subscription, and the third of every coin
# while it swaps, when a look-up would only take time from that.
_QUIET = frozenset({"UNSPENT", "UNPAID", "PENDING"})


def subscribe(number: int, topic: Topic, name: str, filters: Sequence[str]) -> str:
    """The request to be told of changes, under `name`."""
    params = {"kind": topic.value, "subId": name, "filters": list(filters[:MAX_NAMES])}
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "method": "subscribe", "params": params}).decode()


def unsubscribe(number: int, name: str) -> str:
    """The request to be told no more."""
    return orjson.dumps({"jsonrpc": "2.0", "id": number, "method": "unsubscribe", "params": {"subId": name}}).decode()


def changed(frame: str) -> str | None:
    """The subscription that a frame says has changed; None for all else that a mint may send."""
    body = _read(frame)
    params = body.get("params") if body.get("method") == "subscribe" else None
    if type(params) is not dict:
        return None
    name, payload = params.get("subId"), params.get("payload")
    state = payload.get("state") if type(payload) is dict else None
    return name if type(name) is str and type(state) is str and state not in _QUIET else None


def granted(frame: str) -> str | None:
    """The subscription that a frame says is in force; None for all else that a mint may send."""
    result = _read(frame).get("result")
    name = result.get("subId") if type(result) is dict and result.get("status") == "OK" else None
    return name if type(name) is str else None


def _read(frame: str) -> dict[str, Any]:
    """A frame's object; empty if it is none, or too long."""
    if len(frame) > MAX_FRAME:
        return {}
    try:
        body = orjson.loads(frame)
    except orjson.JSONDecodeError:
        return {}
    return body if type(body) is dict else {}
