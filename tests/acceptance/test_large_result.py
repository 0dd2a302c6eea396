"""A result of 5 MB between two whole nodes: one file server down, one lying, and a seller that dies while it stores."""

import asyncio
from hashlib import sha256
from pathlib import Path

from relays.blob import is_pointer
from relays.kind import BLOSSOM_SERVERS
from tests.blossom_part import BlossomServer, blossom_servers
from tests.market_part import PATIENT, Market, Ran, Spec, market, until
from tests.teller_part import start_teller, story

TELL_21 = '\n[[sell]]\nkind = 5050\nprice_msat = 21000\nprovider = "echo"\n'
LARGE = 5 << 20


def order(town: Market, size: int) -> "asyncio.Task[Ran]":
    buying = town.vendo("buyer", "buy", "--kind", "5050", "--input", str(size), "--timeout", "240", timeout=280)
    return asyncio.create_task(buying)


async def stored(servers: list[BlossomServer]) -> None:
    """Every server has it, and the last one has not said so yet: nothing is announced."""
    for server in servers:
        await asyncio.wait_for(server.taken.wait(), 120)


async def closed(town: Market, job_id: str) -> dict:
    async def look() -> dict | None:
        shown = await town.get("buyer", f"node/compute/jobs/{job_id}/status")
        return shown if shown["closed"] else None

    return await until(look, "the job to close")


async def test_5_mb_are_paid_for_and_arrive_whatever_servers_and_the_seller_do(tmp_path: Path) -> None:
    log = tmp_path / "worked"
    async with blossom_servers("honest", "honest", "mute") as servers:
        named = ", ".join(f'"{server.url}"' for server in servers)
        blobs = {"servers = []": f"servers = [{named}]", **PATIENT}
        specs = {"buyer": Spec(replace=blobs), "seller": Spec(TELL_21, replace=blobs, start=False)}
        async with market(tmp_path, specs) as town:
            await up(town, log)
            await town.fund("buyer", 200)

            buying = order(town, LARGE)
            await stored(servers)
            assert not [one for one in await town.events() if one.kind == 6050]
            servers[0].mode, servers[1].mode, servers[2].mode = "down", "lying", "honest"
            servers[2].speak.set()
            ran = await buying
            assert ran.code == 0, ran.err
            assert ran.json["result"] == story(LARGE)
            shown = await closed(town, ran.json["job_id"])
            assert shown["money"] == "claimed"
            assert shown["kept"] == {"bytes": LARGE, "sha256": sha256(story(LARGE).encode()).hexdigest()}
            assert {mode for _, mode in servers[1].asked} == {"lying"}
            (result,) = [one for one in await town.events() if one.kind == 6050]
            assert is_pointer(result)
            lists = [one for one in await town.events() if one.kind == BLOSSOM_SERVERS]
            assert {one.pubkey for one in lists} == {ring.node.pubkey for ring in town.rings.values()}
            assert lists[0].values("server") == [server.url for server in servers]

            for server in servers:
                server.mode, server.taken, server.speak = "honest", asyncio.Event(), asyncio.Event()
            servers[2].mode = "mute"
            buying = order(town, LARGE + 1)
            await stored(servers)
            child = town.nodes.pop("seller")
            await child.kill()
            town.children.remove(child)
            servers[2].mode = "honest"
            servers[2].speak.set()
            await up(town, log)
            ran = await buying
            assert ran.code == 0, ran.err
            assert ran.json["result"] == story(LARGE + 1)
            assert (await closed(town, ran.json["job_id"]))["money"] == "claimed"
            assert log.read_text().split() == [str(LARGE), str(LARGE + 1)], "worked once for each"
            assert [len(server.uploads) for server in servers] == [2, 2, 2], "uploaded once for each"
            for name in specs:
                assert (await town.get(name, "node/wallet/audit"))["clean"]


async def up(town: Market, log: Path) -> None:
    child = await start_teller("seller", town.folder, town.homes["seller"], log)
    town.children.append(child)
    town.nodes["seller"] = child
