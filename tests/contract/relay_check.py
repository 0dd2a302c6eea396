"""What a relay owes its clients, NIP by NIP, as checks that any relay can be put to. Written from the NIPs' texts.

A check is an async function over a relay's address; it raises AssertionError where the relay does otherwise. Each
works with fresh keys, so that all of them can run at once on one relay.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from typing import Any

from relays.event import Draft, Event
from relays.key import Key
from tests.contract.wire_part import QUIET, NoAnswer, Refused, connected

Check = Callable[[str], Awaitable[None]]
OPEN: dict[str, Check] = {}  # for any relay
GUARDED: dict[str, Check] = {}  # for a relay that hands letters to their parties alone (NIP-42)


def check(function: Check) -> Check:
    OPEN[function.__name__] = function
    return function


def guarded(function: Check) -> Check:
    GUARDED[function.__name__] = function
    return function


def now() -> int:
    return int(time.time())


def event(key: Key, kind: int = 1, content: str = "", tags: Any = (), at: int | None = None) -> Event:
    shaped = tuple(tuple(str(part) for part in tag) for tag in tags)
    return key.sign(Draft(kind, content, shaped, now() if at is None else at))


def body(one: Event) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(one.to_json())
    return found


# ---- NIP-01: events


@check
async def nip01_an_accepted_event_is_served_as_it_was(url: str) -> None:
    key = Key.generate()
    text = 'tab\t newline\n return\r quote" backslash\\ slash/ backspace\b formfeed\f ü ✓ 🍕\u2028 \u0001'
    made = event(key, content=text, tags=[("t", "Grüße"), ("x", ""), ("empty",)])
    async with connected(url) as wire:
        assert await wire.publish(made) == (True, "")
        assert await wire.ask({"ids": [made.id]}) == [body(made)]


@check
async def nip01_a_repeated_event_is_a_success(url: str) -> None:
    made = event(Key.generate())
    async with connected(url) as wire:
        await wire.put(made)
        accepted, reason = await wire.publish(made)
        assert accepted, reason
        assert reason.startswith("duplicate:"), reason
        assert len(await wire.ask({"ids": [made.id]})) == 1


@check
async def nip01_a_wrong_id_is_invalid(url: str) -> None:
    made = body(event(Key.generate()))
    async with connected(url) as wire:
        accepted, reason = await wire.publish(made | {"content": "something else"})
        assert not accepted
        assert reason.startswith("invalid:"), reason
        assert await wire.ids({"ids": [made["id"]]}) == []


@check
async def nip01_a_wrong_signature_is_invalid(url: str) -> None:
    key = Key.generate()
    made, other = body(event(key, content="one")), body(event(key, content="two"))
    async with connected(url) as wire:
        accepted, reason = await wire.publish(made | {"sig": other["sig"]})
        assert not accepted
        assert reason.startswith("invalid:"), reason
        assert await wire.ids({"ids": [made["id"]]}) == []


@check
async def nip01_a_forged_body_under_a_stored_id_is_not_served(url: str) -> None:
    made = event(Key.generate(), content="genuine")
    async with connected(url) as wire:
        await wire.put(made)
        await wire.publish(body(made) | {"content": "forged"})
        assert await wire.ask({"ids": [made.id]}) == [body(made)]


@check
async def nip01_an_event_of_another_key_is_invalid(url: str) -> None:
    made = body(event(Key.generate()))
    async with connected(url) as wire:
        accepted, _ = await wire.publish(made | {"pubkey": Key.generate().pubkey})
        assert not accepted


# ---- NIP-01: requests


@check
async def nip01_each_filter_field_selects(url: str) -> None:
    one, two, mark = Key.generate(), Key.generate(), Key.generate().pubkey
    at = now() - 1_000
    first = event(one, 1, "a", [("t", mark), ("e", "ab" * 32)], at)
    second = event(one, 7, "b", [("t", mark)], at + 10)
    third = event(two, 1, "c", [("t", mark + "x")], at + 20)
    async with connected(url) as wire:
        await wire.put(first, second, third)
        authors = [one.pubkey, two.pubkey]
        assert await wire.ids({"ids": [first.id, third.id]}) == [third.id, first.id]
        assert await wire.ids({"authors": authors}) == [third.id, second.id, first.id]
        assert await wire.ids({"authors": [one.pubkey], "kinds": [7]}) == [second.id]
        assert await wire.ids({"authors": authors, "kinds": [1, 7]}) == [third.id, second.id, first.id]
        assert await wire.ids({"#t": [mark]}) == [second.id, first.id]
        assert await wire.ids({"#t": [mark, mark + "x"], "kinds": [1]}) == [third.id, first.id]
        assert await wire.ids({"#t": [mark], "#e": ["ab" * 32]}) == [first.id]
        assert await wire.ids({"authors": authors, "since": at + 10}) == [third.id, second.id], "since is inclusive"
        assert await wire.ids({"authors": authors, "until": at + 10}) == [second.id, first.id], "until is inclusive"
        assert await wire.ids({"authors": authors, "since": at + 5, "until": at + 15}) == [second.id]
        assert await wire.ids({"authors": authors, "kinds": [9]}) == []


@check
async def nip01_only_the_first_value_of_a_tag_is_matched(url: str) -> None:
    key, mark = Key.generate(), Key.generate().pubkey
    made = event(key, tags=[("t", "first", mark)])
    async with connected(url) as wire:
        await wire.put(made)
        assert await wire.ids({"#t": [mark], "authors": [key.pubkey]}) == []


@check
async def nip01_ids_and_authors_are_matched_whole(url: str) -> None:
    key = Key.generate()
    made = event(key)
    async with connected(url) as wire:
        await wire.put(made)
        try:
            found = await wire.ids({"authors": [key.pubkey[:32]]})
        except (Refused, NoAnswer):
            found = []
        assert found == []


@check
async def nip01_a_limit_takes_the_newest_first(url: str) -> None:
    key, at = Key.generate(), now() - 1_000
    made = [event(key, content=str(number), at=at + number) for number in range(10)]
    async with connected(url) as wire:
        for one in (made[index] for index in (3, 7, 0, 9, 1, 8, 2, 6, 4, 5)):
            await wire.put(one)
        assert await wire.ids({"authors": [key.pubkey], "limit": 3}) == [one.id for one in made[:-4:-1]]


@check
async def nip01_ties_go_to_the_lowest_id(url: str) -> None:
    key, at = Key.generate(), now() - 1_000
    made = sorted((event(key, content=str(number), at=at) for number in range(6)), key=lambda one: one.id)
    async with connected(url) as wire:
        await wire.put(*reversed(made))
        assert await wire.ids({"authors": [key.pubkey]}) == [one.id for one in made]
        assert await wire.ids({"authors": [key.pubkey], "limit": 2}) == [one.id for one in made[:2]]


@check
async def nip01_a_limit_of_zero_is_live_only(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        await wire.put(event(key, content="before"))
        sub = await wire.open({"authors": [key.pubkey], "limit": 0})
        assert sub.stored == []
        after = event(key, content="after")
        await wire.put(after)
        assert (await sub.event())["id"] == after.id


@check
async def nip01_filters_are_joined_by_or(url: str) -> None:
    one, two = Key.generate(), Key.generate()
    first, second = event(one, at=now() - 20), event(two, at=now() - 10)
    async with connected(url) as wire:
        await wire.put(first, second)
        found = await wire.ids({"authors": [one.pubkey]}, {"authors": [two.pubkey]})
        assert sorted(found) == sorted([first.id, second.id])


@check
async def nip01_an_event_that_two_filters_match_comes_once(url: str) -> None:
    key = Key.generate()
    made = event(key)
    async with connected(url) as wire:
        await wire.put(made)
        assert await wire.ids({"authors": [key.pubkey]}, {"ids": [made.id]}) == [made.id]


@check
async def nip01_new_events_come_after_eose(url: str) -> None:
    key = Key.generate()
    async with connected(url) as reader, connected(url) as writer:
        sub = await reader.open({"authors": [key.pubkey], "kinds": [1]}, {"#p": [key.pubkey]})
        mine, mention = event(key), event(Key.generate(), tags=[("p", key.pubkey)])
        await writer.put(event(key, 7), mine, mention)
        assert [(await sub.event())["id"], (await sub.event())["id"]] == [mine.id, mention.id]
        assert await sub.is_silent()


@check
async def nip01_until_ends_a_live_subscription_too(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        sub = await wire.open({"authors": [key.pubkey], "until": now() - 600})
        await wire.put(event(key))
        assert await sub.is_silent()


@check
async def nip01_close_ends_a_subscription(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        sub = await wire.open({"authors": [key.pubkey]})
        await wire.close(sub)
        await wire.ask({"authors": [key.pubkey]})
        await wire.put(event(key))
        while not await sub.is_silent():
            raise AssertionError("it went on")


@check
async def nip01_a_request_with_the_same_id_replaces_the_first(url: str) -> None:
    one, two = Key.generate(), Key.generate()
    async with connected(url) as wire:
        await wire.open({"authors": [one.pubkey]}, sub="same")
        sub = await wire.open({"authors": [two.pubkey]}, sub="same")
        await wire.put(event(one))
        made = event(two)
        await wire.put(made)
        assert (await sub.event())["id"] == made.id


@check
async def nip01_subscription_ids_belong_to_their_connection(url: str) -> None:
    one, two = Key.generate(), Key.generate()
    async with connected(url) as first, connected(url) as second:
        mine = await first.open({"authors": [one.pubkey]}, sub="shared")
        theirs = await second.open({"authors": [two.pubkey]}, sub="shared")
        await second.close(theirs)
        made = event(one)
        await second.put(made)
        assert (await mine.event())["id"] == made.id


@check
async def nip01_a_long_subscription_id_is_not_served(url: str) -> None:
    async with connected(url) as wire:
        try:
            await asyncio.wait_for(wire.open({"ids": ["ab" * 32]}, sub="x" * 65), 1.5)
        except (Refused, TimeoutError):
            return
        raise AssertionError("65 characters were accepted; NIP-01 ends at 64")


@check
async def nip01_junk_is_answered_and_the_connection_lives(url: str) -> None:
    async with connected(url) as wire:
        for junk in ("{", "[]", "null", '["EVENT"]', '["NONSENSE","x"]', '["REQ"]', "[1,2]", '["EVENT",{"id":1}]'):
            await wire.say_raw(junk)
        await asyncio.sleep(QUIET)
        assert wire.is_open
        assert not wire.notices.empty(), "nothing was said about any of it"
        await wire.put(event(Key.generate()))


# ---- NIP-01: kinds


@check
async def nip01_a_replaceable_kind_keeps_its_newest(url: str) -> None:
    async with connected(url) as wire:
        for kind in (0, 3, 10_000, 10_002, 19_999):
            key = Key.generate()
            old, new = event(key, kind, "old", at=now() - 20), event(key, kind, "new", at=now() - 10)
            await wire.put(old, new)
            assert await wire.ids({"authors": [key.pubkey], "kinds": [kind]}) == [new.id], kind
            assert await wire.ids({"ids": [old.id]}) == [], kind


@check
async def nip01_an_old_version_that_comes_late_changes_nothing(url: str) -> None:
    key = Key.generate()
    old, new = event(key, 10_000, "old", at=now() - 20), event(key, 10_000, "new", at=now() - 10)
    async with connected(url) as wire:
        await wire.put(new)
        await wire.publish(old)
        assert await wire.ids({"authors": [key.pubkey], "kinds": [10_000]}) == [new.id]


@check
async def nip01_of_two_versions_of_one_second_the_lowest_id_stays(url: str) -> None:
    at = now() - 10
    async with connected(url) as wire:
        for turn in (1, -1):
            key = Key.generate()
            both = sorted((event(key, 30_000, text, [("d", "x")], at) for text in "ab"), key=lambda one: one.id)
            for one in both[::turn]:
                await wire.publish(one)
            assert await wire.ids({"authors": [key.pubkey], "kinds": [30_000]}) == [both[0].id], turn


@check
async def nip01_an_addressable_kind_keeps_one_for_each_d(url: str) -> None:
    key, at = Key.generate(), now() - 100
    old = event(key, 30_078, "old", [("d", "one")], at)
    new = event(key, 30_078, "new", [("d", "one")], at + 1)
    other = event(key, 30_078, "other", [("d", "two")], at + 2)
    nameless = event(key, 30_078, "nameless", [], at + 3)
    empty = event(key, 30_078, "empty", [("d", "")], at + 4)
    kind = event(key, 30_079, "another kind", [("d", "one")], at + 5)
    async with connected(url) as wire:
        await wire.put(old, new, other, nameless, empty, kind)
        mine = {"authors": [key.pubkey]}
        assert await wire.ids(mine) == [kind.id, empty.id, other.id, new.id], "no d and an empty d are one address"
        assert await wire.ids(mine | {"#d": ["one"], "kinds": [30_078]}) == [new.id]


@check
async def nip01_an_ephemeral_event_is_passed_on_and_not_kept(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        sub = await wire.open({"authors": [key.pubkey]})
        made = event(key, 20_001, "now or never")
        await wire.publish(made)
        assert (await sub.event())["id"] == made.id
        assert await wire.ids({"authors": [key.pubkey]}) == []
