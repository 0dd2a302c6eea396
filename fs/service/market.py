"""/market: what this node sells, and to whom it sold."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import RootModel

from fs.service.model.job import Offered, Sale
from fs.tree import File, Folder, Tree, json_reader


def market_service(
    services: Callable[[], Sequence[Mapping[str, Any]]], sales: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]
) -> Tree:
    """The service at `/market`; `services` looks up the price list, `sales` looks up the latest sales."""

    async def price_list() -> list[Mapping[str, Any]]:
        return list(services())

    return Tree(
        Folder(
            "What this node sells.",
            {
                "services": File(
                    "what is for sale at which price, as a JSON list",
                    read=json_reader(price_list),
                    gives=RootModel[list[Offered]],
                ),
                "sales": File(
                    "jobs that were sold, newest first, as a JSON list",
                    read=json_reader(sales),
                    gives=RootModel[list[Sale]],
                ),
            },
        )
    )
