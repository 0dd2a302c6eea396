"""What a relay that knows its readers owes them (NIP-42): letters go to their parties alone (NIP-04, NIP-17)."""

import asyncio
from typing import Any

from relays.event import Event
from relays.key import Key
from tests.contract.relay_check import event, guarded, now
from tests.contract.wire_part import QUIET, NoAnswer, Refused, connected

# ---- NIP-42: who is who, and letters for their parties alone


def letter(sender: Key, receiver: Key, kind: int = 1059) -> Event:
    signer = Key.generate() if kind == 1059 else sender
    return event(signer, kind, "sealed", [("p", receiver.pubkey)], now() - 60)


@guarded
async def nip42_a_challenge_is_answered(url: str) -> None:
    async with connected(url) as wire, connected(url) as other:
        assert await wire.challenge() != await other.challenge()
        accepted, reason = await wire.auth(Key.generate())
        assert accepted, reason


@guarded
async def nip42_a_wrong_answer_is_refused(url: str) -> None:
    key = Key.generate()
    wrong: list[dict[str, Any]] = [
        {"challenge": "another"}, {"relay": "wss://elsewhere.example"}, {"kind": 1}, {"at": now() - 3_600},
        {"at": now() + 3_600}, {"body": {"content": "changed"}}, {"body": {"sig": "00" * 64}},
    ]  # fmt: skip
    async with connected(url) as wire:
        await wire.challenge()
        for change in wrong:
            try:
                accepted, _ = await wire.auth(key, **change)
            except NoAnswer:
                continue
            assert not accepted, change
        await _is_kept_out(url, key, wire)


async def _is_kept_out(url: str, key: Key, wire: Any) -> None:
    try:
        found = await wire.ids({"kinds": [1059], "#p": [key.pubkey]})
    except Refused as refused:
        if not str(refused).startswith(("auth-required:", "restricted:")):
            raise AssertionError(f"refused without one of NIP-42's words: {refused}") from refused
        return
    raise AssertionError(f"served {found} to somebody who had not proved a thing")


@guarded
async def nip42_a_proof_is_no_event_for_others(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire, connected(url) as reader:
        await reader.auth(Key.generate())
        sub = await reader.open({"authors": [key.pubkey]})
        await wire.auth(key)
        assert await sub.is_silent()
        assert await reader.ids({"authors": [key.pubkey]}) == []


@guarded
async def nip42_letters_are_asked_for_by_name(url: str) -> None:
    key = Key.generate()
    async with connected(url) as wire:
        await _is_kept_out(url, key, wire)


@guarded
async def nip42_a_party_reads_its_letters(url: str) -> None:
    sender, receiver = Key.generate(), Key.generate()
    async with connected(url) as writer, connected(url) as reader:
        await writer.auth(sender)
        wrap, old = letter(sender, receiver), letter(sender, receiver, 4)
        await writer.put(wrap, old)
        await reader.auth(receiver)
        assert await reader.ids({"kinds": [1059], "#p": [receiver.pubkey]}) == [wrap.id]
        assert await reader.ids({"kinds": [4], "#p": [receiver.pubkey]}) == [old.id]
        assert await writer.ids({"kinds": [4], "authors": [sender.pubkey]}) == [old.id], "its author is a party too"


@guarded
async def nip42_live_letters_reach_their_receiver(url: str) -> None:
    sender, receiver = Key.generate(), Key.generate()
    async with connected(url) as writer, connected(url) as reader:
        await writer.auth(sender)
        await reader.auth(receiver)
        sub = await reader.open({"kinds": [1059], "#p": [receiver.pubkey]})
        wrap = letter(sender, receiver)
        await writer.put(wrap)
        assert (await sub.event())["id"] == wrap.id


async def _leaks(wire: Any, secret: Event, *filters: dict[str, Any]) -> bool:
    try:
        return secret.id in await wire.ids(*filters)
    except Refused:
        return False


@guarded
async def nip42_nobody_reads_the_letters_of_others(url: str) -> None:
    sender, receiver, snoop = Key.generate(), Key.generate(), Key.generate()
    wrap = letter(sender, receiver)
    async with connected(url) as writer, connected(url) as reader, connected(url) as nobody:
        await writer.auth(sender)
        await writer.put(wrap)
        await reader.auth(snoop)
        for wire in (reader, nobody):
            for wanted in (
                {"kinds": [1059], "#p": [receiver.pubkey]}, {"ids": [wrap.id]}, {"kinds": [1059]}, {"limit": 500},
                {"authors": [wrap.pubkey]}, {"#p": [receiver.pubkey, snoop.pubkey]}, {"since": now() - 600},
            ):  # fmt: skip
                assert not await _leaks(wire, wrap, wanted), wanted
            assert not await _leaks(wire, wrap, {"ids": ["ab" * 32]}, {"ids": [wrap.id]}), "the second filter"


@guarded
async def nip42_live_letters_of_others_stay_away(url: str) -> None:
    sender, receiver, snoop = Key.generate(), Key.generate(), Key.generate()
    async with connected(url) as writer, connected(url) as reader:
        await writer.auth(sender)
        await reader.auth(snoop)
        subs = []
        for wanted in ({"since": now() - 600}, {"#p": [receiver.pubkey]}, {"kinds": [1059]}):
            try:
                subs.append(await reader.open(wanted | {"limit": 0}))
            except Refused:
                continue
        wrap = letter(sender, receiver)
        await writer.put(wrap)
        await asyncio.sleep(QUIET)
        for sub in subs:
            while not sub.frames.empty():
                frame = sub.frames.get_nowait()
                assert frame[0] != "EVENT" or frame[2]["id"] != wrap.id


@guarded
async def nip42_counting_tells_nothing_about_letters_of_others(url: str) -> None:
    sender, receiver, snoop = Key.generate(), Key.generate(), Key.generate()
    async with connected(url) as writer, connected(url) as reader:
        await writer.auth(sender)
        await writer.put(letter(sender, receiver), letter(sender, receiver))
        await reader.auth(snoop)
        try:
            assert await reader.count({"kinds": [1059], "#p": [receiver.pubkey]}) == 0
        except Refused:
            return


@guarded
async def nip42_one_connection_may_prove_many_keys(url: str) -> None:
    sender, one, two = Key.generate(), Key.generate(), Key.generate()
    async with connected(url) as writer, connected(url) as reader:
        await writer.auth(sender)
        first, second = letter(sender, one), letter(sender, two)
        await writer.put(first, second)
        assert (await reader.auth(one))[0]
        assert (await reader.auth(two))[0]
        assert await reader.ids({"kinds": [1059], "#p": [one.pubkey]}) == [first.id]
        assert await reader.ids({"kinds": [1059], "#p": [two.pubkey]}) == [second.id]


@guarded
async def nip70_a_protected_event_is_taken_from_its_author(url: str) -> None:
    key = Key.generate()
    made, other = event(key, tags=[("-",)]), event(Key.generate(), tags=[("-",)])
    async with connected(url) as wire:
        await wire.auth(key)
        await wire.put(made)
        accepted, _ = await wire.publish(other)
        assert not accepted
