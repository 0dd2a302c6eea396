"""/sell: what this node sells. Kinds are put up for sale, priced, paused and stopped while it runs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

from pydantic import RootModel

from core.error import InvalidInput
from fs.body import parsed
from fs.service.model.job import Offered
from fs.service.model.sell import Earnings, NewOffer, NewPrice, SellStatus
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_reader


class Offers(Protocol):
    """What is sold: `node.offering.Offerings`."""

    def rows(self) -> list[dict[str, Any]]:
        """What is sold, by kind."""

    async def start(self, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Put a kind up for sale."""

    async def price(self, kind: int, terms: Mapping[str, Any]) -> dict[str, Any]:
        """Sell at another price from now on."""

    async def pause(self, kind: int | None) -> list[dict[str, Any]]:
        """Begin nothing new of a kind, or of any."""

    async def resume(self, kind: int | None) -> list[dict[str, Any]]:
        """Sell it again."""

    async def stop(self, kind: int) -> dict[str, Any]:
        """Sell it no more."""

    async def status(self) -> Mapping[str, Any]:
        """How selling is doing."""

    async def earned(self, since: int = 0) -> list[dict[str, Any]]:
        """What was claimed since a time (Unix seconds), by kind and mint."""


def sell_service(offers: Offers) -> Tree:
    """The service at `/sell`."""
    files: dict[str, File | Folder] = {
        "start": File(
            'put a kind up for sale: {"kind", "price_msat" or "price_usd", "per", "min_msat", "max_msat", "min_usd", '
            '"max_usd", "provider", "eta_s", "max_parallel"}',
            call=_caller(NewOffer, offers.start),
            takes=NewOffer,
            gives=Offered,
        ),
        "pause": File("begin nothing new of any kind", call=_all(offers.pause), gives=RootModel[list[Offered]]),
        "resume": File("sell again what is paused", call=_all(offers.resume), gives=RootModel[list[Offered]]),
        "status": File(
            "what is open and waits, and what was not answered, by reason",
            read=json_reader(offers.status),
            gives=SellStatus,
        ),
        "earnings": _earnings(offers),
    }

    async def rows() -> list[dict[str, Any]]:
        return offers.rows()

    async def names(session: Session) -> Sequence[str]:
        return [str(row["kind"]) for row in offers.rows()]

    async def find(name: str, session: Session) -> Folder | None:
        return _kind(offers, int(name)) if name in await names(session) else None

    return Tree(
        Folder(
            "What this node sells; reading it gives all kinds as a JSON list.",
            files,
            names,
            find,
            "<kind>",
            "one kind, as JSON; in it `price`, `pause`, `resume` and `stop`",
            found_are_folders=True,
            read=json_reader(rows),
            gives=RootModel[list[Offered]],
            sample=lambda: _kind(offers, 5050),
        )
    )


def _kind(offers: Offers, kind: int) -> Folder:
    async def read(session: Session) -> bytes:
        return json_bytes(next((row for row in offers.rows() if row["kind"] == kind), None))

    async def pause(body: bytes, session: Session) -> bytes:
        return json_bytes((await offers.pause(kind))[0])

    async def resume(body: bytes, session: Session) -> bytes:
        return json_bytes((await offers.resume(kind))[0])

    async def stop(body: bytes, session: Session) -> bytes:
        return json_bytes(await offers.stop(kind))

    async def price(terms: Mapping[str, Any]) -> dict[str, Any]:
        return await offers.price(kind, terms)

    files = {
        "price": File(
            "sell at another price from now on; quotes that stand are kept",
            call=_caller(NewPrice, price),
            takes=NewPrice,
            gives=Offered,
        ),
        "pause": File("begin nothing new", call=pause, gives=Offered),
        "resume": File("sell again", call=resume, gives=Offered),
        "stop": File("sell no more; what is open is finished", call=stop, gives=Offered),
    }
    return Folder("One kind; reading it gives its terms as JSON.", files, read=read, gives=Offered)


def _caller(
    model: type[NewOffer] | type[NewPrice], act: Callable[[Mapping[str, Any]], Awaitable[dict[str, Any]]]
) -> Callable[[bytes, Session], Awaitable[bytes]]:
    async def call(body: bytes, session: Session) -> bytes:
        return json_bytes(await act(parsed(model, body).given()))

    return call


def _all(
    act: Callable[[int | None], Awaitable[list[dict[str, Any]]]],
) -> Callable[[bytes, Session], Awaitable[bytes]]:
    async def call(body: bytes, session: Session) -> bytes:
        return json_bytes(await act(None))

    return call


def _earnings(offers: Offers) -> Folder:
    def since(day: str) -> File:
        async def read() -> list[dict[str, Any]]:
            return await offers.earned(_day_start(day))

        return File("the same since the beginning of a day", read=json_reader(read), gives=Earnings)

    async def find(name: str, session: Session) -> File | None:
        try:
            _day_start(name)
        except InvalidInput:
            return None
        return since(name)

    async def names(session: Session) -> Sequence[str]:
        return ()

    return Folder(
        "What was claimed for sales that are kept, by kind and mint; reading it gives all of it.",
        {},
        names,
        find,
        "<day>",
        "the same since a day, YYYY-MM-DD (UTC)",
        read=json_reader(offers.earned),
        gives=Earnings,
        sample=lambda: since("2026-01-01"),
    )


def _day_start(day: str) -> int:
    """The first second of a day (UTC).

    Raises:
        InvalidInput: it is none.
    """
    try:
        return int(datetime.strptime(day, "%Y-%m-%d").replace(tzinfo=UTC).timestamp())
    except ValueError as error:
        raise InvalidInput("A day is written as YYYY-MM-DD.") from error
