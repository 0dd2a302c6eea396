"""Reading from PostgreSQL. Questions of one shape that wait together are asked as one.

There is no timer: questions are sent after every task that is ready now has had its turn, and while the connections
are busy the next ones gather. A connection that was lost is made anew, and what it was asked is asked once more.
"""

import asyncio
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from core.error import Unavailable, VendoError
from core.unit import Row
from node.storage.error import BadWrite
from node.storage.postgres_link import FAILED, Link, certain, close, connect, is_misfit, is_verdict
from node.storage.postgres_question import Ask, Question

_PATIENCE_S = 60.0  # for one answer
_TOGETHER = 256
AT_ONCE = 500  # rows unpacked before others get a turn
_TURN = 3  # answers that are heard before others get a turn
_SETTINGS = {"application_name": "vendo reader", "default_transaction_read_only": "on"}


class _Waiting(NamedTuple):
    params: tuple[Any, ...]
    done: "asyncio.Future[list[Any]]"


class PostgresReader:
    """As many connections as there is use for, `most` of them."""

    def __init__(self, url: str, most: int = 2) -> None:
        self._url, self._loop = url, asyncio.get_running_loop()
        self._waiting: dict[Ask, list[_Waiting]] = {}
        self._idle: list[Link | None] = [None] * most  # None: not opened yet, or lost
        self._busy: set[asyncio.Task[None]] = set()
        self._landing: deque[tuple[_Waiting, list[Any]]] = deque()
        self._armed = self._closed = False

    async def stop(self) -> None:
        """Refuse what waits, and close."""
        self._closed = True
        for ones in self._waiting.values():
            _refuse(ones, Unavailable("The database is closed."))
        self._waiting.clear()
        if self._busy:
            await asyncio.wait(self._busy)
        for link in self._idle:
            await close(link)

    def ask(self, asked: Question) -> "asyncio.Future[list[Any]]":
        """The whole answer; it fails with BadWrite or Unavailable.

        Raises:
            Unavailable: this is closed.
        """
        if self._closed:
            raise Unavailable("The database is closed.")
        done: asyncio.Future[list[Any]] = self._loop.create_future()
        self._waiting.setdefault(asked.ask, []).append(_Waiting(asked.params, done))
        if not self._armed:
            self._armed = True
            self._loop.call_soon(self._send)
        return done

    def _send(self) -> None:
        self._armed = False
        for _ in range(min(len(self._waiting), len(self._idle))):
            task = self._loop.create_task(self._work(self._idle.pop()))
            self._busy.add(task)
            task.add_done_callback(self._busy.discard)

    async def _work(self, link: Link | None) -> None:
        """Ask what waits, until nothing does."""
        try:
            while self._waiting:
                ask = next(iter(self._waiting))
                ones = self._waiting.pop(ask)
                most = _TOGETHER if ask.many else 1
                if len(ones) > most:
                    self._waiting[ask] = ones[most:]  # behind other questions
                link = await self._ask(link, ask, ones[:most])
        finally:
            self._idle.append(link)

    async def _ask(self, link: Link | None, ask: Ask, ones: Sequence[_Waiting]) -> Link | None:
        """Ask, and give the answers out; the connection, if it may be used again."""
        fresh = link is None or link.is_closed()
        try:
            if fresh:
                link = await connect(self._url, _SETTINGS)
            answers = await _answers(link, ask, [one.params for one in ones])
        except VendoError as error:
            _refuse(ones, error)
            return None
        except FAILED as error:
            if is_verdict(error):
                _refuse(ones, BadWrite("This value cannot be looked up.") if is_misfit(error) else certain(error))
                return link
            if link is not None:
                link.terminate()
            if fresh:
                _refuse(ones, certain(error))
                return None
            return await self._ask(None, ask, ones)  # it was lost while nobody asked
        settling = bool(self._landing)
        self._landing.extend(zip(ones, answers, strict=True))
        if not settling:
            self._settle()
        return link

    def _settle(self) -> None:
        """Some of those who asked hear of it now, the others when these have had their turn."""
        for _ in range(min(_TURN, len(self._landing))):
            one, answer = self._landing.popleft()
            if not one.done.done():
                one.done.set_result(answer)
        if self._landing:
            self._loop.call_soon(self._settle)


async def _answers(link: Link, ask: Ask, params: Sequence[tuple[Any, ...]]) -> list[list[Any]]:
    """The rows for each of these questions of one shape."""
    if len(params) == 1:
        return [await link.fetch(ask.lone, *params[0], timeout=_PATIENCE_S)]
    answers: list[list[Any]] = [[] for _ in params]
    for row in await link.fetch(ask.many, *ask.together(params), timeout=_PATIENCE_S):
        answers[row[-1] - 1].append(row)
    return answers


def _refuse(ones: Iterable[_Waiting], error: VendoError) -> None:
    for one in ones:
        if not one.done.done():
            one.done.set_exception(error)


async def unpacked(ask: Ask, answer: Sequence[Any]) -> list[Row]:
    """The rows of a long answer; others get their turn meanwhile."""
    rows: list[Row] = []
    for begin in range(0, len(answer), AT_ONCE):
        rows += ask.rows(answer[begin : begin + AT_ONCE])
        await asyncio.sleep(0)
    return rows
