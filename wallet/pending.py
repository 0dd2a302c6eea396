"""What of an operation must be known to find and finish it with nothing but the words. Pure.

Outputs derive from the seed, and so do lock nonces, refund keys and keys of deposits: of a lock its terms are enough,
of a deposit its quote. Coins that others made (a payment to us that is being claimed) derive from nothing of ours, and
stand here whole. So does a payment over Lightning that is under way: its coins come back if it fails.

An entry is a hint. Whoever reads it asks the mint (NUT-07, NUT-09) before anything is done about it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from wallet.cashu.curve import is_point
from wallet.cashu.lock import MAX_SECRET, MAX_WITNESS, HashLock, Lock, condition, read_hash_lock, read_lock
from wallet.cashu.proof import Proof, total
from wallet.error import MemoInvalid, TokenLock
from wallet.payment import Kind
from wallet.record import Plan

MAX_AMOUNT = 1 << 51
MAX_TIME = 1 << 40
MAX_TRIES = 8
MAX_ATTEMPTS = 8
MAX_INPUTS = 32  # of one entry that takes coins; a bigger one is told in parts
MAX_COINS = 256  # of a melt
_MAX_TEXT = 512
_TAKES = frozenset({Kind.RECEIVE, Kind.CLAIM})
_LOCK_TERMS = {"pubkey": str, "locktime": int, "refund": str, "price": int, "quote_id": str}
KINDS = frozenset({Kind.LOCK, Kind.DEPOSIT, Kind.MELT}) | _TAKES


@dataclass(frozen=True, slots=True)
class Pending:
    """One operation whose money is not final.

    Attributes:
        op_id: its id, from which keys and outputs derive.
        kind: lock, deposit, melt, receive or claim.
        mint: canonical address.
        unit: of its coins.
        amount: in that unit.
        due: Unix seconds: of a lock and a claim the locktime, of a deposit and a melt when it expires; 0 if never.
        body: what the kind needs; see `pending_of`.
    """

    op_id: str
    kind: Kind
    mint: str
    unit: str
    amount: int
    due: int
    body: Mapping[str, Any] = field(repr=False)

    def to_dict(self) -> dict[str, Any]:
        """As it stands in a memo, encrypted."""
        return {
            "id": self.op_id,
            "kind": str(self.kind),
            "mint": self.mint,
            "unit": self.unit,
            "amount": self.amount,
            "due": self.due,
            "body": dict(self.body),
        }


def pending_of(op_id: str, kind: Kind, mint: str, unit: str, amount: int, plan: Plan) -> tuple[Pending, ...]:
    """The entries for an operation; none for one that the words alone find again."""
    if kind is Kind.LOCK:
        return (Pending(op_id, kind, mint, unit, amount, int(plan.terms["locktime"]), _lock_body(plan, amount)),)
    if kind is Kind.DEPOSIT:
        body = {"quote": plan.quote, "key": plan.key[1], "expires": plan.expires, "until": plan.terms.get("until", 0)}
        return (Pending(op_id, kind, mint, unit, amount, plan.expires, body),)
    if kind is Kind.MELT:
        body = {"plan": orjson.loads(_bare(plan).to_json())}
        return (Pending(op_id, kind, mint, unit, amount, plan.expires, body),)
    return tuple(_takes(op_id, kind, mint, unit, plan)) if kind in _TAKES else ()


def _bare(plan: Plan) -> Plan:
    """Without proofs of the mint's honesty, which were checked."""
    return replace(plan, inputs=tuple(replace(proof, dleq=None) for proof in plan.inputs))


def _lock_body(plan: Plan, amount: int) -> dict[str, Any]:
    names = (*_LOCK_TERMS, "hash", "cosigner")
    tries: list[list[str | int]] = []
    for group in (*plan.past, plan.outputs):
        given = [output for output in group if output.gives]
        one: list[str | int] = [given[0].keyset, total(given)] if given else []
        if one and one not in tries:
            tries.append(one)
    terms = {name: plan.terms[name] for name in names if name in plan.terms}
    attempts = min(max(plan.attempt, len(plan.past) + 1), MAX_ATTEMPTS)
    return {"terms": terms, "tries": tries[-MAX_TRIES:], "attempts": attempts}


def _takes(op_id: str, kind: Kind, mint: str, unit: str, plan: Plan) -> Iterable[Pending]:
    for place in range(0, len(plan.inputs), MAX_INPUTS):
        some = plan.inputs[place : place + MAX_INPUTS]
        cosigned = {proof.secret: plan.cosigned[proof.secret] for proof in some if proof.secret in plan.cosigned}
        body = {
            "inputs": [replace(proof, dleq=None).to_dict() for proof in some],
            "key": list(plan.key),
            "preimage": plan.preimage,
            "cosigned": cosigned,
        }
        name = f"{op_id}/{place}" if place else op_id
        yield Pending(name, kind, mint, unit, total(some), min(map(_locktime, some)), body)


def _locktime(proof: Proof) -> int:
    """When somebody else may take a coin back, in Unix seconds; 0 if never, or if its lock is not one that we write."""
    try:
        found = condition(proof.secret)
        if found is None:
            return 0
        return (read_lock(proof.secret) if found[0] == "P2PK" else read_hash_lock(proof.secret)).locktime
    except TokenLock:
        return 0


# ---------------------------------------------------------------------- reading


def read_pending(value: Any) -> Pending:
    """An entry of a memo.

    Raises:
        MemoInvalid: it is none; its text is not repeated, since it may hold coins.
    """
    if type(value) is not dict or set(value) != {"id", "kind", "mint", "unit", "amount", "due", "body"}:
        raise MemoInvalid
    kind = value["kind"]
    if type(kind) is not str or kind not in {str(one) for one in KINDS} or type(value["body"]) is not dict:
        raise MemoInvalid
    texts = (_text(value["id"]), _text(value["mint"]), _text(value["unit"], 16))
    found = Pending(
        texts[0],
        Kind(kind),
        texts[1],
        texts[2],
        _number(value["amount"], MAX_AMOUNT),
        _number(value["due"], MAX_TIME),
        value["body"],
    )
    _CHECKS[found.kind](found.body)
    return found


def _text(value: Any, most: int = _MAX_TEXT, *, empty: bool = False) -> str:
    if type(value) is not str or len(value) > most or not (value or empty):
        raise MemoInvalid
    return value


def _number(value: Any, most: int) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise MemoInvalid
    return value


def _hex(value: Any) -> str:
    text = _text(value, 66)
    if len(text) % 2 or not set(text) <= set("0123456789abcdef"):
        raise MemoInvalid
    return text


def _check_lock(body: Mapping[str, Any]) -> None:
    terms, tries = body.get("terms"), body.get("tries")
    if set(body) != {"terms", "tries", "attempts"} or type(terms) is not dict or type(tries) is not list:
        raise MemoInvalid
    if not set(_LOCK_TERMS) <= set(terms) <= {*_LOCK_TERMS, "hash", "cosigner"} or not 0 < len(tries) <= MAX_TRIES:
        raise MemoInvalid
    if any(type(terms[name]) is not kind for name, kind in _LOCK_TERMS.items()):
        raise MemoInvalid
    _number(terms["locktime"], MAX_TIME)
    _number(terms["price"], MAX_AMOUNT * 1_000)
    _text(terms["quote_id"], empty=True)
    for one in tries:
        if type(one) is not list or len(one) != 2 or not _hex(one[0]) or not _number(one[1], MAX_AMOUNT):
            raise MemoInvalid
    if _number(body["attempts"], MAX_ATTEMPTS) == 0:
        raise MemoInvalid
    try:
        lock_of(terms).secret("")
    except TokenLock as error:
        raise MemoInvalid from error


def lock_of(terms: Mapping[str, Any]) -> Lock | HashLock:
    """The lock that terms ask for.

    Raises:
        MemoInvalid: a term is not of its type.
    """
    pubkey, refund = _text(terms["pubkey"], 66), _text(terms["refund"], 66)
    if "hash" not in terms:
        return Lock(pubkey, terms["locktime"], refund)
    cosigner = _text(terms.get("cosigner", ""), 66, empty=True)
    return HashLock(_text(terms["hash"], 64), pubkey, terms["locktime"], refund, cosigner)


def _check_deposit(body: Mapping[str, Any]) -> None:
    if set(body) != {"quote", "key", "expires", "until"}:
        raise MemoInvalid
    _text(body["quote"])
    _text(body["key"])
    _number(body["expires"], MAX_TIME)
    _number(body["until"], MAX_TIME)


def _check_take(body: Mapping[str, Any]) -> None:
    inputs, key, cosigned = body.get("inputs"), body.get("key"), body.get("cosigned")
    if set(body) != {"inputs", "key", "preimage", "cosigned"} or type(inputs) is not list or type(key) is not list:
        raise MemoInvalid
    if not 0 < len(inputs) <= MAX_INPUTS or type(cosigned) is not dict or len(cosigned) > MAX_INPUTS or len(key) > 2:
        raise MemoInvalid
    for one in inputs:
        _check_coin(one, {"id", "amount", "secret", "C"})
    for text in key:
        _text(text)
    _text(body["preimage"], 64, empty=True)
    for secret, signature in cosigned.items():
        _text(secret, MAX_SECRET)
        _text(signature, MAX_WITNESS)


def _check_coin(value: Any, names: set[str]) -> None:
    if type(value) is not dict or set(value) != names:
        raise MemoInvalid
    _hex(value["id"])
    _number(value["amount"], MAX_AMOUNT)
    _text(value["secret"], MAX_SECRET)
    point = "C" if "C" in names else "B_"
    if not is_point(_text(value[point], 66)):
        raise MemoInvalid
    if "r" in names and (len(_hex(value["r"])) != 64 or type(value["gives"]) is not bool):
        raise MemoInvalid


def _check_melt(body: Mapping[str, Any]) -> None:
    plan = body.get("plan")
    if set(body) != {"plan"} or type(plan) is not dict or set(plan) != set(orjson.loads(Plan("").to_json())):
        raise MemoInvalid
    inputs, outputs, terms = plan["inputs"], plan["outputs"], plan["terms"]
    if type(inputs) is not list or type(outputs) is not list or type(terms) is not dict or plan["past"] != []:
        raise MemoInvalid
    if not 0 < len(inputs) <= MAX_COINS or len(outputs) > MAX_COINS or len(terms) > 32:
        raise MemoInvalid
    for one in inputs:
        _check_coin(one, {"id", "amount", "secret", "C"})
    for one in outputs:
        _check_coin(one, {"id", "amount", "secret", "r", "B_", "gives"})
    for name, value in terms.items():
        if len(name) > _MAX_TEXT or type(value) not in (str, int):
            raise MemoInvalid
    for name in ("fee", "expires", "attempt"):
        _number(plan[name], MAX_AMOUNT)
    for name in ("digest", "quote"):
        _text(plan[name])
    if plan["key"] != [] or type(plan["copied"]) is not bool or type(plan["loose"]) is not bool:
        raise MemoInvalid
    if plan["preimage"] != "" or plan["cosigned"] != {} or type(plan["invoice"]) is not str:
        raise MemoInvalid


_CHECKS = {
    Kind.LOCK: _check_lock,
    Kind.DEPOSIT: _check_deposit,
    Kind.MELT: _check_melt,
    Kind.RECEIVE: _check_take,
    Kind.CLAIM: _check_take,
}


# ---------------------------------------------------------------------- back to plans


def take_plan(digest: str, found: Pending, inputs: Iterable[Proof]) -> Plan:
    """A plan to take those coins of an entry that are still there."""
    some = tuple(inputs)
    cosigned = {proof.secret: found.body["cosigned"].get(proof.secret, "") for proof in some}
    key, preimage = tuple(found.body["key"]), found.body["preimage"]
    return Plan(digest, some, key, preimage=preimage, cosigned={name: one for name, one in cosigned.items() if one})


def coins_of(found: Pending) -> tuple[Proof, ...]:
    """The coins that an entry takes."""
    return tuple(Proof.from_dict(one) for one in found.body["inputs"])


def melt_plan(found: Pending) -> Plan:
    """The plan of a payment that was under way; it is only looked up from now on."""
    return replace(Plan.from_json(orjson.dumps(found.body["plan"])), copied=True)


def deposit_plan(digest: str, found: Pending) -> Plan:
    """The plan of a deposit, which may have been minted meanwhile."""
    body = found.body
    terms: dict[str, str | int] = {"amount": found.amount} | ({"until": body["until"]} if body["until"] else {})
    return Plan(
        digest, key=("quote", body["key"]), quote=body["quote"], expires=body["expires"], terms=terms, copied=True
    )
