"""/market/prepaid: deposits from which cheap jobs are paid, ours at sellers and customers' here (ADR 27)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol

from pydantic import RootModel

from fs.body import parsed
from fs.error import Unsupported
from fs.service.model.prepaid import ClosedDeposit, DepositFact, NewDeposit
from fs.session import Session
from fs.tree import File, Folder, json_bytes, json_reader
from relays.key import parse_pubkey


class Deposits(Protocol):
    """Ours: `dvm.prepaying.Prepaying`."""

    async def open(self, caller: str, key: str, seller: str, sat: int) -> dict[str, Any]:
        """Begin one; the same key gives the same one."""

    async def close(self, id_: str) -> dict[str, Any]:
        """Draw no more, and have the rest back."""

    async def rows(self) -> list[dict[str, Any]]:
        """The latest, newest first."""


Held = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]


def prepaid_folder(deposits: Deposits, held: Held) -> Folder:
    """The folder at `/market/prepaid`; `held` looks up customers' deposits."""

    async def rows() -> list[Mapping[str, Any]]:
        return [*await deposits.rows(), *await held()]

    async def start(body: bytes, session: Session) -> bytes:
        asked = parsed(NewDeposit, body)
        if session.staged:
            raise Unsupported("Moving money is not part of a tick.")
        seller = parse_pubkey(asked.seller)
        return json_bytes(await deposits.open(session.caller, session.effect_key(), seller, asked.sat))

    async def end(body: bytes, session: Session) -> bytes:
        if session.staged:
            raise Unsupported("Moving money is not part of a tick.")
        return json_bytes(await deposits.close(parsed(ClosedDeposit, body).deposit))

    files = {
        "open": File(
            "{seller, sat}: lock a deposit at a seller that is known; cheap jobs draw on it",
            call=start,
            takes=NewDeposit,
            gives=DepositFact,
        ),
        "close": File(
            "{deposit}: draw no more; the seller sends back what is left",
            call=end,
            takes=ClosedDeposit,
            gives=DepositFact,
        ),
    }
    about = "Deposits, ours at sellers and customers' here; reading it gives them as a JSON list."
    return Folder(about, files, read=json_reader(rows), gives=RootModel[list[DepositFact]])
