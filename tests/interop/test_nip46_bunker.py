"""Our remote signer client (NIP-46) against signers made of foreign libraries, over our relay and foreign ones."""

import asyncio
import json
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import aiohttp
import pytest

from core.clock import SystemClock
from relays.bunker import RemoteSigner, Talk, Wire, pair, user_of
from relays.error import NotForUs, SignerUnavailable
from relays.event import Draft, verify
from relays.key import Key
from relays.kind import DM
from relays.nip17 import unwrap, unwrap_by, wrap, wrap_by
from relays.nip46 import connect_uri, parse_bunker
from tests.conftest import ROOT
from tests.foreign_part import Foreign, foreign_process, foreign_relay
from tests.integration.relays.embedded.relay_part import running

pytestmark = [pytest.mark.needs("node"), pytest.mark.needs("relays")]
SIGNERS = ("ndk", "applesauce")
USER, FRIEND = Key(b"\x05" * 32), Key(b"\x06" * 32)
REFUSED = 31_234
PERMIT: Any = SimpleNamespace(effect_id="test")


@dataclass
class Served:
    """A bunker in a process of its own."""

    process: asyncio.subprocess.Process
    bunker: str
    signer: str
    user: str

    async def kill(self) -> None:
        self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def served(client: str, relays: list[str], **options: str) -> AsyncIterator[Served]:
    argv = [f"--client={client}", f"--relays={','.join(relays)}", *(f"--{k}={v}" for k, v in options.items())]
    process = await asyncio.create_subprocess_exec(
        "node", "bunker.mjs", *argv, cwd=ROOT / "tests/interop/node",
        env=dict(os.environ) | {"BUNKER_USER": USER.secret.hex()},
        stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        assert process.stderr is not None
        line = await asyncio.wait_for(process.stdout.readline(), 60)
        said = json.loads(line) if line else {"ok": False, "error": (await process.stderr.read()).decode()}
        assert "bunker" in said, said
        yield Served(process, said["bunker"], said["signer"], said["user"])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def talks() -> AsyncIterator[Wire]:
    async with aiohttp.ClientSession() as http:
        yield Wire(http, SystemClock(), lambda _: None, lambda: PERMIT)


@asynccontextmanager
async def met(wire: Wire, uri: str, timeout: float = 8) -> AsyncIterator[RemoteSigner]:
    """Our client, introduced to a bunker."""
    bunker = parse_bunker(uri)
    talk = Talk(wire, Key.generate(), bunker.signer, bunker.relays)
    try:
        yield RemoteSigner(talk, await pair(talk, bunker, timeout), timeout)
    finally:
        await talk.aclose()


async def use(remote: RemoteSigner) -> None:
    """Everything that an agent with a remote key needs."""
    assert remote.pubkey == USER.pubkey
    draft = Draft(1, 'signed far away ✓ "quoted"\n', (("t", "one"), ("p", FRIEND.pubkey)), int(time.time()) - 5)
    event = await remote.sign(draft)
    verify(event)
    assert event.pubkey == USER.pubkey
    assert Draft(event.kind, event.content, event.tags, event.created_at) == draft
    assert FRIEND.decrypt(USER.pubkey, await remote.encrypt(FRIEND.pubkey, "to a friend ✓")) == "to a friend ✓"
    assert await remote.decrypt(FRIEND.pubkey, FRIEND.encrypt(USER.pubkey, "from a friend")) == "from a friend"
    assert FRIEND.decrypt_legacy(USER.pubkey, await remote.encrypt_legacy(FRIEND.pubkey, "old ✓")) == "old ✓"
    assert await remote.decrypt_legacy(FRIEND.pubkey, FRIEND.encrypt_legacy(USER.pubkey, "older")) == "older"
    letter = await wrap_by(
        remote, FRIEND.pubkey, Draft(DM, "sealed far away", (("p", FRIEND.pubkey),), draft.created_at)
    )
    assert unwrap(FRIEND, letter).sender == USER.pubkey
    reply = wrap(FRIEND, USER.pubkey, Draft(DM, "read far away", (("p", USER.pubkey),), draft.created_at))
    assert (await unwrap_by(remote, reply)).content == "read far away"


@asynccontextmanager
async def relay_of(sort: str, folder: Path) -> AsyncIterator[str]:
    if sort == "ours":
        async with running(folder / "relay.db") as relay:
            yield relay.url
    else:
        async with foreign_relay(sort, folder) as url:
            yield url


@pytest.mark.parametrize("client", SIGNERS)
@pytest.mark.parametrize("sort", ["ours", "localrelay", "khatru"])
async def test_a_foreign_bunker_signs_and_opens_letters_for_us(tmp_path: Path, client: str, sort: str) -> None:
    async with (
        relay_of(sort, tmp_path) as url,
        served(client, [url]) as bunker,
        talks() as wire,
        met(wire, bunker.bunker) as remote,
    ):
        assert bunker.user == USER.pubkey
        await use(remote)


@pytest.mark.parametrize("client", SIGNERS)
async def test_a_wrong_secret_is_refused(tmp_path: Path, client: str) -> None:
    async with relay_of("ours", tmp_path) as url, served(client, [url]) as bunker, talks() as wire:
        wrong = bunker.bunker.replace("secret=", "secret=ff")
        with pytest.raises(SignerUnavailable):
            async with met(wire, wrong, timeout=3):
                pass


@pytest.mark.parametrize("client", SIGNERS)
async def test_a_kind_that_the_bunker_refuses_is_not_signed_and_the_next_one_is(tmp_path: Path, client: str) -> None:
    async with (
        relay_of("ours", tmp_path) as url,
        served(client, [url], refuse=str(REFUSED)) as bunker,
        talks() as wire,
        met(wire, bunker.bunker, timeout=4) as remote,
    ):
        with pytest.raises(SignerUnavailable):
            await remote.sign(Draft(REFUSED, "", (("d", "x"),), int(time.time())))
        verify(await remote.sign(Draft(1, "still there", (), int(time.time()))))


async def test_a_bunker_that_signs_something_else_is_not_believed(tmp_path: Path) -> None:
    async with (
        relay_of("ours", tmp_path) as url,
        served("applesauce", [url], lie="1") as bunker,
        talks() as wire,
        met(wire, bunker.bunker) as remote,
    ):
        with pytest.raises(SignerUnavailable):
            await remote.sign(Draft(1, "pay one satoshi", (), int(time.time())))


async def test_a_payload_that_is_not_for_the_user_is_not_for_us(tmp_path: Path) -> None:
    async with (
        relay_of("ours", tmp_path) as url,
        served("applesauce", [url]) as bunker,
        talks() as wire,
        met(wire, bunker.bunker) as remote,
    ):
        with pytest.raises(NotForUs):
            await remote.decrypt(FRIEND.pubkey, FRIEND.encrypt(Key.generate().pubkey, "for somebody else"))


async def test_a_bunker_that_we_invite_calls(tmp_path: Path) -> None:
    app, secret = Key.generate(), "an invitation's secret"
    async with relay_of("ours", tmp_path) as url, talks() as wire:
        talk = Talk(wire, app, None, (url,))
        waiting = asyncio.create_task(talk.await_call(secret, 20))
        try:
            await asyncio.sleep(0.3)
            uri = connect_uri(app.pubkey, [url], secret, "vendo")
            async with served("applesauce", [url], call=uri) as bunker:
                assert await waiting == bunker.signer
                await use(RemoteSigner(talk, await user_of(talk), 8))
        finally:
            waiting.cancel()
            await talk.aclose()


async def test_a_talk_goes_on_over_the_second_relay_when_the_first_dies(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        dying: Foreign = await stack.enter_async_context(foreign_process("khatru", tmp_path / "one"))
        url = await stack.enter_async_context(relay_of("ours", tmp_path))
        bunker = await stack.enter_async_context(served("applesauce", [dying.url, url]))
        wire = await stack.enter_async_context(talks())
        remote = await stack.enter_async_context(met(wire, bunker.bunker))
        verify(await remote.sign(Draft(1, "before", (), int(time.time()))))
        await dying.kill()
        verify(await remote.sign(Draft(1, "after", (), int(time.time()))))


async def test_a_talk_survives_the_restart_of_its_only_relay(tmp_path: Path) -> None:
    async with (
        foreign_process("khatru", tmp_path) as relay,
        served("applesauce", [relay.url]) as bunker,
        talks() as wire,
        met(wire, bunker.bunker, timeout=3) as remote,
    ):
        await relay.kill()
        await relay.start()
        async with asyncio.timeout(25):  # requests are ephemeral: what is asked before the bunker is back, is lost
            while True:
                try:
                    event = await remote.sign(Draft(1, "after a restart", (), int(time.time())))
                except SignerUnavailable:
                    continue
                verify(event)
                break


async def test_a_bunker_that_is_gone_is_unavailable(tmp_path: Path) -> None:
    async with (
        relay_of("ours", tmp_path) as url,
        served("ndk", [url]) as bunker,
        talks() as wire,
        met(wire, bunker.bunker, timeout=3) as remote,
    ):
        await bunker.kill()
        with pytest.raises(SignerUnavailable):
            await remote.sign(Draft(1, "nobody is there", (), int(time.time())))
