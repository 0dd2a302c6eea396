"""Three nodes in a row, `near` — `middle` — `far`, with channels that both ends can spend from.

A mint stands on `near`. What `middle` pays it takes no way and no fee; what goes to or from `far` is routed.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.lightning.chain import MATURITY
from tests.lightning.node import Node, lightning_node
from tests.lightning.process import until
from tests.lightning.rpc import Bill, Fate
from tests.lightning.server import Server, electrum_server

CAPACITY_SAT = 5_000_000
_DEEP = 6  # blocks after which both ends hold a channel for open


@dataclass(slots=True)
class Network:
    """What runs."""

    server: Server
    near: Node
    middle: Node
    far: Node

    @property
    def nodes(self) -> tuple[Node, ...]:
        """All of them."""
        return self.near, self.middle, self.far

    async def mine(self, blocks: int, script: bytes | None = None) -> None:
        """More blocks, and every node has seen them."""
        self.server.mine(blocks, script)

        async def seen() -> bool:
            return {await node.height() for node in self.nodes} == {self.server.chain.height}

        await until(seen, "the nodes to see the new blocks")

    async def settled(self) -> None:
        """Wait until every channel can be used and nothing is under way in it."""
        for node in self.nodes:
            await until(node.is_quiet, f"the channels of {node.name} to be quiet")

    async def on_its_way(self, bill: Bill) -> None:
        """Wait until `near` has sent what pays the bill."""

        async def has_left() -> bool:
            fate = await self.near.client.payment_fate(bill.payment_hash)
            return fate is Fate.IN_FLIGHT and await self.near.in_flight_sat() > 0

        await until(has_left, "the payment to be on its way")

    def tails(self) -> str:
        """What each of them wrote last."""
        return "\n".join(node.process.tail() for node in self.nodes)

    async def _fund(self, *nodes: Node) -> None:
        for node in nodes:
            self.server.mine(1, await node.script())
        await self.mine(MATURITY)
        for node in nodes:
            await until(node.has_coins, f"{node.name} to see its coins")

    async def _join(self, *pairs: tuple[Node, Node]) -> None:
        opens: list[tuple[Callable[[str], Awaitable[bool]], str]] = []
        for one, other in pairs:
            point = await one.open_channel(other, CAPACITY_SAT, CAPACITY_SAT // 2)
            opens += [(one.is_open, point), (other.is_open, point)]
        await self.mine(_DEEP)
        for is_open, point in opens:
            await until(partial(is_open, point), f"channel {point} to open")


@asynccontextmanager
async def network(logs: Path) -> AsyncIterator[Network]:
    """Nodes and channels, all gone when the block is left; what they said is in `logs`."""
    async with AsyncExitStack() as stack:
        server = await stack.enter_async_context(electrum_server())
        names = ("near", "middle", "far")
        starts = [stack.enter_async_context(lightning_node(name, logs, server.port)) for name in names]
        nodes = await asyncio.gather(*starts, return_exceptions=True)
        for node in nodes:  # all were waited for, so that none is left running
            if isinstance(node, BaseException):
                raise node
        net = Network(server, *(node for node in nodes if not isinstance(node, BaseException)))
        try:
            await net._fund(net.near, net.middle)
            await net._join((net.near, net.middle), (net.middle, net.far))
        except BaseException as error:
            error.add_note(net.tails())
            raise
        yield net
