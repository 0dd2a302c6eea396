"""/market: what this node sells, to whom it sold, and deposits for cheap jobs."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import RootModel

from fs.service.model.job import Offered, Sale, TipStatus
from fs.service.prepaid import Deposits, Held, prepaid_folder
from fs.tree import File, Folder, Tree, json_reader


class Gifts(Protocol):
    """Money that came in public: `dvm.nutzap.Nutzaps`."""

    async def listed(self) -> Sequence[Mapping[str, Any]]:
        """The latest."""

    def facts(self) -> Mapping[str, Any]:
        """To which key it is to be locked, and what was refused."""


def market_service(
    services: Callable[[], Sequence[Mapping[str, Any]]],
    sales: Callable[[], Awaitable[Sequence[Mapping[str, Any]]]],
    tips: Gifts,
    deposits: Deposits,
    held: Held,
) -> Tree:
    """The service at `/market`.

    Args:
        services: looks up the price list.
        sales: looks up the latest sales.
        tips: money that came in public.
        deposits: ours at sellers.
        held: looks up customers' deposits.
    """

    async def price_list() -> list[Mapping[str, Any]]:
        return list(services())

    async def facts() -> Mapping[str, Any]:
        return {**tips.facts(), "latest": [dict(one) for one in await tips.listed()]}

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
                "tips": File(
                    "money that came in public (NIP-61, NIP-57): the latest, and what was refused, by reason",
                    read=json_reader(facts),
                    gives=TipStatus,
                ),
                "prepaid": prepaid_folder(deposits, held),
            },
        )
    )
