"""The ledger's entries: Nostr events (NIP-01) of kind 2790, signed by the node, each naming the one before it.

Tags: `r` run, `s` number in the run, `e` the entry before (absent in the first), `t` type, `k` effect. The content
is JSON. Entries stay in the database; the id of one fixes all that came before it in its run.
"""

from collections.abc import Mapping
from typing import Any

import orjson

from core.unit import Append, Row
from node.gate.redaction import scrub
from node.storage.chain import Head, Seal
from relays.event import Draft
from relays.key import Key
from relays.kind import LEDGER_ENTRY

_MAX_TEXT = 1_000
_MAX_BODY = 4_000


def entry_tags(run: str, seq: int, prev: str, type_: str, effect_id: str) -> tuple[tuple[str, ...], ...]:
    """The tags of the entry at this place."""
    first, last = (("r", run), ("s", str(seq))), (("t", type_), ("k", effect_id))
    return (*first, ("e", prev, "", "prev"), *last) if prev else (*first, *last)


def ledger_seal(key: Key) -> Seal:
    """Signs entries with the node's key, at their places; on SQLite in the writer's thread."""

    def seal(head: Head, entry: Append) -> Row:
        marks = entry_tags(head.run, head.seq, head.prev, entry.type, entry.effect_id)
        event = key.sign(Draft(LEDGER_ENTRY, scrub(entry.body), marks, head.at))
        return {
            "run": head.run,
            "seq": head.seq,
            "id": event.id,
            "prev": head.prev,
            "type": entry.type,
            "effect_id": entry.effect_id,
            "raw": event.to_json(),
        }

    return seal


def _bounded(value: Any) -> Any:
    if isinstance(value, str):
        text = value.encode(errors="replace").decode()
        return text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "…"
    if isinstance(value, Mapping):
        return {_bounded(str(key)): _bounded(item) for key, item in value.items()}
    return value


def body(facts: Mapping[str, Any]) -> str:
    """An entry's content: JSON with sorted names, no long texts and no secrets that show by their form."""
    try:
        text = orjson.dumps(facts, option=orjson.OPT_SORT_KEYS)
    except TypeError:  # broken Unicode, or a mapping that is no dict
        text = b""
    if not text or len(text) > _MAX_BODY:
        text = orjson.dumps(_bounded(facts), option=orjson.OPT_SORT_KEYS)
    return scrub(text.decode())
