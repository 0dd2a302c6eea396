"""Events of one subscription on their way to its handler: in order for each key, keys beside each other."""

import asyncio
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import orjson

from core.clock import SystemClock
from relays.audience import Audience
from relays.delivery import Delivery
from relays.event import Draft
from relays.health import RelayHealth
from relays.key import Key
from relays.subscription import Spec, Stream

KIND = 1


@dataclass
class _Connection:
    url: str = "ws://relay"


@dataclass
class _Relay:
    """What a delivery needs of a relay."""

    connection: _Connection = field(default_factory=_Connection)
    health: RelayHealth = field(default_factory=lambda: RelayHealth("ws://relay"))

    def flush(self): ...

    def fault(self): ...


class _Post:
    """A delivery to an audience of so many keys, and what its handler saw begin and end."""

    def __init__(self, keys):
        self.audience = Audience("a", frozenset({KIND}), "p", lambda _: None, lambda _: None)
        self.keys = [f"{number:064x}" for number in range(keys)]
        for key in self.keys:
            self.audience.add(key)
        self.begun, self.ended, self.blocked = [], [], {}
        spec = Spec("a", ())
        self.delivery = Delivery(spec, self._handle, SystemClock(), self.audience.matches, lane=self.audience.lane)
        self._relay, self._stream = _Relay(), Stream(spec, None)
        self._author = Key.generate()
        self.changed = asyncio.Event()

    async def _handle(self, event, _relay):
        self.begun.append(event.content)
        self.changed.set()
        if event.content in self.blocked:
            await self.blocked[event.content].wait()
        if event.content.startswith("bad"):
            raise RuntimeError("a fault in the handler")
        self.ended.append(event.content)
        self.changed.set()

    def send(self, text, *keys):
        event = self._author.sign(Draft(KIND, text, tuple(("p", self.keys[key]) for key in keys), 1_700_000_000))
        self.delivery.offer(self._relay, self._stream, "sub", orjson.loads(event.to_json()), 500)

    async def until(self, condition):
        async with asyncio.timeout(10):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    @asynccontextmanager
    async def running(self):
        with ThreadPoolExecutor(1) as executor:
            worker = asyncio.create_task(self.delivery.run(executor))
            try:
                yield
            finally:
                for gate in self.blocked.values():
                    gate.set()
                self.delivery.stop()
                await asyncio.wait_for(worker, 10)


async def test_a_handler_that_waits_for_one_key_does_not_hold_up_another():
    post = _Post(2)
    post.blocked["slow"] = asyncio.Event()
    post.send("slow", 0)
    post.send("after it", 0)
    post.send("another", 1)

    async with post.running():
        await post.until(lambda: "another" in post.ended)

        assert post.ended == ["another"]
        assert post.begun[0] == "slow"
        assert "after it" not in post.begun, "the order of one key is kept"
        post.blocked["slow"].set()
        await post.until(lambda: len(post.ended) == 3)
        assert post.ended == ["another", "slow", "after it"]


async def test_events_for_one_key_are_handled_in_the_order_of_arrival_however_many_keys_there_are():
    post = _Post(40)
    texts = [f"{key} {number}" for number in range(6) for key in range(40)]
    for text in texts:
        post.send(text, int(text.split()[0]))

    async with post.running():
        await post.until(lambda: len(post.ended) == len(texts))

    for key in range(40):
        mine = [text for text in post.ended if text.split()[0] == str(key)]
        assert mine == [f"{key} {number}" for number in range(6)]


async def test_only_some_keys_are_served_at_once():
    post = _Post(100)
    for key in range(100):
        post.blocked[str(key)] = asyncio.Event()
        post.send(str(key), key)

    async with post.running():
        await post.until(lambda: len(post.begun) >= 16)
        await asyncio.sleep(0.05)
        assert len(post.begun) == 16
        for gate in post.blocked.values():
            gate.set()
        await post.until(lambda: len(post.ended) == 100)


async def test_a_fault_at_one_key_neither_stops_it_nor_others():
    post = _Post(3)
    for text, key in (("bad 0", 0), ("good 0", 0), ("bad 1", 1), ("good 2", 2)):
        post.send(text, key)

    async with post.running():
        await post.until(lambda: len(post.ended) == 2)

    assert sorted(post.ended) == ["good 0", "good 2"]


async def test_an_event_for_several_keys_and_one_that_comes_twice_are_handled_once():
    post = _Post(3)
    post.send("to all", 0, 1, 2)
    post.send("to all", 0, 1, 2)
    post.send("last", 0)

    async with post.running():
        await post.until(lambda: "last" in post.ended)

    assert post.ended == ["to all", "last"]


async def test_stopping_in_the_middle_finishes_what_was_begun_and_begins_nothing_new():
    post = _Post(30)
    for key in range(30):
        post.blocked[str(key)] = asyncio.Event()
        post.send(str(key), key)

    async with post.running():
        await post.until(lambda: len(post.begun) >= 16)
        post.delivery.stop()
        begun = list(post.begun)

    assert sorted(post.ended) == sorted(begun)


async def test_an_event_that_comes_once_more_is_told_by_its_id_but_not_while_what_is_stored_is_read():
    post, again = _Post(1), []
    post.delivery.repeated = again.append
    event = post._author.sign(Draft(KIND, "x", (("p", post.keys[0]),), 1_700_000_000))

    def come():
        post.delivery.offer(post._relay, post._stream, "sub", orjson.loads(event.to_json()), 500)

    come()
    come()
    async with post.running():
        await post.until(lambda: post.ended == ["x"])
        while post._relay.health.duplicates < 1:
            await asyncio.sleep(0.01)
        assert again == []
        post._stream.whole = True
        come()
        while post._relay.health.duplicates < 2:
            await asyncio.sleep(0.01)
    assert again == [event.id]
    assert post.ended == ["x"]
