"""Every relay is put to the same checks in raw frames. Ours passes all; how the foreign ones differ is written down.

The table of differences is no excuse for anybody: it says what our pool meets out there, and it is exact: a foreign
relay (their versions are pinned) that starts or stops to differ fails here, and the table is mended.
"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
import pytest_asyncio

from relays.embedded.access import Access
from relays.event import Draft
from relays.key import Key
from tests.contract import relay_check_auth, relay_check_nip
from tests.contract.relay_check import GUARDED, OPEN, Check, event, now
from tests.contract.relay_difference import DIFFERENCES
from tests.contract.wire_part import NoAnswer, connected
from tests.foreign_part import SORTS, foreign_relay
from tests.integration.relays.embedded.relay_part import running

assert {relay_check_auth.__name__, relay_check_nip.__name__} <= {one.__module__ for one in (OPEN | GUARDED).values()}

ours_alone = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def ours(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with foreign_relay("ours", tmp_path_factory.mktemp("ours")) as url:
        yield url


@ours_alone
@pytest.mark.parametrize("name", [*OPEN, *GUARDED])
async def test_ours(ours: str, name: str) -> None:
    await (OPEN | GUARDED)[name](ours)


async def _reason(url: str, check: Check) -> str:
    """Why a relay fails a check; empty if it passes."""
    try:
        await asyncio.wait_for(check(url), 40)
    except (AssertionError, aiohttp.ClientError, ConnectionError, TimeoutError, KeyError) as error:
        return f"{type(error).__name__}: {error}"[:300]
    return ""


async def _is_as_known(url: str, checks: dict[str, Check], known: frozenset[str]) -> None:
    """Put a relay to checks, many at once; what surprises is tried once more, alone, before it counts."""
    places = asyncio.Semaphore(20)

    async def one(check: Check) -> str:
        async with places:
            return await _reason(url, check)

    reasons = dict(zip(checks, await asyncio.gather(*map(one, checks.values())), strict=True))
    for name, reason in reasons.items():
        if bool(reason) is not (name in known):
            reasons[name] = await _reason(url, checks[name])
    assert {name for name, reason in reasons.items() if reason} == known, reasons


@pytest.mark.needs("relays", "node")
@pytest.mark.parametrize("sort", [name for name in SORTS if name not in ("ours", "khatru-normal")])
async def test_a_foreign_relay_differs_where_we_know_it(tmp_path: Path, sort: str) -> None:
    async with foreign_relay(sort, tmp_path) as url:
        await _is_as_known(url, OPEN, DIFFERENCES[sort])


@pytest.mark.needs("relays")
@pytest.mark.parametrize("sort", ["localrelay", "khatru"])
async def test_a_foreign_relay_with_auth_differs_where_we_know_it(tmp_path: Path, sort: str) -> None:
    async with foreign_relay(sort, tmp_path, auth=True) as url:
        await _is_as_known(url, GUARDED, DIFFERENCES[f"{sort} with auth"])


def mined(key: Key, bits: int, target: int) -> Draft:
    """A draft whose id has so many leading zero bits, and which says that it aimed at `target` (NIP-13)."""
    at, nonce = now(), 0
    while True:
        draft = Draft(1, "mined", (("nonce", str(nonce), str(target)),), at)
        if int(key.sign(draft).id, 16) >> (256 - bits) == 0:
            return draft
        nonce += 1


async def test_work_is_asked_for_and_must_have_been_aimed_at(tmp_path: Path) -> None:
    key = Key.generate()
    access = Access(write_by=("pow",), pow_bits=8)
    async with running(tmp_path / "relay.db", access=access) as relay, connected(relay.url) as wire:
        lazy = event(key, content="none")
        while int(lazy.id, 16) >> 248 == 0:
            lazy = event(key, content=lazy.content + ".")
        accepted, reason = await wire.publish(lazy)
        assert not accepted
        assert reason.startswith("pow:"), reason
        accepted, reason = await wire.publish(key.sign(mined(key, 8, 1)))
        assert not accepted, "luck is no work: the target that it committed to is too low"
        assert reason.startswith("pow:"), reason
        await wire.put(key.sign(mined(key, 8, 8)))


async def test_a_wish_to_vanish_takes_the_letters_to_that_key_along(tmp_path: Path) -> None:
    key, other = Key.generate(), Key.generate()
    async with running(tmp_path / "relay.db") as relay, connected(relay.url) as wire:
        mine = event(Key.generate(), 1059, "sealed", [("p", key.pubkey)], now() - 100)
        theirs = event(Key.generate(), 1059, "sealed", [("p", other.pubkey)], now() - 100)
        await wire.put(mine, theirs)
        await wire.auth(key)
        await wire.auth(other)
        assert await wire.ids({"kinds": [1059], "#p": [key.pubkey]}) == [mine.id]
        await wire.put(event(key, 62, "", [("relay", "ALL_RELAYS")], now() - 10))
        assert await wire.ids({"kinds": [1059], "#p": [key.pubkey]}) == []
        assert await wire.ids({"kinds": [1059], "#p": [other.pubkey]}) == [theirs.id]
        accepted, _ = await wire.publish(mine)
        assert not accepted


async def test_what_vanished_stays_away_after_a_restart(tmp_path: Path) -> None:
    key = Key.generate()
    made = event(key, at=now() - 100)
    async with running(tmp_path / "relay.db") as relay, connected(relay.url) as wire:
        await wire.put(made, event(key, 62, "", [("relay", "ALL_RELAYS")], now() - 10))
    async with running(tmp_path / "relay.db") as relay, connected(relay.url) as wire:
        accepted, _ = await wire.publish(made)
        assert not accepted
        assert await wire.ids({"ids": [made.id]}) == []


async def test_a_malformed_event_with_an_id_never_leaves_its_sender_waiting(tmp_path: Path) -> None:
    """NIP-01 has OK for it; LocalRelay and others only say NOTICE, and a client waits in vain."""
    good = event(Key.generate())
    faults = [
        {"kind": 70_000}, {"kind": "1"}, {"created_at": -1}, {"created_at": 1.5}, {"tags": [[]]}, {"tags": [[1]]},
        {"content": None}, {"sig": "zz"}, {"pubkey": "AB" * 32},
    ]  # fmt: skip
    async with running(tmp_path / "relay.db") as relay, connected(relay.url) as wire:
        for fault in faults:
            sent = {**{name: getattr(good, name) for name in ("id", "pubkey", "created_at", "kind", "content", "sig")}}
            sent |= {"tags": []} | fault
            try:
                accepted, reason = await wire.publish(sent)
            except NoAnswer:
                pytest.fail(f"no OK for {fault}")
            assert not accepted
            assert reason.startswith("invalid:"), (fault, reason)
