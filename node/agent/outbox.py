"""What went out in an agent's name, or from the whole node: effects, as the ledger has them (DESIGN §5).

The ledger's entries have rising numbers and are never deleted, so they are the log that is watched; what else is known
of an effect is looked up by its id. An agent sees its own effects and no others. As far back as `REACH` entries of the
node are looked at for one who asks for the past; the ledger itself has them all.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.identifier import is_hex64
from core.unit import Among, Condition, Row, UnitOfWork, Within
from fs.feed import Feed
from fs.protocol import Record
from fs.tail import Following, Page, Tail

TOPIC = "ledger"
"""The feed's name for the ledger: it grows with every entry."""
REACH = 20_000
PAGE = 200
COUNTED = 1_000
PAUSE_S = 0.5  # one look for all that came meanwhile: an agent's own entries are few among the node's
LATE_S = 5  # entries get their numbers before they are committed: one that is left out may still come
_LOOKED_AT = 5_000
_REASON = 300

STATES = {"begin": "queued", "commit": "sent", "fail": "refused", "unknown": "unknown"}
_WHAT = (
    ("/nostr/dm/", "message"), ("/nostr/file/", "file"), ("/nostr/react/", "reaction"), ("/nostr/", "event"),
    ("/compute/", "job"), ("/containers/", "job"), ("/serve/", "sale"), ("/wallet/", "payment"),
    ("/identity/sign", "signature"), ("/identity/", "key"),
)  # fmt: skip
_NOTED = ("signature", "event")  # the kind of their event stands in the entry of their beginning
_STANDING = "/standing"  # the node's own upkeep of a day: nobody asked for it
_LAST = (1 << 63) - 1
_ENTRY = ("n", "type", "effect_id", "raw")
_EFFECT = ("id", "caller", "path", "subject", "unit", "reserved", "cost")


def what_of(path: str) -> str:
    """What kind of effect a path stands for."""
    return next((what for prefix, what in _WHAT if path.startswith(prefix)), "other")


class NodeOutbox:
    """What went out.

    Args:
        unit: the database.
        clock: time.
        feed: tells watchers.
        caller: whose effects, as the gate names it; None for all.
    """

    def __init__(self, unit: UnitOfWork, clock: Clock, feed: Feed, caller: str | None = None) -> None:
        self._unit, self._clock, self._feed, self._caller = unit, clock, feed, caller

    # ---- as a file service sees it

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last effects with their last state, oldest first; looked for among the last 5,000 entries."""
        found: dict[str, dict[str, Any]] = {}
        low, looked = _LAST, 0
        while len(found) < limit and looked < _LOOKED_AT:
            where: dict[str, Condition] = {"n": Within(high=low)}
            rows = await self._unit.select("entry", where, order=("-n",), limit=PAGE, columns=_ENTRY)
            for one in await self.shown(rows):
                found.setdefault(one["effect_id"], one)
            if len(rows) < PAGE:
                break
            low, looked = rows[-1]["n"], looked + PAGE
        return list(found.values())[:limit][::-1]

    async def count(self) -> dict[str, int]:
        """How many effects have not ended, and of how many nobody knows whether they have."""
        where: dict[str, Condition] = {} if self._caller is None else {"caller": self._caller}
        found = {}
        for name, state in (("queued", "begun"), ("unknown", "unknown")):
            rows = await self._unit.select("effect", {**where, "state": state}, limit=COUNTED, columns=("path",))
            found[name] = sum(1 for row in rows if row["path"] != _STANDING)
        return found

    def follow(self, after: int | None) -> Following:
        """Effects past a cursor as they begin and end."""
        name = f"outbox:{self._caller or ''}"
        return self._feed.shared(name, lambda: Tail(self._feed, TOPIC, self, PAUSE_S)).follow(after)

    # ---- as `fs.tail.Source`

    async def span(self) -> tuple[int, int]:
        """The oldest entry that is looked at, and the newest."""
        newest = await self._unit.select("entry", order=("-n",), limit=1, columns=("n",))
        if not newest:
            return 1, 0
        last = int(newest[0]["n"])
        return max(1, last - REACH + 1), last

    async def page(self, after: int) -> Page:
        """The next entries past a number."""
        after = max(after, (await self.span())[0] - 1)
        where: dict[str, Condition] = {"n": Within(low=after + 1)}
        rows = await self._unit.select("entry", where, order=("n",), limit=PAGE, columns=_ENTRY)
        settled = self._settled(rows, after)
        records = [Record(one["id"], orjson.dumps(one), one["state"]) for one in await self.shown(settled)]
        cursor = settled[-1]["n"] if settled else after
        return Page(records, cursor, len(rows) == len(settled) == PAGE)

    def _settled(self, rows: Sequence[Row], after: int) -> Sequence[Row]:
        """The entries up to the first number that is left out and may still come from another process."""
        for place, row in enumerate(rows):
            if row["n"] != after + 1 and orjson.loads(row["raw"])["created_at"] > self._clock.now() - LATE_S:
                return rows[:place]
            after = row["n"]
        return rows

    # ---- what is known of an effect

    async def shown(self, entries: Sequence[Row]) -> list[dict[str, Any]]:
        """These entries, as far as they are the caller's, as `fs.service.outbox.Sent`."""
        rows = [row for row in entries if row["type"] in STATES]
        effects = await self._effects({row["effect_id"] for row in rows})
        mine = [row for row in rows if row["effect_id"] in effects]
        if not mine:
            return []
        kinds = await self._kinds(effects)
        events: dict[str, str] = {}
        for name, effect in effects.items():
            subject = str(effect["subject"]).partition(":")[0]
            events[name] = kinds.get(name, {}).get("request_id") or (subject if is_hex64(subject) else "")
        relays = await self._relays({one for one in events.values() if one})
        return [
            _shown(
                row, effects[row["effect_id"]], kinds.get(row["effect_id"], {}), relays.get(events[row["effect_id"]])
            )
            for row in mine
        ]

    async def _effects(self, names: set[str]) -> dict[str, Row]:
        """The caller's among these effects. What is not there any more is taken from the entry of its beginning."""
        if not names:
            return {}
        where: dict[str, Condition] = {"id": Among(tuple(names))}
        found = {row["id"]: row for row in await self._unit.select("effect", where, columns=_EFFECT)}
        if gone := names - found.keys():
            begun: dict[str, Condition] = {"effect_id": Among(tuple(gone)), "type": "begin"}
            for row in await self._unit.select("entry", begun, columns=("effect_id", "raw")):
                found[row["effect_id"]] = _begun(_content(row))
        return {
            name: row
            for name, row in found.items()
            if row["path"] != _STANDING and self._caller in (None, row["caller"])
        }

    async def _kinds(self, effects: Mapping[str, Row]) -> dict[str, Row]:
        """Of jobs, messages and what was signed the kind of the event; of jobs also its id."""
        where: dict[str, Condition] = {"effect_id": Among(tuple(effects))}
        found: dict[str, Row] = {}
        for table, columns in (("message", ("effect_id", "kind")), ("purchase", ("effect_id", "kind", "request_id"))):
            found |= {row["effect_id"]: row for row in await self._unit.select(table, where, columns=columns)}
        names = tuple(name for name in effects.keys() - found.keys() if what_of(effects[name]["path"]) in _NOTED)
        if names:
            begun: dict[str, Condition] = {"effect_id": Among(names), "type": "begin"}
            for row in await self._unit.select("entry", begun, columns=("effect_id", "raw")):
                found[row["effect_id"]] = {"kind": (_content(row).get("note") or {}).get("kind")}
        return found

    async def _relays(self, events: set[str]) -> dict[str, list[dict[str, str]]]:
        found: dict[str, list[dict[str, str]]] = {}
        if events:
            where: dict[str, Condition] = {"event_id": Among(tuple(events))}
            columns = ("event_id", "relay", "state")
            for row in await self._unit.select("outbox", where, order=("event_id", "relay"), columns=columns):
                found.setdefault(row["event_id"], []).append({"url": row["relay"], "state": row["state"]})
        return found


def _content(row: Row) -> dict[str, Any]:
    found: dict[str, Any] = orjson.loads(orjson.loads(row["raw"])["content"])
    return found


def _begun(content: Mapping[str, Any]) -> Row:
    """An effect from the entry of its beginning."""
    reserve = content.get("reserve") or {}
    return {
        "caller": str(content.get("caller", "")), "path": str(content.get("path", "")),
        "subject": str(content.get("subject", "")), "unit": reserve.get("unit"),
        "reserved": reserve.get("value", 0), "cost": 0,
    }  # fmt: skip


def _shown(entry: Row, effect: Row, kind: Row, relays: list[dict[str, str]] | None) -> dict[str, Any]:
    event, content = orjson.loads(entry["raw"]), _content(entry)
    detail = content.get("detail") or {}
    cost = (content.get("cost") or {}).get("value", effect["cost"])
    money = {"unit": effect["unit"], "reserved": effect["reserved"], "cost": cost} if effect["unit"] else {}
    reason = str(detail.get("reason") or detail.get("code") or "")[:_REASON] if entry["type"] == "fail" else ""
    one: dict[str, Any] = {
        "id": entry["n"],
        "at_ms": event["created_at"] * 1_000,
        "effect_id": entry["effect_id"],
        "caller": effect["caller"],
        "path": effect["path"],
        "what": what_of(effect["path"]),
        "state": STATES[entry["type"]],
        "subject": str(effect["subject"]),
        "kind": kind.get("kind"),
        "relays": relays,
        "reason": reason or None,
        **money,
    }
    return {name: value for name, value in one.items() if value is not None}
