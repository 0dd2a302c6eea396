"""What the operator sees of the relays is what the pool counted and what the relays said."""

import orjson

from core.unit import Insert
from fs.tree import json_bytes
from node.overview import TABLE, RelayOverview
from node.storage.memory import MemoryDatabase
from relays.health import RelayHealth
from relays.nip11 import Information


class Watched:
    urls = ("wss://b.ours", "wss://a.ours")

    def __init__(self, *states: RelayHealth) -> None:
        self.states = list(states)

    def health(self) -> list[RelayHealth]:
        return self.states


async def test_our_relays_come_first_in_their_order_with_every_counter() -> None:
    pool = Watched(
        RelayHealth("wss://x.theirs"), RelayHealth("wss://a.ours", up=True, received=4), RelayHealth("wss://b.ours")
    )
    rows = await RelayOverview(pool, MemoryDatabase()).relays()
    assert [(row["url"], row["ours"]) for row in rows] == [
        ("wss://b.ours", True), ("wss://a.ours", True), ("wss://x.theirs", False),
    ]  # fmt: skip
    assert (rows[1]["up"], rows[1]["received"], rows[1]["reconnects"], rows[1]["delay"]) == (True, 4, 0, None)
    pool.states[1].delay.add(0.025)
    rows = await RelayOverview(pool, MemoryDatabase()).relays()
    assert rows[1]["delay"] == {"p50_ms": 25.0, "p99_ms": 25.0}
    assert orjson.loads(json_bytes(rows)) == rows
    assert {row["information"] for row in rows} == {row["asked_at"] for row in rows} == {None}


async def test_what_a_relay_said_and_what_was_found_out_is_shown_with_its_date() -> None:
    db = MemoryDatabase()
    said = Information(name="ours", supported_nips=frozenset({1, 77}), max_subscriptions=20)
    await db.commit(
        [
            Insert(TABLE, {"url": "wss://a.ours", "information": said.to_json(), "traits": '{"keys":"one"}', "at": 77}),
            Insert(TABLE, {"url": "wss://b.ours", "information": "", "traits": "{", "at": 78}),
            Insert(TABLE, {"url": "wss://c.ours", "information": "{}", "traits": "{}", "at": 79}),
        ]
    )
    rows = await RelayOverview(Watched(RelayHealth("wss://a.ours"), RelayHealth("wss://b.ours")), db).relays()
    assert [(row["information"], row["traits"], row["asked_at"]) for row in rows] == [
        (None, None, 78),
        ({"name": "ours", "supported_nips": [1, 77], "limitation": {"max_subscriptions": 20}}, {"keys": "one"}, 77),
    ]


async def test_without_relays_there_is_nothing_to_see() -> None:
    overview = RelayOverview(Watched(), MemoryDatabase())
    assert await overview.relays() == overview.counters() == []
