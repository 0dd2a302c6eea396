"""/market: what this node sells, to whom it sold, and deposits for cheap jobs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from pydantic import RootModel

from fs.service.model.job import Offered, Sale
from fs.service.prepaid import Deposits, Held, prepaid_folder
from fs.tree import File, Folder, Tree, json_reader


def market_service(
    services: Callable[[], Sequence[Mapping[str, Any]]],
    sales: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
    deposits: Deposits,
    held: Held,
) -> Tree:
    """The service at `/market`.

    Args:
        services: looks up the price list.
        sales: looks up the latest sales.
        deposits: ours at sellers.
        held: looks up customers' deposits.
    """

    async def price_list() -> list[Mapping[str, Any]]:
        return list(services())

    return Tree(
        Folder(
            "What this node sells, and deposits for cheap jobs.",
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
                "prepaid": prepaid_folder(deposits, held),
            },
        )
    )
