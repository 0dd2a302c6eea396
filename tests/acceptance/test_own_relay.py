"""The relay inside a node: a listener of its own that knows no control route, a process of its own, paid writing."""

import asyncio
import contextlib
import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp

from relays.event import Draft, Event
from relays.key import Key
from tests.market_part import Market, Spec, market, until

ROOT = Path(__file__).parents[2]
# The first `port` of the file is the control plane's and is 0 already.
ON = {"enabled = false                #": "enabled = true #", "port = 7777 ": "port = 0 "}
PAID = ON | {"write_by = []": 'write_by = ["payment"]', "price_sat = 1000": "price_sat = 20"}


def note(key: Key, at: int, text: str = "hello") -> Event:
    return key.sign(Draft(1, text, (), at))


def page(url: str) -> str:
    return url.replace("ws://", "http://", 1)


@contextlib.asynccontextmanager
async def wire(town: Market, url: str) -> AsyncIterator[Any]:
    """`publish(event)` → the OK's verdict and reason."""
    async with town.http.ws_connect(url) as link:
        assert json.loads((await link.receive(10)).data)[0] == "AUTH"

        async def publish(event: Event) -> tuple[bool, str]:
            await link.send_str(f'["EVENT",{event.to_json()}]')
            verb, event_id, accepted, reason = json.loads((await link.receive(10)).data)
            assert (verb, event_id) == ("OK", event.id)
            return accepted, reason

        yield publish


def control_routes() -> list[str]:
    """Every path of the reference page, which a test holds equal to the trees, and the control plane's own."""
    text = (ROOT / "docs/reference/paths.md").read_text(encoding="utf-8")
    found = {re.sub(r"<[^>]+>", "x", path).rstrip("/") for path in re.findall(r"^\| `(/[^`]*)`", text, re.M)}
    trees = {f"/agents/{name}{path}" for name in ("node", "agent") for path in found}
    fixed = {"/healthz", "/readyz", "/metrics", "/agents", "/openapi.json", "/v1/models", "/v1/chat/completions"}
    return sorted(found | trees | fixed)


async def test_a_nodes_relay_answers_404_for_every_control_route_even_if_a_port_is_shared(tmp_path: Path) -> None:
    shared = {"share_port = false": "share_port = true", "port = 0 ": f"port = {free_port()} "} | ON
    async with market(tmp_path, {"node": Spec(replace=shared)}, mint=False) as town:
        said = town.nodes["node"].said
        await no_control_route(town, said["own_relay"])
        await one_port(town, said["control"])
        await names(town, page(said["own_relay"]) + "/.well-known/nostr.json")


async def no_control_route(town: Market, url: str) -> None:
    routes = control_routes()
    assert len(routes) > 60
    token = town.headers("node")

    async def ask(method: str, path: str) -> tuple[str, str, int]:
        async with town.http.request(method, page(url) + path, headers=token) as answer:
            return method, path, answer.status

    for method in ("GET", "POST", "PUT"):
        answers = await asyncio.gather(*(ask(method, path) for path in routes))
        assert [one for one in answers if one[2] != 404] == []


async def one_port(town: Market, control: str) -> None:
    """Sharing is for this machine: `/` is the relay's, all else the control plane's."""
    for accept in ("text/html", "application/nostr+json"):
        async with town.http.get(control + "/", headers={"Accept": accept}) as answer:
            assert (answer.status, answer.content_type) == (200, accept)
    async with wire(town, control.replace("http://", "ws://", 1)) as publish:
        assert await publish(note(Key.generate(), 1_700_000_000)) == (True, "")
    async with town.http.get(control + "/agents") as answer:
        assert answer.status == 401


async def names(town: Market, base: str) -> None:
    """NIP-05 for the node and its agents."""
    ring = town.rings["node"]
    for name, key in (("_", ring.node.pubkey), ("agent", ring.agent("agent").pubkey)):
        async with town.http.get(base, params={"name": name}) as answer:
            assert answer.headers["Access-Control-Allow-Origin"] == "*"
            assert (await answer.json())["names"] == {name: key}
    for query in ({}, {"name": "nobody"}):
        async with town.http.get(base, params=query) as answer:
            assert await answer.json() == {"names": {}}


async def test_a_relay_that_dies_is_started_again_and_ends_with_its_node(tmp_path: Path) -> None:
    fixed = ON | {"port = 7777 ": f"port = {free_port()} "}
    async with market(tmp_path, {"node": Spec(replace=fixed)}, mint=False) as town:
        url = town.nodes["node"].said["own_relay"]
        event = note(Key.generate(), int(asyncio.get_running_loop().time()))
        async with wire(town, url) as publish:
            assert await publish(event) == (True, "")
        first = child_of(town.nodes["node"].process.pid)
        os.kill(first, signal.SIGKILL)

        async def back() -> bool:
            with contextlib.suppress(aiohttp.ClientError, TimeoutError, TypeError):
                async with wire(town, url) as publish:
                    return (await publish(event))[1].startswith("duplicate:")
            return False

        await until(back, "the relay to come back with what it had acknowledged")
        second = child_of(town.nodes["node"].process.pid)
        assert second != first
        status = await town.get("node", "node/status")
        assert status["own_relay"]["restarts"] == 1
        os.kill(town.nodes["node"].process.pid, signal.SIGKILL)

        async def gone() -> bool:
            status = Path(f"/proc/{second}/status")
            try:
                return "State:\tZ" in status.read_text()
            except (FileNotFoundError, ProcessLookupError):
                return True

        await until(gone, "the relay to end with a node that was killed")


async def test_a_token_buys_the_right_to_write_once(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": Spec(replace=PAID), "payer": ""}) as town:
        await town.fund("payer", 100)
        url = town.nodes["node"].said["own_relay"]
        async with town.http.get(page(url), headers={"Accept": "application/nostr+json"}) as answer:
            document = await answer.json(content_type=None)
        assert document["limitation"]["payment_required"] is True
        assert document["fees"]["subscription"] == [{"amount": 20_000, "unit": "msats", "period": 30 * 86_400}]
        writer, now = Key.generate(), int(asyncio.get_running_loop().time())
        async with wire(town, url) as publish:
            assert (await publish(note(writer, now)))[1].startswith("restricted:")
            _, small = await town.call("payer", "node/wallet/send", {"sat": 8}, "small")
            assert (await pay(town, url, writer, small["token"]))[0] == 403
            assert (await pay(town, url, writer, "cashuBnonsense"))[0] == 403
            _, sent = await town.call("payer", "node/wallet/send", {"sat": 40}, "enough")
            code, paid = await pay(town, url, writer, sent["token"])
            assert code == 200, paid
            assert await publish(note(writer, now)) == (True, "")
            assert await pay(town, url, writer, sent["token"]) == (200, paid), "the same token counts once"
            thief = Key.generate()
            assert (await pay(town, url, thief, sent["token"]))[0] == 403
            assert (await publish(note(thief, now)))[1].startswith("restricted:")
        assert sum((await town.balance("node")).values()) >= 38
        await town.down("node")
        await town.up("node")
        async with wire(town, town.nodes["node"].said["own_relay"]) as publish:
            assert await publish(note(writer, now, "later")) == (True, ""), "who has paid is known after a restart"


async def pay(town: Market, url: str, key: Key, token: str) -> tuple[int, Any]:
    async with town.http.post(page(url) + "/pay", json={"pubkey": key.npub, "token": token}) as answer:
        return answer.status, await answer.json()


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


def child_of(pid: int) -> int:
    """The relay's process: the child of the node that runs `relays.embedded.child`."""
    for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        if b"relays.embedded.child" in Path(f"/proc/{one}/cmdline").read_bytes():
            return int(one)
    raise AssertionError("the node has no relay")
