"""/wallet: what there is, what it is worth, and for the operator what moves it.

Agents see balances and never pay from here: what they buy is paid by the market's own rules.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from core.effect import EffectClass, Permit
from core.error import InvalidInput, NotFound
from core.identifier import EffectId, OperationId
from core.money import Rate
from fs.service.treasury import Treasurer, canonical
from fs.session import Session
from fs.tree import File, Folder, Node, Tree, json_bytes, json_object, json_reader
from wallet.model import Audit, Balance, Deposit, OperationView, Received, Restored

MAX_TOKEN = 262_144
MAX_SAT = 2_100_000_000_000_000


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


def wallet_service(
    wallet: Purse,
    fx: RateSource,
    usage: Callable[[], Awaitable[Mapping[str, Any]]],
    treasurer: Treasurer | None = None,
) -> Tree:
    """The service at `/wallet`; only with a treasurer does it have files that move money."""

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

    files: dict[str, Node] = {
        "balance": File("what is held: free, reserved by open operations, locked to others", read=json_reader(balance)),
        "fx": File("the exchange rate in use", read=json_reader(rate)),
        "usage": File("what was spent today, of what may be", read=json_reader(usage)),
    }
    if treasurer is not None:
        files |= _moving(wallet, treasurer)
    return Tree(Folder("The wallet.", files))


def _amount(value: Mapping[str, Any], mints: Sequence[str]) -> tuple[int, str]:
    """The sat and the mint of a request.

    Raises:
        InvalidInput: not a positive whole number of sat, or no mint is named and there is more than one.
    """
    sat, mint = value.get("sat"), value.get("mint")
    if type(sat) is not int or not 0 < sat <= MAX_SAT:
        raise InvalidInput("sat is a whole number from 1.")
    if mint is None and len(mints) == 1:
        mint = mints[0]
    if type(mint) is not str:
        raise InvalidInput("Name the mint: this node does not trust exactly one.")
    return sat, mint


def _moving(wallet: Purse, treasurer: Treasurer) -> dict[str, Node]:
    """The files that move money."""

    async def deposit(body: bytes, session: Session) -> bytes:
        sat, mint = _amount(json_object(body, frozenset({"sat", "mint"})), wallet.mints)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            made = await wallet.deposit(op_id, mint, sat, effect_id, permit)
            return {"invoice": made.invoice, "state": made.state.value, "expires_at": made.expires_at, "mint": mint}

        wish: dict[str, str | int] = {"mint": mint, "sat": sat}
        return json_bytes(await treasurer.move(session, "deposit", canonical(wish), wish, EffectClass.EXTERNAL, act))

    async def restore(body: bytes, session: Session) -> bytes:
        json_object(body or b"{}", frozenset())
        return json_bytes({"restored": [asdict(await wallet.restore(mint)) for mint in wallet.mints]})

    async def receive(body: bytes, session: Session) -> bytes:
        token = (
            json_object(body, frozenset({"token"})).get("token")
            if body[:1] == b"{"
            else body.decode("utf-8", "replace")
        )
        if type(token) is not str or not token.strip():
            raise InvalidInput('Send a Cashu token, as text or as {"token": ...}.')
        token = token.strip()

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            got = await wallet.receive(op_id, token, effect_id, permit)
            return {"state": "done", "amount_sat": got.amount_sat, "fee_sat": got.fee_sat}

        return json_bytes(await treasurer.move(session, "receive", token.encode(), {}, EffectClass.EXTERNAL, act))

    async def send(body: bytes, session: Session) -> bytes:
        sat, mint = _amount(json_object(body, frozenset({"sat", "mint"})), wallet.mints)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            return {"state": "done", "token": await wallet.send(op_id, mint, sat, effect_id, permit), "mint": mint}

        wish: dict[str, str | int] = {"mint": mint, "sat": sat}
        return json_bytes(await treasurer.move(session, "send", canonical(wish), wish, EffectClass.IRREVERSIBLE, act))

    async def audit(session: Session) -> bytes:
        found = await wallet.audit()
        return json_bytes({**asdict(found), "clean": found.clean})

    return {
        "deposit": File("{sat, mint?}: an invoice; coins come once it is paid", call=deposit),
        "receive": File("a Cashu token: swapped at once for coins of our own", call=receive, max_bytes=MAX_TOKEN),
        "send": File("{sat, mint?}: a token for someone else; whoever has it has the money", call=send),
        "restore": File("look for coins of these seed words at every mint (NUT-09); takes a while", call=restore),
        "audit": File("whether rows, journal and mints agree", read=audit),
        "operations": _operations(treasurer),
    }


def _operations(treasurer: Treasurer) -> Folder:
    async def find(name: str, session: Session) -> Node | None:
        try:
            found = await treasurer.operation(OperationId(name))
        except NotFound:
            return None

        async def read(session: Session) -> bytes:
            return json_bytes(found)

        return File("one operation, as JSON", read=read)

    return Folder("Operations of this wallet.", {}, None, find, "<operation id>", "one operation, as JSON")
