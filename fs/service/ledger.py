"""/ledger: the signed record of every effect, as far as one page. `vendo ledger verify` walks all of it."""

from typing import Any, Protocol

from pydantic import RootModel

from fs.service.model.node import Effect, LedgerHead
from fs.service.model.nostr import SignedEvent
from fs.tree import File, Folder, Tree, json_reader

RECENT = 100


class Ledger(Protocol):
    """What the node's ledger shows."""

    async def head(self) -> dict[str, Any]:
        """The last entry's run, seq and id."""

    async def recent(self, limit: int) -> list[dict[str, Any]]:
        """The last entries as signed events, newest first."""

    async def open(self) -> list[dict[str, Any]]:
        """Effects that have not ended: begun or unknown."""


def ledger_service(ledger: Ledger) -> Tree:
    """The service at `/ledger`."""

    async def recent() -> list[dict[str, Any]]:
        return await ledger.recent(RECENT)

    return Tree(
        Folder(
            "Every effect of this node: begun, then committed, failed or unknown; signed and chained.",
            {
                "head": File("the last entry: run, seq, id", read=json_reader(ledger.head), gives=LedgerHead),
                "recent": File(
                    f"the last {RECENT} entries, newest first",
                    read=json_reader(recent),
                    gives=RootModel[list[SignedEvent]],
                ),
                "open": File(
                    "effects that have not ended", read=json_reader(ledger.open), gives=RootModel[list[Effect]]
                ),
            },
        )
    )
