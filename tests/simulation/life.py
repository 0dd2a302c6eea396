"""Processes that die: every task of one run of a node ends at once, wherever it stands, and acts no more.

Tasks know their process by a context variable, so that nothing in the product has to know of it. What a dead process
would still do waits for ever: its database, its mint and its relay answer it no more.
"""

import asyncio
import contextvars
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar

from core.effect import Permit
from core.unit import Append, Condition, Row, Write
from node.storage.memory import MemoryDatabase
from tests.model_mint import ModelMint
from wallet.cashu.keyset import Keyset, KeysetInfo
from wallet.cashu.limit import Limits
from wallet.cashu.port import CoinReport, MeltQuote, MintQuote
from wallet.cashu.proof import Output, Proof, Signature

T = TypeVar("T")
SERVICE = "service "  # tasks with such names may not end by themselves
_LIFE: "contextvars.ContextVar[Life | None]" = contextvars.ContextVar("life", default=None)


class Crashed(Exception):
    """The process that was asked died before it answered."""


class Life:
    """One run of a node's process."""

    def __init__(self) -> None:
        self.dead = False
        self.tasks: set[asyncio.Task[Any]] = set()
        self.failed: list[BaseException] = []
        self.context = contextvars.copy_context()
        self.context.run(_LIFE.set, self)

    def start(self, work: Any, name: str) -> "asyncio.Task[Any]":
        """A task of this process."""
        return asyncio.get_running_loop().create_task(work, name=name, context=self.context)

    async def call(self, act: Callable[[], Awaitable[T]]) -> T:
        """Have the process do something, as somebody outside of it.

        Raises:
            Crashed: it died meanwhile.
        """

        async def go() -> T:
            return await act()

        if self.dead:
            raise Crashed
        task = self.start(go(), "call")
        await asyncio.wait((task,))
        if task.cancelled():
            raise Crashed
        return task.result()

    async def must_live(self) -> None:
        """Whoever is dead waits for ever (until it is taken away)."""
        if self.dead:
            await asyncio.Future()

    async def bury(self) -> None:
        """Take away everything that was left; nothing of it may still act."""
        for _ in range(100):
            left = [task for task in self.tasks if not task.done()]
            if not left:
                return
            for task in left:
                task.cancel()
            await asyncio.sleep(0)
        raise AssertionError(f"a dead process goes on: {[task.get_name() for task in self.tasks]}")


def track(loop: asyncio.AbstractEventLoop) -> None:
    """Have the loop's tasks belong to the process in which they were made."""

    def factory(loop: Any, coro: Any, context: contextvars.Context | None = None, **more: Any) -> Any:
        task: asyncio.Task[Any] = asyncio.Task(coro, loop=loop, context=context, **more)
        life = _LIFE.get() if context is None else context.get(_LIFE)
        if life is not None:
            life.tasks.add(task)
            task.add_done_callback(lambda done: _ended(life, done))
        return task

    loop.set_task_factory(factory)


def _ended(life: Life, task: "asyncio.Task[Any]") -> None:
    life.tasks.discard(task)
    if task.get_name().startswith(SERVICE) and not task.cancelled() and not life.dead:
        error = task.exception()
        life.failed += [] if error is None else [error]


class Disk:
    """A process's way to the database that outlives it. `before` and `after` are told of every unit."""

    def __init__(
        self,
        db: MemoryDatabase,
        life: Life,
        before: Callable[[Sequence[Write]], None],
        after: Callable[[Sequence[Write]], None],
    ) -> None:
        self._db, self._life, self._before, self._after = db, life, before, after

    async def commit(self, writes: Iterable[Write]) -> None:
        unit = tuple(writes)
        await self._life.must_live()
        if unit:
            self._before(unit)
            await self._life.must_live()
        self._db.crash_after = lambda _: self._after(unit)
        await self._db.commit(unit)
        await self._life.must_live()

    async def select(
        self,
        table: str,
        where: Mapping[str, Condition] | None = None,
        *,
        order: Sequence[str] = (),
        limit: int | None = None,
        columns: Sequence[str] = (),
        distinct: bool = False,
    ) -> list[Row]:
        await self._life.must_live()
        return await self._db.select(table, where, order=order, limit=limit, columns=columns, distinct=distinct)

    async def count(self, table: str, where: Mapping[str, Condition] | None = None, *, limit: int | None = None) -> int:
        await self._life.must_live()
        return await self._db.count(table, where, limit=limit)

    def on_entry(self, watcher: Callable[[Append], None]) -> None:
        self._db.on_entry(lambda entry: None if self._life.dead else watcher(entry))


class Line:
    """A process's connection to the mint: the mint acts even if whoever asked is dead when it answers."""

    def __init__(
        self, mint: ModelMint, life: Life, check: Callable[[Permit], None], pause: Callable[[bool], Awaitable[None]]
    ) -> None:
        self._mint, self._life, self._check, self._pause = mint, life, check, pause
        self.url = mint.url

    async def _go(self, act: Callable[[], Awaitable[T]], permit: Permit | None = None, *, asks: bool = False) -> T:
        await self._life.must_live()
        if permit is not None:
            self._check(permit)
        await self._pause(asks)
        await self._life.must_live()
        try:
            return await act()
        finally:
            await self._pause(asks)
            await self._life.must_live()

    async def nuts(self) -> frozenset[int]:
        return await self._go(self._mint.nuts)

    async def keysets(self) -> tuple[KeysetInfo, ...]:
        return await self._go(self._mint.keysets)

    async def keys(self, info: KeysetInfo) -> Keyset:
        return await self._go(lambda: self._mint.keys(info))

    async def swap(self, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit) -> list[Signature]:
        return await self._go(lambda: self._mint.swap(inputs, outputs, permit), permit)

    async def request_quote(self, amount: int, unit: str, pubkey: str, permit: Permit) -> MintQuote:
        return await self._go(lambda: self._mint.request_quote(amount, unit, pubkey, permit), permit)

    async def quote(self, quote_id: str) -> MintQuote:
        return await self._go(lambda: self._mint.quote(quote_id))

    async def mint(self, quote_id: str, outputs: Sequence[Output], signature: str, permit: Permit) -> list[Signature]:
        return await self._go(lambda: self._mint.mint(quote_id, outputs, signature, permit), permit)

    async def restore(self, outputs: Sequence[Output]) -> Mapping[str, Signature]:
        return await self._go(lambda: self._mint.restore(outputs))

    async def limits(self) -> Limits:
        return await self._mint.limits()

    async def request_melt(self, invoice: str, unit: str, permit: Permit) -> MeltQuote:
        return await self._go(lambda: self._mint.request_melt(invoice, unit, permit), permit)

    async def melt_quote(self, quote_id: str) -> MeltQuote:
        return await self._go(lambda: self._mint.melt_quote(quote_id))

    async def melt(
        self, quote_id: str, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit
    ) -> MeltQuote:
        return await self._go(lambda: self._mint.melt(quote_id, inputs, outputs, permit), permit)

    async def states(self, ys: Sequence[str]) -> Mapping[str, CoinReport]:
        return await self._go(lambda: self._mint.states(ys), asks=True)
