"""Our side of NIP-77 against a foreign one: nostr-sdk's relay as the responder, its client as the initiator."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import aiohttp
import nostr_sdk
from aiohttp import web

from relays.negentropy import Initiator, Vector, respond

KEYS = nostr_sdk.Keys.generate()


def made(count: int, tag: str) -> list[nostr_sdk.Event]:
    return [
        nostr_sdk.EventBuilder(nostr_sdk.Kind(1), f"{tag} {n}")
        .custom_created_at(nostr_sdk.Timestamp.from_secs(1_700_000_000 + n % 40))
        .finalize(KEYS)
        for n in range(count)
    ]


def items(events: list[nostr_sdk.Event]) -> list[tuple[int, str]]:
    return [(one.created_at().as_secs(), one.id().to_hex()) for one in events]


def ids(events: list[nostr_sdk.Event]) -> list[str]:
    return sorted(one.id().to_hex() for one in events)


@asynccontextmanager
async def local_relay() -> AsyncIterator[str]:
    limit = nostr_sdk.RateLimit(max_reqs=500, notes_per_minute=10_000_000)
    relay = nostr_sdk.LocalRelayBuilder().addr("127.0.0.1").rate_limit(limit).build()
    await relay.run()
    try:
        yield str(await relay.url())
    finally:
        relay.shutdown()


@asynccontextmanager
async def our_responder(held: list[tuple[int, str]]) -> AsyncIterator[str]:
    vector = Vector(held)

    async def serve(request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        async for message in socket:
            label, name, *rest = json.loads(message.data)
            if label in ("NEG-OPEN", "NEG-MSG"):
                await socket.send_str(json.dumps(["NEG-MSG", name, respond(vector, rest[-1], 4_096)]))
        return socket

    app = web.Application()
    app.router.add_get("/", serve)
    runner = web.AppRunner(app, shutdown_timeout=0.2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        assert site._server is not None
        yield f"ws://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"
    finally:
        await runner.cleanup()


async def test_our_initiator_learns_both_differences_from_a_foreign_relay() -> None:
    both, ours, theirs = made(400, "both"), made(150, "ours"), made(230, "theirs")
    async with local_relay() as url, aiohttp.ClientSession() as session, session.ws_connect(url) as socket:
        for event in both + theirs:
            await socket.send_str(f'["EVENT",{event.as_json()}]')
            assert json.loads((await socket.receive(timeout=10)).data)[2] is True
        here = Initiator(Vector(items(both + ours)), 4_096)
        have: list[str] = []
        need: list[str] = []
        message: str | None = here.start()
        frame = ["NEG-OPEN", "sync", {"kinds": [1]}, message]
        rounds = 0
        while message is not None:
            await socket.send_str(json.dumps(frame))
            label, _, answer = json.loads((await socket.receive(timeout=10)).data)
            assert label == "NEG-MSG", answer
            step = here.receive(answer)
            have, need, message = have + step.have, need + step.need, step.reply
            frame = ["NEG-MSG", "sync", message]
            rounds += 1
        assert rounds > 1
        assert (sorted(have), sorted(need)) == (ids(ours), ids(theirs))


async def test_a_foreign_client_learns_both_differences_from_our_responder() -> None:
    both, ours, theirs = made(300, "both"), made(170, "ours"), made(120, "theirs")
    async with our_responder(items(both + ours)) as url:
        client = nostr_sdk.ClientBuilder().build()
        address = nostr_sdk.RelayUrl.parse(url)
        try:
            await client.add_relay(address)
            await client.connect(and_wait=timedelta(seconds=5))
            relay = await client.relay(address)
            assert relay is not None
            held = [nostr_sdk.NegentropyItem(id=one.id(), timestamp=one.created_at()) for one in both + theirs]
            found = await asyncio.wait_for(
                relay.sync(nostr_sdk.Filter(), items=held, opts=nostr_sdk.SyncOptions().dry_run()), 20
            )
        finally:
            await client.shutdown()
    assert sorted(one.to_hex() for one in found.remote) == ids(ours)
    assert sorted(one.to_hex() for one in found.local) == ids(theirs)
