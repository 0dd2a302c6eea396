"""/wallet: what there is, what it is worth, and for the operator what moves it.

Agents see balances and never pay from here: what they buy is paid by the market's own rules.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from pydantic import RootModel

from core.effect import EffectClass, Permit
from core.error import InvalidInput, NotFound
from core.identifier import EffectId, OperationId
from core.money import Rate
from fs.body import parsed
from fs.service.model import wallet as model
from fs.service.model.job import Usage
from fs.service.treasury import Treasurer, canonical
from fs.session import Session
from fs.tree import File, Folder, Node, Tree, json_bytes, json_reader
from wallet.model import Audit, Balance, Deposit, OperationView, Received, Restored

MAX_TOKEN = 262_144


class Purse(Protocol):
    """What `wallet.wallet.Wallet` does for its owner."""

    @property
    def mints(self) -> Sequence[str]:
        """Addresses of the trusted mints."""

    async def balance(self) -> Sequence[Balance]:
        """What is held, by mint and unit."""

    async def deposit(self, op_id: OperationId, mint: str, sat: int, effect_id: EffectId, permit: Permit) -> Deposit:
        """An invoice that buys coins."""

    async def receive(self, op_id: OperationId, token: str, effect_id: EffectId, permit: Permit) -> Received:
        """Swap a token for coins of our own."""

    async def send(self, op_id: OperationId, mint: str, sat: int, effect_id: EffectId, permit: Permit) -> str:
        """A token for someone else."""

    async def audit(self) -> Audit:
        """Whether rows, journal and mints agree."""

    async def restore(self, mint: str) -> Restored:
        """Find the coins that a mint has ever signed for these seed words and that are unspent."""

    async def find(self, op_id: OperationId) -> OperationView | None:
        """One operation."""


class RateSource(Protocol):
    """What money is worth: `wallet.fx`."""

    async def rate(self) -> Rate:
        """A fresh rate.

        Raises:
            FxUnpriced: there is none.
        """

    def sources(self) -> list[dict[str, Any]]:
        """What each source says, and whether it counts."""


def wallet_service(
    wallet: Purse,
    fx: RateSource,
    usage: Callable[[], Awaitable[Mapping[str, Any]]],
    rates: Callable[[], Awaitable[list[dict[str, Any]]]],
    treasurer: Treasurer | None = None,
) -> Tree:
    """The service at `/wallet`; only with a treasurer does it have files that move money.

    Args:
        wallet: the coins.
        fx: what they are worth.
        usage: what was spent today.
        rates: those that jobs were priced at.
        treasurer: moves money.
    """

    async def balance() -> dict[str, Any]:
        found = [asdict(one) for one in await wallet.balance()]
        return {"balances": found, "live_sat": sum(one["live"] for one in found if one["unit"] == "sat")}

    async def rate() -> dict[str, Any]:
        found = await fx.rate()
        return {
            "micro_usd": found.micro_usd,
            "msat": found.msat,
            "taken_at": found.taken_at,
            "source": found.source,
        }

    async def feeds() -> list[dict[str, Any]]:
        return fx.sources()

    files: dict[str, Node] = {
        "balance": File(
            "what is held: free, reserved by open operations, locked to others",
            read=json_reader(balance),
            gives=model.Balances,
        ),
        "fx": File("the exchange rate in use", read=json_reader(rate), gives=model.FxRate),
        "feeds": File(
            "where the exchange rate comes from: what each source says, whether it counts, and why not",
            read=json_reader(feeds),
            gives=RootModel[list[model.FxFeed]],
        ),
        "rates": File(
            "the last 100 rates that jobs were priced at, oldest first",
            read=json_reader(rates),
            gives=RootModel[list[model.FxRate]],
        ),
        "usage": File("what was spent today, of what may be", read=json_reader(usage), gives=Usage),
    }
    if treasurer is not None:
        files |= _moving(wallet, treasurer)
    return Tree(Folder("The wallet.", files))


def _amount(body: bytes, mints: Sequence[str]) -> tuple[int, str]:
    """The sat and the mint of a request.

    Raises:
        InvalidInput: not a positive whole number of sat, or no mint is named and there is more than one.
    """
    value = parsed(model.Sum, body)
    mint = mints[0] if value.mint is None and len(mints) == 1 else value.mint
    if mint is None:
        raise InvalidInput("Name the mint: this node does not trust exactly one.")
    return value.sat, mint


def _token(body: bytes) -> str:
    """The token of a request, as text or as JSON.

    Raises:
        InvalidInput: there is none.
    """
    text = parsed(model.Token, body).token if body[:1] == b"{" else body.decode("utf-8", "replace")
    if not text.strip():
        raise InvalidInput('Send a Cashu token, as text or as {"token": ...}.')
    return text.strip()


def _moving(wallet: Purse, treasurer: Treasurer) -> dict[str, Node]:
    """The files that move money."""

    async def deposit(body: bytes, session: Session) -> bytes:
        sat, mint = _amount(body, wallet.mints)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            made = await wallet.deposit(op_id, mint, sat, effect_id, permit)
            return {"invoice": made.invoice, "state": made.state.value, "expires_at": made.expires_at, "mint": mint}

        wish: dict[str, str | int] = {"mint": mint, "sat": sat}
        return json_bytes(await treasurer.move(session, "deposit", canonical(wish), wish, EffectClass.EXTERNAL, act))

    async def restore(body: bytes, session: Session) -> bytes:
        parsed(model.Nothing, body)
        return json_bytes({"restored": [asdict(await wallet.restore(mint)) for mint in wallet.mints]})

    async def receive(body: bytes, session: Session) -> bytes:
        token = _token(body)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            got = await wallet.receive(op_id, token, effect_id, permit)
            return {"state": "done", "amount_sat": got.amount_sat, "fee_sat": got.fee_sat}

        return json_bytes(await treasurer.move(session, "receive", token.encode(), {}, EffectClass.EXTERNAL, act))

    async def send(body: bytes, session: Session) -> bytes:
        sat, mint = _amount(body, wallet.mints)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            return {"state": "done", "token": await wallet.send(op_id, mint, sat, effect_id, permit), "mint": mint}

        wish: dict[str, str | int] = {"mint": mint, "sat": sat}
        return json_bytes(await treasurer.move(session, "send", canonical(wish), wish, EffectClass.IRREVERSIBLE, act))

    async def audit(session: Session) -> bytes:
        found = await wallet.audit()
        return json_bytes({**asdict(found), "clean": found.clean})

    moves: dict[str, Any] = {"takes": model.Sum, "gives": model.Operation}
    swapped = "a Cashu token: swapped at once for coins of our own"
    searched = "look for coins of these seed words at every mint (NUT-09); takes a while"
    return {
        "deposit": File("{sat, mint?}: an invoice; coins come once it is paid", call=deposit, **moves),
        "receive": File(swapped, call=receive, max_bytes=MAX_TOKEN, takes=model.Token, gives=model.Operation),
        "send": File("{sat, mint?}: a token for someone else; whoever has it has the money", call=send, **moves),
        "restore": File(searched, call=restore, takes=model.Nothing, gives=model.Restored),
        "audit": File("whether rows, journal and mints agree", read=audit, gives=model.Audit),
        "operations": _operations(treasurer),
    }


def _operations(treasurer: Treasurer) -> Folder:
    async def find(name: str, session: Session) -> Node | None:
        try:
            found = await treasurer.operation(OperationId(name))
        except NotFound:
            return None
        return one(found)

    def one(found: Mapping[str, Any]) -> File:
        async def read(session: Session) -> bytes:
            return json_bytes(found)

        return File("one operation, as JSON", read=read, gives=model.Operation)

    about, pattern = "one operation, as JSON", "<operation id>"
    return Folder("Operations of this wallet.", {}, None, find, pattern, about, sample=lambda: one({}))
