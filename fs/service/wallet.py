"""/wallet: what there is, what it is worth, and for the operator what moves it.

Agents see balances and never pay from here: what they buy is paid by the market's own rules.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Protocol

from pydantic import RootModel

from core.effect import EffectClass, Permit
from core.error import InvalidInput, NotFound, VendoError
from core.identifier import EffectId, OperationId
from core.money import Msat, Rate
from fs.body import parsed
from fs.service.foreign import Exchange, unit_of
from fs.service.lightning import LightningRows, LightningWallet, held, lightning_folder
from fs.service.model import wallet as model
from fs.service.model.job import Usage
from fs.service.treasury import Treasurer, canonical, receipt
from fs.session import Session
from fs.tree import File, Folder, Node, Tree, json_bytes, json_reader
from wallet.amount import SAT
from wallet.error import UnitAbsent
from wallet.invoice import Invoice, asked_invoice, plain_invoice
from wallet.lightning_error import NotConnected
from wallet.lightning_record import LightningView
from wallet.model import Audit, Balance, Deposit, OperationView, Paid, Received

MAX_TOKEN = 262_144
Fund = Callable[[Deposit, EffectId, Permit], Awaitable[LightningView]]


class Purse(Protocol):
    """What `wallet.wallet.Wallet` does for its owner."""

    @property
    def mints(self) -> Sequence[str]:
        """Addresses of the trusted mints."""

    async def balance(self) -> Sequence[Balance]:
        """What is held, by mint and unit."""

    async def deposit(
        self, op_id: OperationId, mint: str, sat: int, effect_id: EffectId, permit: Permit, *, lightning: bool = False
    ) -> Deposit:
        """An invoice that buys coins."""

    async def receive(self, op_id: OperationId, token: str, effect_id: EffectId, permit: Permit) -> Received:
        """Swap a token for coins of our own."""

    async def send(
        self, op_id: OperationId, mint: str, sat: int, effect_id: EffectId, permit: Permit, *, pubkey: str = ""
    ) -> str:
        """A token for someone else."""

    def payable(self, invoice: str) -> Invoice:
        """An invoice that may be paid now."""

    def pay_cost(self, mint: str, amount: Msat) -> Msat:
        """What paying an invoice of this amount takes at most, by what is usual."""

    async def pay(
        self, op_id: OperationId, mint: str, invoice: str, ceiling: Msat, effect_id: EffectId, permit: Permit
    ) -> Paid:
        """Pay a Lightning invoice."""

    async def audit(self) -> Audit:
        """Whether rows, journal and mints agree."""

    async def find(self, op_id: OperationId) -> OperationView | None:
        """One operation."""


class Recalling(Protocol):
    """What finds everything again: `node.recall.Recall`."""

    async def restore(self, relays: Sequence[str]) -> dict[str, Any]:
        """From the words, the node's relays and these."""


class Places(Protocol):
    """Which mint it goes to or comes from: `node.spreading.Spreading`."""

    async def into(self, sat: int, mint: str | None) -> str:
        """The mint for a deposit."""

    async def out_of(self, sat: int, mint: str | None) -> str:
        """The mint that pays."""

    async def transfer(self, session: Session, wish: model.Transfer) -> dict[str, Any]:
        """From one mint to another."""


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
    places: Places | None = None,
    lightning: LightningWallet | None = None,
    fund: Fund | None = None,
    probes: Callable[[], list[dict[str, Any]]] = list,
    recall: Recalling | None = None,
    exchange: Exchange | None = None,
    rows: LightningRows | None = None,
) -> Tree:
    """The service at `/wallet`; only with a treasurer does it have files that move money.

    Args:
        wallet: the coins.
        fx: what they are worth.
        usage: what was spent today.
        rates: those that jobs were priced at.
        treasurer: moves money.
        places: says at which mint, where none is named.
        lightning: the Lightning wallet, if one is connected.
        fund: pays for a deposit from there.
        probes: what was found of each mint when it was tried with a coin.
        recall: finds money again after a loss.
        exchange: moves money in other units than sat.
        rows: what was done over Lightning, also at a wallet that is gone.
    """

    async def balance() -> dict[str, Any]:
        found = [asdict(one) for one in await wallet.balance()]
        out: dict[str, Any] = {"balances": found, "live_sat": sum(one["live"] for one in found if one["unit"] == "sat")}
        return out if treasurer is None or lightning is None else out | {"lightning": await held(lightning)}

    async def rate() -> dict[str, Any]:
        found = await fx.rate()
        return {
            "micro_usd": found.micro_usd,
            "msat": found.msat,
            "taken_at": found.taken_at,
            "source": found.source,
        }

    async def tried() -> list[dict[str, Any]]:
        found = probes()
        units = {} if exchange is None else await exchange.units([one["mint"] for one in found])
        return [one | {"units": units.get(one["mint"], [])} for one in found]

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
        "mints": File(
            "each mint: its units, and whether results are paid for there by their key, and if not, why not",
            read=json_reader(tried),
            gives=RootModel[list[model.Probed]],
        ),
        "usage": File("what was spent today, of what may be", read=json_reader(usage), gives=Usage),
    }
    if treasurer is not None and places is not None:
        files |= _moving(wallet, treasurer, places, lightning, fund, exchange)
        if recall is not None:
            files["restore"] = _restoring(recall)
        files["lightning"] = lightning_folder(lightning, treasurer, rows)
    return Tree(Folder("The wallet.", files))


def _ceiling(wallet: Purse, invoice: Invoice, mint: str, max_fee_sat: int | None) -> Msat:
    """The most that paying an invoice may take, with all fees."""
    amount = Msat(invoice.amount_msat or 0)
    if max_fee_sat is None:
        return wallet.pay_cost(mint, amount)
    return Msat.of_sat(amount.sat_up() + max_fee_sat)


def _token(body: bytes) -> str:
    """The token of a request, as text or as JSON.

    Raises:
        InvalidInput: there is none.
    """
    text = parsed(model.Token, body).token if body[:1] == b"{" else body.decode("utf-8", "replace")
    if not text.strip():
        raise InvalidInput('Send a Cashu token, as text or as {"token": ...}.')
    return text.strip()


async def _funded(deposit: Deposit, effect_id: EffectId, permit: Permit, fund: Fund) -> dict[str, Any]:
    """What became of the payment of a deposit. If it failed or is in doubt, the deposit waits all the same."""
    try:
        view = await fund(deposit, effect_id, permit)
    except VendoError as error:
        return {"payment": "", "payment_state": error.code}
    return {"payment": view.id, "payment_state": view.state.value}


def _has(exchange: Exchange | None) -> Exchange:
    """What moves other units.

    Raises:
        UnitAbsent: this wallet has sat alone.
    """
    if exchange is None:
        raise UnitAbsent("This wallet holds sat alone.")
    return exchange


def _moving(
    wallet: Purse,
    treasurer: Treasurer,
    places: Places,
    lightning: LightningWallet | None,
    fund: Fund | None,
    exchange: Exchange | None,
) -> dict[str, Node]:
    """The files that move money."""

    async def deposit(body: bytes, session: Session) -> bytes:
        asked = parsed(model.DepositSum, body)
        if (other := asked.other) is not None:
            return json_bytes(await _has(exchange).deposit(session, asked, other))
        sat, said = asked.whole_sat, canonical(asked.in_sat())
        paying = fund if asked.from_lightning else None
        if asked.from_lightning and (fund is None or lightning is None):
            raise NotConnected
        effect = EffectClass.EXTERNAL if paying is None else EffectClass.IRREVERSIBLE
        if (known := await treasurer.known(session, "deposit", said, effect)) is not None:
            return json_bytes(known)  # the mint may be full because of what was asked for under this very key
        mint = await places.into(sat, asked.mint)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            made = await wallet.deposit(op_id, mint, sat, effect_id, permit, lightning=paying is not None)
            out = {"invoice": made.invoice, "state": made.state.value, "expires_at": made.expires_at, "mint": mint}
            return out if paying is None else out | await _funded(made, effect_id, permit, paying)

        source = {"from": lightning.name} if paying and lightning else {}
        wish: dict[str, str | int] = {"mint": mint, "sat": sat, **source}
        return json_bytes(await treasurer.move(session, "deposit", said, wish, effect, act))

    async def receive(body: bytes, session: Session) -> bytes:
        token = _token(body)
        if exchange is not None and unit_of(token) != SAT:
            return json_bytes(await exchange.receive(session, token))

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            got = await wallet.receive(op_id, token, effect_id, permit)
            return {"state": "done", "amount_sat": got.amount_sat, "fee_sat": got.fee_sat}

        return json_bytes(await treasurer.move(session, "receive", token.encode(), {}, EffectClass.EXTERNAL, act))

    async def send(body: bytes, session: Session) -> bytes:
        asked = parsed(model.SentSum, body)
        if (other := asked.other) is not None:
            return json_bytes(await _has(exchange).send(session, asked, other))
        # Keys of requests from before there were locks stand for the same request still.
        sat, said = asked.whole_sat, canonical(asked.in_sat(but=() if asked.lock else ("lock",)))
        if (known := await treasurer.known(session, "send", said, EffectClass.IRREVERSIBLE)) is not None:
            return json_bytes(known)  # whichever mints there are now
        mint = await places.out_of(sat, asked.mint)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            token = await wallet.send(op_id, mint, sat, effect_id, permit, pubkey=asked.pubkey)
            return {"state": "done", "token": token, "mint": mint}

        wish: dict[str, str | int] = {"mint": mint, "sat": sat, **({"lock": asked.pubkey} if asked.lock else {})}
        return json_bytes(await treasurer.move(session, "send", said, wish, EffectClass.IRREVERSIBLE, act))

    async def move(body: bytes, session: Session) -> bytes:
        return json_bytes(await places.transfer(session, parsed(model.Transfer, body)))

    async def audit(session: Session) -> bytes:
        found = asdict(await wallet.audit())
        if lightning is not None:
            more = asdict(await lightning.audit())
            found["differences"] = [*found["differences"], *more.pop("differences")]
            found["lightning"] = more
        return json_bytes({**found, "clean": not found["differences"]})

    moves: dict[str, Any] = {"takes": model.SentSum, "gives": model.Operation}
    swapped = "a Cashu token: swapped at once for coins of our own"
    return {
        "deposit": File(
            "{sat, mint?, from_lightning?} or {amount, unit, mint?}: an invoice; coins come once it is paid",
            call=deposit,
            takes=model.DepositSum,
            gives=model.Operation,
        ),
        "receive": File(swapped, call=receive, max_bytes=MAX_TOKEN, takes=model.Token, gives=model.Operation),
        "send": File(
            "{sat or amount and unit, mint?, lock?}: a token; who has it has the money, or only the key's holder",
            call=send,
            **moves,
        ),
        "move": File(
            "{sat, target, source?, max_fee_sat?}: so much arrives at one mint, paid by another",
            call=move,
            takes=model.Transfer,
            gives=model.Transferred,
        ),
        **_paying(wallet, treasurer, places, exchange),
        "audit": File("whether rows, journal and mints agree", read=audit, gives=model.Audit),
        "operations": _operations(treasurer),
    }


def _restoring(recall: Recalling) -> File:
    """The file that finds money again."""

    async def restore(body: bytes, session: Session) -> bytes:
        return json_bytes(await recall.restore(parsed(model.Recall, body).relays))

    about = "{relays?}: find coins of these seed words at every mint, and with the memo on relays what is under way"
    return File(about, call=restore, takes=model.Recall, gives=model.Restored)


def _paying(wallet: Purse, treasurer: Treasurer, places: Places, exchange: Exchange | None) -> dict[str, Node]:
    """The files that pay invoices."""

    async def withdraw(body: bytes, session: Session) -> bytes:
        value = parsed(model.Withdrawal, body)
        if value.is_other:
            return json_bytes(await _has(exchange).withdraw(session, value))
        text = plain_invoice(value.invoice)
        # Whether it may be paid now is for what is new: what was paid with this key is answered after its end, too.
        asked = asked_invoice(text)
        sat = Msat(asked.amount_msat or 0).sat_up()
        wish = canonical({"invoice": text, "mint": value.mint, "max_fee_sat": value.max_fee_sat})
        if (known := await treasurer.known(session, "withdraw", wish, EffectClass.IRREVERSIBLE)) is not None:
            return json_bytes(known)
        mint = await places.out_of(sat, value.mint)

        async def act(op_id: OperationId, effect_id: EffectId, permit: Permit) -> dict[str, Any]:
            ceiling = _ceiling(wallet, asked, mint, value.max_fee_sat)
            paid = await wallet.pay(op_id, mint, text, ceiling, effect_id, permit)
            return {"state": "done", "mint": mint, **receipt(paid)}

        note: dict[str, str | int] = {"mint": mint, "sat": sat, "payment_hash": asked.payment_hash}
        return json_bytes(await treasurer.move(session, "withdraw", wish, note, EffectClass.IRREVERSIBLE, act))

    async def prepare(body: bytes, session: Session) -> bytes:
        value = parsed(model.Invoice, body)
        asked = wallet.payable(value.invoice)
        if value.is_other:
            return json_bytes(await _has(exchange).prepare(value, asked))
        amount = Msat(asked.amount_msat or 0).sat_up()
        mint = await places.out_of(amount, value.mint)
        total = _ceiling(wallet, asked, mint, value.max_fee_sat).sat_up()
        return json_bytes(
            {
                "mint": mint,
                "unit": SAT,
                "amount_sat": amount,
                "max_fee_sat": total - amount,
                "total_sat": total,
                "total": total,
                "payment_hash": asked.payment_hash,
                "expires_at": asked.expires_at,
            }
        )

    priced = "{invoice, mint?, max_fee_sat? | unit, most?}: what paying it takes at most; pays nothing and asks nobody"
    paid = "{invoice, mint?, max_fee_sat? | unit, most?, agreed?}: pay a Lightning invoice; it cannot be taken back"
    return {
        "prepare": File(priced, call=prepare, takes=model.Invoice, gives=model.Prepared),
        "withdraw": File(paid, call=withdraw, takes=model.Withdrawal, gives=model.Operation),
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
