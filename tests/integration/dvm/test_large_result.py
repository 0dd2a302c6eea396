"""Results that are too large for an event: real drivers and real HTTP over file servers of every kind, in real time."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import orjson
import pytest

from core.clock import SystemClock
from core.money import MicroUsd, Msat
from dvm.error import ResultGone
from dvm.policy import Policy
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest, Datum
from dvm.service import Service
from dvm.settlement import Settlement
from dvm.shipping import Shipping
from dvm.unpacking import Unpacking
from node.message.blossom import Blossom
from node.message.error import FileUnreachable
from node.message.shelf import Shelf
from relays.blob import Pointer, is_pointer, read_pointer
from relays.key import Keyring
from relays.local_signer import KeySigner
from tests.blossom_part import BlossomServer, blossom_servers
from tests.model_mint import ModelMint
from tests.simulation.wire import SimRelay, Weather
from tests.unit.dvm.market_part import WORDS, Node
from tests.unit.dvm.test_market import bought, freeze, words

ASK = ComputeRequest(5050, (Datum("a long story"),), (), MicroUsd(50_000))
POLICY = Policy(quote_window_ms=20_000, timeout_s=60, lock_margin_s=300)
LARGE = 300_000
SEALED = {"proven": lambda mint: True}
MODE_A = SEALED | {"settlement": Settlement(atomic=True, modes=("A",), order_max=Msat(20_000))}


class Teller:
    """Answers with so many characters, and counts how often it was asked."""

    name = "teller"
    kinds = frozenset({5050})

    def __init__(self, size: int) -> None:
        self.size, self.asked = size, 0

    def check(self, request: ComputeRequest) -> None:
        pass

    @property
    def text(self) -> str:
        return ("once upon a time " * (self.size // 17 + 1))[: self.size]

    async def run(self, request: ComputeRequest) -> Answer:
        self.asked += 1
        return Answer(self.text)


@dataclass
class Street:
    """A buyer and a seller, and the file servers of the seller."""

    buyer: Node
    seller: Node
    servers: list[BlossomServer]
    teller: Teller
    folder: Path

    async def open(self) -> None:
        await self.seller.up()
        await self.buyer.up()
        await self.buyer.fund(200)
        while not self.buyer.discovery.known_sellers(5050):
            await asyncio.sleep(0.02)

    async def paid(self, sat: int) -> None:
        while self.seller.selling.open_count():
            await asyncio.sleep(0.02)
        assert await self.seller.sat() == sat


@asynccontextmanager
async def street(
    folder: Path,
    *modes: str,
    size: int = LARGE,
    known: bool = True,
    inline: int = 32_768,
    server_s: float = 1.0,
    **parts,
) -> AsyncIterator[Street]:
    """The buyer's operator named the servers as well, so that they may lie on this machine."""
    clock, teller = SystemClock(), Teller(size)
    relay, mint = SimRelay(1, Weather(delay=0.001)), ModelMint(clock=clock)
    async with AsyncExitStack() as stack:
        servers = await stack.enter_async_context(blossom_servers(*modes))
        urls = [server.url for server in servers]

        async def client(node: Node, own: Sequence[str]) -> Blossom:
            made = Blossom(own, clock, 20 << 20, KeySigner(node.key))
            await made.start()
            stack.push_async_callback(made.stop)
            return made

        seller = Node(WORDS[0], relay, mint, clock, policy=POLICY, **parts)
        seller.services = lambda: [Service(5050, Msat(9_000), teller, eta_s=1)]
        buyer = Node(WORDS[1], relay, mint, clock, policy=POLICY, **parts)
        for node in (seller, buyer):
            node.keyring = Keyring(node.words)
            node.key = node.keyring.node
        ours, theirs = await client(seller, urls), await client(buyer, urls)
        seller.parcels = lambda node: (
            Shipping(ours, Shelf(folder / "sold", 1 << 30), node.keyring, clock),
            None,
        )
        buyer.parcels = lambda node: (
            None,
            Unpacking(theirs, Shelf(folder / "bought", 1 << 30), clock, node.pool.fetch, server_s=server_s),
        )
        made = Street(buyer, seller, servers, teller, folder)
        try:
            yield made
        finally:
            for node in (buyer, seller):
                if node.tasks:
                    await node.down()


async def read(node: Node, view) -> str:
    return await node.buying.result(view.job_id)


@pytest.mark.parametrize("parts", [{}, SEALED, MODE_A], ids=["locked", "sealed B", "sealed A"])
async def test_a_large_result_is_sold_whichever_way_it_is_paid(tmp_path: Path, parts: dict) -> None:
    async with street(tmp_path, "honest", "honest", **parts) as town:
        await town.open()
        view = await bought(town.buyer, ASK)
        shown = view.to_dict()
        assert (shown["state"], shown["money"]) == ("delivered", "claimed"), shown
        assert shown["method"] == ("atomic" if parts else "locked")
        assert shown["result"] is None
        assert shown["kept"] == {"bytes": LARGE, "sha256": sha256(town.teller.text.encode()).hexdigest()}
        assert await read(town.buyer, view) == town.teller.text
        assert [len(server.blobs) for server in town.servers] == [1, 1], "two of our servers have it"
        await town.paid(9)
        (result,) = words(town.seller, 6050)
        pointer = read_pointer(result.content, 1 << 30)
        assert is_pointer(result)
        assert bool(pointer.sealed) is bool(parts)
        for text in ("once upon", shown["kept"]["sha256"] if parts else "once upon"):
            assert text not in result.to_json()
        assert b"once upon" not in next(iter(town.servers[0].blobs.values()))
        assert not list((tmp_path / "sold").glob("out/*")), "what was uploaded is not kept twice"
        assert not list((tmp_path / "bought").glob("out/*"))


@pytest.mark.parametrize("fault", ["down", "lying", "truncating", "oversize", "slow", "redirecting"])
async def test_a_server_that_fails_gives_way_to_the_next(tmp_path: Path, fault: str) -> None:
    async with street(tmp_path, "honest", "honest") as town:
        await town.open()
        staged = await town.buyer.buying.buy("agent:a", "k", ASK)
        await town.servers[0].taken.wait()
        town.servers[0].mode = fault
        view = await bought(town.buyer, ASK)
        assert view.job_id == staged.job_id
        assert await read(town.buyer, view) == town.teller.text
        await town.paid(9)


async def test_servers_that_all_lie_are_asked_again_until_one_is_mended(tmp_path: Path) -> None:
    async with street(tmp_path, "honest", "honest") as town:
        await town.open()
        await town.buyer.buying.buy("agent:a", "k", ASK)
        for server in town.servers:
            await server.taken.wait()
            server.mode = "lying"
        while not any(mode == "lying" for server in town.servers for _, mode in server.asked):
            await asyncio.sleep(0.02)
        town.servers[1].mode = "honest"
        view = await bought(town.buyer, ASK)
        assert await read(town.buyer, view) == town.teller.text


async def test_a_short_result_stands_in_its_event_and_so_does_a_longer_one_of_a_seller_without_servers(
    tmp_path: Path,
) -> None:
    for number, (modes, size) in enumerate(((("honest",), 30_000), ((), 48_000))):
        async with street(tmp_path / str(number), *modes, size=size) as town:
            await town.open()
            view = await bought(town.buyer, ASK)
            assert view.result == town.teller.text
            (result,) = words(town.seller, 6050)
            assert not is_pointer(result)
            assert not any(server.uploads for server in town.servers)


async def test_60_kb_go_by_the_servers_and_are_then_a_result_like_any_other(tmp_path: Path) -> None:
    async with street(tmp_path, "honest", "honest", size=60_000) as town:
        await town.open()
        view = await bought(town.buyer, ASK)
        assert view.result == town.teller.text
        assert view.to_dict()["kept"] is None
        assert is_pointer(words(town.seller, 6050)[0])


async def test_no_server_takes_it_and_the_customer_s_money_is_left_alone(tmp_path: Path) -> None:
    async with street(tmp_path, "paid", "down") as town:
        town.seller.services = lambda: [Service(5050, Msat(9_000), town.teller, eta_s=1, timeout_s=2)]
        await town.open()
        await town.buyer.buying.buy("agent:a", "k", ASK)
        view = await bought(town.buyer, ASK, closed=False)
        assert view.state == "failed"
        assert "no file server took it" in view.purchase.error
        await town.paid(0)
        assert not any(server.blobs for server in town.servers)


async def test_a_stranger_s_address_on_this_machine_is_never_connected_to() -> None:
    async with blossom_servers("honest") as (server,):
        x = sha256(b"bytes").hexdigest()
        server.blobs[x] = b"bytes"
        for own, reached in (((server.url,), True), ((), False)):
            client = Blossom(own, SystemClock(), 1 << 20)
            await client.start()
            try:
                if reached:
                    assert await client.fetch(f"{server.url}/{x}", 5, 30.0) == b"bytes"
                else:
                    with pytest.raises(FileUnreachable):
                        await client.fetch(f"{server.url}/{x}", 5, 30.0)
            finally:
                await client.stop()
        assert len(server.asked) == 1


async def test_a_seller_that_dies_while_it_stores_goes_on_and_works_and_uploads_no_second_time(tmp_path: Path) -> None:
    async with street(tmp_path, "mute", "honest") as town:
        await town.open()
        await town.buyer.buying.buy("agent:a", "k", ASK)
        for server in town.servers:
            await server.taken.wait()
        await town.seller.crash()
        assert not words(town.seller, 6050), "nothing is announced before it is there"
        town.servers[0].mode = "honest"
        town.servers[0].speak.set()
        await town.seller.up()
        view = await bought(town.buyer, ASK)
        assert await read(town.buyer, view) == town.teller.text
        await town.paid(9)
        assert town.teller.asked == 1, "worked twice"
        assert [len(server.uploads) for server in town.servers] == [1, 1], "uploaded twice"


@pytest.mark.parametrize("moment", ["storing", "delivered"])
async def test_a_seller_that_dies_right_after_a_commit_is_paid_once(tmp_path: Path, moment: str) -> None:
    async with street(tmp_path, "honest", "honest") as town:
        await town.open()
        frozen = freeze(town.seller, "sale", moment)
        await town.buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await town.seller.crash()
        await town.seller.up()
        view = await bought(town.buyer, ASK)
        assert await read(town.buyer, view) == town.teller.text
        await town.paid(9)
        assert town.teller.asked == 1


@pytest.mark.parametrize(("parts", "moment"), [({}, "working"), (SEALED, "sealed"), (SEALED, "delivered")])
async def test_a_buyer_that_dies_anywhere_ends_with_the_result(tmp_path: Path, parts: dict, moment: str) -> None:
    async with street(tmp_path, "honest", "honest", **parts) as town:
        await town.open()
        frozen = freeze(town.buyer, "purchase", moment)
        await town.buyer.buying.buy("agent:a", "k", ASK)
        await frozen.wait()
        await town.buyer.crash()
        if moment == "sealed":  # whoever has signed does not depend on anybody for the bytes
            for server in town.servers:
                server.mode = "down"
        await town.buyer.up()
        view = await bought(town.buyer, ASK)
        assert await read(town.buyer, view) == town.teller.text
        await town.paid(9)


async def test_a_sealed_key_that_does_not_open_the_bytes_is_a_fraud(tmp_path: Path, monkeypatch) -> None:
    async with street(tmp_path, "honest", "honest", **SEALED) as town:
        right = Pointer.secret
        monkeypatch.setattr(Pointer, "secret", lambda self: right(replace(self, key=bytes(32))))
        await town.open()
        view = await bought(town.buyer, ASK)
        shown = view.to_dict()
        assert (shown["state"], shown["fault"], shown["money"]) == ("failed", "fraud", "claimed")
        assert orjson.loads(view.purchase.sealed)["kind"] == 6050, "the signed result is kept as evidence"
        assert list((tmp_path / "bought").glob("in/evidence/*")), "and so are the bytes"


async def test_what_is_kept_no_more_is_said_to_be_gone(tmp_path: Path) -> None:
    async with street(tmp_path, "honest", "honest") as town:
        await town.open()
        view = await bought(town.buyer, ASK)
        shutil.rmtree(tmp_path / "bought" / "in")
        with pytest.raises(ResultGone):
            await read(town.buyer, view)
