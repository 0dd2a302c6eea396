"""What a relay owes its clients beyond NIP-01: NIPs 09, 11, 40, 45, 50, 59, 62, 65 and 70."""

import asyncio
import json
import time
from typing import Any

import aiohttp

from relays.key import Key
from tests.contract.relay_check import check, event, now
from tests.contract.wire_part import Refused, connected

# ---- NIP-09: deletion


@check
async def nip09_an_author_deletes_by_id(url: str) -> None:
    key = Key.generate()
    gone, kept = event(key, content="gone", at=now() - 20), event(key, content="kept", at=now() - 10)
    wish = event(key, 5, "", [("e", gone.id), ("k", "1")])
    async with connected(url) as wire:
        await wire.put(gone, kept, wish)
        assert await wire.ids({"authors": [key.pubkey], "kinds": [1]}) == [kept.id]
        assert await wire.ids({"ids": [wish.id]}) == [wish.id], "the request itself is kept and served"


@check
async def nip09_what_was_deleted_does_not_come_back(url: str) -> None:
    key = Key.generate()
    gone = event(key, at=now() - 20)
    async with connected(url) as wire:
        await wire.put(gone, event(key, 5, "", [("e", gone.id)]))
        accepted, _ = await wire.publish(gone)
        assert not accepted
        assert await wire.ids({"ids": [gone.id]}) == []


@check
async def nip09_nobody_deletes_for_another(url: str) -> None:
    made = event(Key.generate(), at=now() - 20)
    async with connected(url) as wire:
        await wire.put(made)
        await wire.publish(event(Key.generate(), 5, "", [("e", made.id)]))
        assert await wire.ids({"ids": [made.id]}) == [made.id]


@check
async def nip09_a_foreign_wish_does_not_keep_an_event_away(url: str) -> None:
    made = event(Key.generate(), at=now() - 20)
    async with connected(url) as wire:
        await wire.publish(event(Key.generate(), 5, "", [("e", made.id)]))
        await wire.put(made)


@check
async def nip09_an_address_is_deleted_up_to_the_date_of_the_wish(url: str) -> None:
    key, at = Key.generate(), now() - 100
    address = f"30078:{key.pubkey}:x"
    old = event(key, 30_078, "old", [("d", "x")], at)
    wish = event(key, 5, "", [("a", address)], at + 10)
    late, new = event(key, 30_078, "late", [("d", "x")], at + 5), event(key, 30_078, "new", [("d", "x")], at + 20)
    async with connected(url) as wire:
        await wire.put(old, wish)
        assert await wire.ids({"authors": [key.pubkey], "kinds": [30_078]}) == []
        await wire.publish(late)
        assert await wire.ids({"authors": [key.pubkey], "kinds": [30_078]}) == []
        await wire.put(new)
        assert await wire.ids({"authors": [key.pubkey], "kinds": [30_078]}) == [new.id]


@check
async def nip09_deleting_a_deletion_has_no_effect(url: str) -> None:
    key = Key.generate()
    gone = event(key, at=now() - 30)
    wish = event(key, 5, "", [("e", gone.id)], now() - 20)
    async with connected(url) as wire:
        await wire.put(gone, wish)
        await wire.publish(event(key, 5, "", [("e", wish.id)], now() - 10))
        accepted, _ = await wire.publish(gone)
        assert not accepted


# ---- NIP-11: information


async def _information(url: str) -> tuple[dict[str, Any], aiohttp.ClientResponse]:
    async with aiohttp.ClientSession() as http:
        try:
            async with http.get("http" + url[2:], headers={"Accept": "application/nostr+json"}) as answer:
                return json.loads(await answer.text()), answer
        except (aiohttp.ClientError, json.JSONDecodeError) as error:
            raise AssertionError(f"no NIP-11 document: {error!r}") from error


@check
async def nip11_a_document_says_what_the_relay_is(url: str) -> None:
    found, answer = await _information(url)
    assert answer.status == 200
    assert all(type(found.get(name)) is str for name in ("name", "description", "software", "version")), found
    assert 1 in found["supported_nips"]
    assert 11 in found["supported_nips"]
    assert all(type(nip) is int for nip in found["supported_nips"])
    assert "application/nostr+json" in answer.headers["Content-Type"]


@check
async def nip11_browsers_may_read_it(url: str) -> None:
    _, answer = await _information(url)
    assert answer.headers.get("Access-Control-Allow-Origin") == "*"


@check
async def nip11_its_limits_are_said(url: str) -> None:
    found, _ = await _information(url)
    limits = found["limitation"]
    for name in ("max_message_length", "max_subscriptions", "max_limit", "max_subid_length", "max_event_tags"):
        assert type(limits[name]) is int, name
        assert limits[name] > 0, name
    for name in ("auth_required", "payment_required", "restricted_writes"):
        assert type(limits[name]) is bool, name


@check
async def nip11_the_limit_on_results_is_kept(url: str) -> None:
    found, _ = await _information(url)
    most = found["limitation"]["max_limit"]
    async with connected(url) as wire:
        assert len(await wire.ask({"limit": most + 1_000})) <= most


# ---- NIP-40: expiry


@check
async def nip40_an_expired_event_is_not_taken(url: str) -> None:
    made = event(Key.generate(), tags=[("expiration", now() - 10)])
    async with connected(url) as wire:
        accepted, _ = await wire.publish(made)
        assert not accepted
        assert await wire.ids({"ids": [made.id]}) == []


@check
async def nip40_an_event_is_not_served_once_it_expires(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        end = now() + 8
        made, kept = event(key, tags=[("expiration", end)]), event(key, content="kept", at=now() - 5)
        await wire.put(made, kept)
        assert await wire.ids({"ids": [made.id]}) == [made.id]
        await asyncio.sleep(max(0.0, end + 1.2 - time.time()))
        assert await wire.ids({"authors": [key.pubkey]}) == [kept.id]
        assert await wire.ids({"authors": [key.pubkey], "limit": 1}) == [kept.id], "what has expired uses up no limit"


# ---- NIP-45: counting


@check
async def nip45_count_counts_what_the_request_would_give(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        made = [event(key, 1, str(number), at=now() - number) for number in range(5)]
        await wire.put(*made, event(key, 7))
        assert await wire.count({"authors": [key.pubkey]}) == 6
        assert await wire.count({"authors": [key.pubkey], "kinds": [1]}) == 5
        assert await wire.count({"authors": [Key.generate().pubkey]}) == 0


@check
async def nip45_many_filters_are_counted_once_each(url: str) -> None:
    key = Key.generate()
    made = event(key)
    async with connected(url) as wire:
        await wire.put(made)
        assert await wire.count({"authors": [key.pubkey]}, {"ids": [made.id]}) == 1


# ---- NIP-50: search


@check
async def nip50_a_word_is_found(url: str) -> None:
    key, word = Key.generate(), "kumquat"
    one = event(key, content=f"A {word.upper()} a day, they say", at=now() - 10)
    two = event(key, content="nothing of the sort", at=now() - 5)
    note = event(key, 30_023, f"about the {word}", [("d", "x")], now())
    async with connected(url) as wire:
        await wire.put(one, two, note)
        assert sorted(await wire.ids({"search": word, "authors": [key.pubkey]})) == sorted([one.id, note.id])
        assert await wire.ids({"search": word, "authors": [key.pubkey], "kinds": [1]}) == [one.id]
        assert await wire.ids({"search": "pomelo", "authors": [key.pubkey]}) == []


@check
async def nip50_all_words_count_and_unknown_extensions_do_not(url: str) -> None:
    key = Key.generate()
    both = event(key, content="the red bicycle is in the shed", at=now() - 10)
    only = event(key, content="a red car", at=now() - 5)
    async with connected(url) as wire:
        await wire.put(both, only)
        assert await wire.ids({"search": "bicycle red", "authors": [key.pubkey]}) == [both.id]
        assert await wire.ids({"search": "bicycle language:en", "authors": [key.pubkey]}) == [both.id]


@check
async def nip50_a_search_of_any_characters_is_answered(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        await wire.put(event(key, content="plain words"))
        for search in ('"', "'", "*", "NEAR(", "a OR", "NOT", "col:x", "(", "-", "^x", "\0", "ü ✓", "x" * 200, ""):
            try:
                await wire.ids({"search": search, "authors": [key.pubkey]})
            except Refused:
                continue
        assert await wire.ids({"search": "plain", "authors": [key.pubkey]}) != []


# ---- NIP-62: vanishing


@check
async def nip62_a_key_vanishes_and_stays_away(url: str) -> None:
    key, at = Key.generate(), now() - 100
    one, two = event(key, at=at), event(key, 30_078, "", [("d", "x")], at + 1)
    wish = event(key, 62, "goodbye", [("relay", "ALL_RELAYS")], now() - 10)
    stranger = event(Key.generate(), content="still here", tags=[("p", key.pubkey)], at=at)
    async with connected(url) as wire:
        await wire.put(one, two, stranger, wish)
        left = await wire.ids({"authors": [key.pubkey]})
        assert set(left) <= {wish.id}
        accepted, _ = await wire.publish(one)
        assert not accepted
        accepted, _ = await wire.publish(event(key, content="old news", at=at + 5))
        assert not accepted
        assert await wire.ids({"ids": [stranger.id]}) == [stranger.id]


@check
async def nip62_a_wish_for_this_relay_by_name_is_followed(url: str) -> None:
    key = Key.generate()
    made = event(key, at=now() - 50)
    async with connected(url) as wire:
        await wire.put(made, event(key, 62, "", [("relay", url)]))
        assert await wire.ids({"ids": [made.id]}) == []


@check
async def nip62_a_wish_for_another_relay_changes_nothing(url: str) -> None:
    key = Key.generate()
    made = event(key, at=now() - 50)
    async with connected(url) as wire:
        await wire.put(made)
        await wire.publish(event(key, 62, "", [("relay", "wss://elsewhere.example/")]))
        assert await wire.ids({"ids": [made.id]}) == [made.id]


@check
async def nip62_a_vanishing_cannot_be_deleted(url: str) -> None:
    key = Key.generate()
    made, wish = event(key, at=now() - 50), event(key, 62, "", [("relay", "ALL_RELAYS")], now() - 20)
    async with connected(url) as wire:
        await wire.put(made, wish)
        await wire.publish(event(key, 5, "", [("e", wish.id)], now() - 10))
        accepted, _ = await wire.publish(made)
        assert not accepted


# ---- NIP-65 and NIP-17: relay lists


@check
async def nip65_relay_lists_are_replaced(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        for kind, name in ((10_002, "r"), (10_050, "relay")):
            old = event(key, kind, "", [(name, "wss://one.example")], now() - 20)
            new = event(key, kind, "", [(name, "wss://two.example")], now() - 10)
            await wire.put(old, new)
            assert await wire.ids({"authors": [key.pubkey], "kinds": [kind]}) == [new.id]


@check
async def nip59_a_backdated_wrap_is_taken(url: str) -> None:
    receiver = Key.generate()
    made = event(Key.generate(), 1059, "sealed", [("p", receiver.pubkey)], now() - 2 * 86_400)
    async with connected(url) as wire:
        await wire.put(made)


# ---- NIP-70: protected events


@check
async def nip70_a_protected_event_is_not_taken_from_strangers(url: str) -> None:
    made = event(Key.generate(), tags=[("-",)])
    async with connected(url) as wire:
        accepted, reason = await wire.publish(made)
        assert not accepted
        assert reason.startswith(("auth-required:", "restricted:", "blocked:")), reason
        assert await wire.ids({"ids": [made.id]}) == []
