"""A whole Cashu mint in memory, for simulations: real blind signatures, DLEQ proofs, P2PK conditions and input fees.

It fulfils `wallet.cashu.port.Mint`, shares no code with the wallet but the curve library, and may be told to misbehave:
`mint.script` is asked before each call which `Fault` to commit. `mint.deliver()` processes requests that were delayed.
"""

import contextlib
import hashlib
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache
from typing import TypeVar

from bolt11 import Bolt11, Feature, Features, FeatureState, MilliSatoshi, TagChar, Tags, decode, encode
from coincurve import PrivateKey, PublicKey, PublicKeyXOnly

from core.clock import Clock
from core.effect import Permit
from wallet.cashu.fence import derive_keyset_id_v2, hash_to_curve, step2_bob
from wallet.cashu.keyset import Keyset, KeysetInfo
from wallet.cashu.limit import Limits
from wallet.cashu.port import CoinReport, CoinState, MeltQuote, MeltState, MintQuote, QuoteState
from wallet.cashu.proof import Output, Proof, Signature
from wallet.error import MintBusy, MintRejected, MintSilent, MintUnreachable

ORDERS = 24
MSAT_PER = {"sat": 1_000, "msat": 1, "usd": 13_370, "eur": 14_000}
"""What the mint thinks one of a unit is worth."""
T = TypeVar("T")


class Fault(StrEnum):
    """What goes wrong with one call."""

    NONE = "none"
    UNREACHABLE = "unreachable"  # never sent
    REQUEST_LOST = "request_lost"  # sent, never arrived
    REQUEST_DELAYED = "request_delayed"  # arrives when `deliver` is called
    ANSWER_LOST = "answer_lost"  # done, and nobody hears of it
    REPEATED = "repeated"  # arrives twice; the second answer is heard
    REFUSED = "refused"  # a definite no, and not done
    FALSE_NO = "false_no"  # done, and called rejected
    WRONG_AMOUNT = "wrong_amount"  # done; the answer says other amounts
    WRONG_DLEQ = "wrong_dleq"  # done; the answer's proofs do not hold
    SHORT = "short"  # done; one signature is missing in the answer
    BUSY = "busy"  # rate limited, not done


class Payment(StrEnum):
    """How the model's Lightning treats an invoice."""

    PAID = "paid"  # at once
    FAILED = "failed"  # a definite no
    SLOW = "slow"  # under way until `lightning_ends` is called, then paid
    STUCK = "stuck"  # the same, and then it has failed


class Lie(StrEnum):
    """What a mint may say of a melt that is not so, or not right."""

    NONE = "none"
    WRONG_PREIMAGE = "wrong_preimage"
    NO_PREIMAGE = "no_preimage"
    TOO_MUCH_CHANGE = "too_much_change"
    CHANGE_TWICE = "change_twice"  # once more on what was left of the blank outputs
    NO_CHANGE = "no_change"
    LATE_CHANGE = "late_change"  # signed when `sign_change` is called, long after the rest


@dataclass
class _Melt:
    quote: MeltQuote
    hash: str
    ends_at: int
    inputs: tuple[Proof, ...] = ()
    outputs: tuple[Output, ...] = ()
    ends: MeltState = MeltState.PAID


@dataclass
class _Quote:
    quote: MintQuote
    pubkey: str


@cache
def _keyset(seed: str, unit: str, fee: int) -> tuple[str, dict[int, PrivateKey]]:
    """Making keys is slow, and simulations make many mints."""
    keys = {1 << i: PrivateKey(hashlib.sha256(seed.encode() + bytes([i])).digest()) for i in range(ORDERS)}
    return derive_keyset_id_v2({a: key.public_key for a, key in keys.items()}, unit, None, fee), keys


_PUBLIC: dict[int, dict[int, str]] = {}


def _public(keys: dict[int, PrivateKey]) -> dict[int, str]:
    if id(keys) not in _PUBLIC:
        _PUBLIC[id(keys)] = {amount: key.public_key.format().hex() for amount, key in keys.items()}
    return dict(_PUBLIC[id(keys)])


def _never(_: str) -> Fault:
    return Fault.NONE


def _allow(_: Permit) -> None:
    return None


class ModelMint:
    """One honest mint behind a faulty wire. All money it ever signed or took back can be counted from outside."""

    def __init__(
        self,
        url: str = "https://mint.test",
        *,
        clock: Clock,
        ppk: int = 100,
        unit: str = "sat",
        more: Sequence[str] = (),
        check: Callable[[Permit], None] = _allow,
    ) -> None:
        self.url = url
        self.unit = unit
        self.clock = clock
        self.script: Callable[[str], Fault] = _never
        self.auto_pay = True
        self.listed = frozenset({4, 5, 7, 9, 10, 11, 12, 14, 20})
        self.shows_witness = True
        self.calls: list[str] = []
        self.signed: dict[str, Signature] = {}
        self.spent: dict[str, tuple[int, str | None]] = {}
        self.pending: set[str] = set()
        self.lightning: Callable[[str], Payment] = lambda _: Payment.PAID
        self.lie = Lie.NONE
        self.limited = Limits()
        self.reserve: Callable[[int], int] = lambda amount: max(2, -(-amount // 100))
        self.route_fee = 1
        self.paid: list[str] = []  # the payment hash of every invoice that was paid
        self.paid_out = 0
        self._melts: dict[str, _Melt] = {}
        self._owed: list[tuple[_Melt, tuple[Output, ...]]] = []
        self.issued = 0
        self.fees = 0
        self._check = check
        self._quotes: dict[str, _Quote] = {}
        self._keys: dict[str, dict[int, PrivateKey]] = {}
        self._infos: dict[str, KeysetInfo] = {}
        self._delayed: list[Callable[[], object]] = []
        self._gone: Counter[str] = Counter()
        self.rotate(ppk)
        for other in more:
            self.rotate(ppk, other)

    # ------------------------------------------------------------------ what a test does to it

    def rotate(self, ppk: int | None = None, unit: str = "") -> str:
        """A new active keyset of a unit; the old ones still spend."""
        unit = unit or self.unit
        fee = ppk if ppk is not None else next(info.ppk for info in self._infos.values() if info.active)
        id_, keys = _keyset(f"{self.url}/{unit}/{len(self._infos)}", unit, fee)
        self._infos = {
            old: replace(info, active=info.active and info.unit != unit) for old, info in self._infos.items()
        }
        self._infos[id_] = KeysetInfo(id_, unit, True, fee)
        self._keys[id_] = keys
        return id_

    def pay(self, quote_id: str) -> None:
        """Somebody pays the invoice."""
        held = self._quotes[quote_id]
        held.quote = replace(held.quote, state=QuoteState.PAID)

    def deliver(self) -> None:
        """Requests that were on the way arrive now; their answers go nowhere."""
        delayed, self._delayed = self._delayed, []
        for request in delayed:
            with contextlib.suppress(MintRejected):
                request()

    @property
    def circulating(self) -> int:
        """What is signed and not spent, in the unit: the mint's whole debt."""
        return sum(signature.amount for signature in self.signed.values()) - sum(a for a, _ in self.spent.values())

    def owes(self, unit: str) -> int:
        """The same for one of several units."""
        signed = (one.amount for one in self.signed.values() if self._infos[one.keyset].unit == unit)
        return sum(signed) - self._gone[unit]

    def _spend(self, proof: Proof, y: str) -> None:
        self.spent[y] = (proof.amount, proof.witness)
        self._gone[self._infos[proof.keyset].unit] += proof.amount

    def _one_unit(self, coins: Sequence[Proof | Output], unit: str = "") -> None:
        """All coins of one unit, and of this one (11010, 11013)."""
        found = {self._infos[coin.keyset].unit for coin in coins if coin.keyset in self._infos}
        if len(found) > 1 or (unit and found - {unit}):
            raise MintRejected(11010)

    def is_spent(self, y: str) -> bool:
        """Whether this coin was spent."""
        return y in self.spent

    # ------------------------------------------------------------------ the wire

    def _wire(self, name: str, act: Callable[[], T]) -> T:
        self.calls.append(name)
        fault = self.script(name)
        if fault is Fault.UNREACHABLE:
            raise MintUnreachable
        if fault is Fault.BUSY:
            raise MintBusy
        if fault is Fault.REFUSED:
            raise MintRejected(11000)
        if fault is Fault.REQUEST_LOST:
            raise MintSilent
        if fault is Fault.REQUEST_DELAYED:
            self._delayed.append(act)
            raise MintSilent
        result = act()
        if fault is Fault.ANSWER_LOST:
            raise MintSilent
        if fault is Fault.REPEATED:
            return act()
        if fault is Fault.FALSE_NO:
            raise MintRejected(11000)
        if isinstance(result, list):
            result = bend(result, fault)
        if isinstance(result, MeltQuote) and fault in (Fault.WRONG_AMOUNT, Fault.WRONG_DLEQ, Fault.SHORT):
            result = replace(result, change=tuple(bend(list(result.change), fault)))
        return result

    async def nuts(self) -> frozenset[int]:
        return self._wire("info", lambda: self.listed)

    async def keysets(self) -> tuple[KeysetInfo, ...]:
        return self._wire("keysets", lambda: tuple(self._infos.values()))

    async def keys(self, info: KeysetInfo) -> Keyset:
        def act() -> Keyset:
            if info.id not in self._keys:
                raise MintRejected(12001)
            return Keyset(info, _public(self._keys[info.id]))

        return self._wire("keys", act)

    async def swap(self, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit) -> list[Signature]:
        self._check(permit)
        return self._wire("swap", lambda: self._swap(tuple(inputs), tuple(outputs)))

    async def request_quote(self, amount: int, unit: str, pubkey: str, permit: Permit) -> MintQuote:
        self._check(permit)

        def act() -> MintQuote:
            if not any(info.unit == unit for info in self._infos.values()):
                raise MintRejected(11013)
            id_ = f"quote-{len(self._quotes)}"
            expiry = self.clock.now() + 3600
            request = invoice(amount * MSAT_PER[unit], self.clock.now(), id_)
            self._quotes[id_] = _Quote(MintQuote(id_, request, QuoteState.UNPAID, expiry, amount, unit, pubkey), pubkey)
            return self._quotes[id_].quote

        return self._wire("request_quote", act)

    async def quote(self, quote_id: str) -> MintQuote:
        def act() -> MintQuote:
            held = self._quotes[quote_id]
            if self.auto_pay and held.quote.state is QuoteState.UNPAID:
                self.pay(quote_id)
            return held.quote

        return self._wire("quote", act)

    async def mint(self, quote_id: str, outputs: Sequence[Output], signature: str, permit: Permit) -> list[Signature]:
        self._check(permit)
        return self._wire("mint", lambda: self._mint(quote_id, tuple(outputs), signature))

    async def restore(self, outputs: Sequence[Output]) -> Mapping[str, Signature]:
        return self._wire("restore", lambda: {o.b: self.signed[o.b] for o in outputs if o.b in self.signed})

    async def states(self, ys: Sequence[str]) -> Mapping[str, CoinReport]:
        def state(y: str) -> CoinReport:
            if y in self.spent:
                return CoinReport(CoinState.SPENT, self.spent[y][1] if self.shows_witness else None)
            return CoinReport(CoinState.PENDING if y in self.pending else CoinState.UNSPENT)

        return self._wire("states", lambda: {y: state(y) for y in ys})

    async def limits(self) -> Limits:
        return self.limited

    async def request_melt(self, invoice: str, unit: str, permit: Permit) -> MeltQuote:
        self._check(permit)

        def act() -> MeltQuote:
            asked = decode(invoice)
            if not any(info.unit == unit for info in self._infos.values()):
                raise MintRejected(11013)
            id_, amount = f"melt-{len(self._melts)}", -(-int(asked.amount_msat or 0) // MSAT_PER[unit])
            quote = MeltQuote(id_, amount, self.reserve(amount), MeltState.UNPAID, None, unit, invoice)
            self._melts[id_] = _Melt(quote, asked.payment_hash, asked.date + (asked.expiry or 3600))
            return quote

        return self._wire("request_melt", act)

    async def melt_quote(self, quote_id: str) -> MeltQuote:
        return self._wire("melt_quote", lambda: self._said(self._melts[quote_id]))

    async def melt(
        self, quote_id: str, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit
    ) -> MeltQuote:
        self._check(permit)
        return self._wire("melt", lambda: self._melt(quote_id, tuple(inputs), tuple(outputs)))

    # ------------------------------------------------------------------ what it really does

    def lightning_ends(self) -> None:
        """Payments that are under way have ended by now."""
        for held in self._melts.values():
            if held.quote.state is MeltState.PENDING:
                if held.ends is MeltState.PAID:
                    self._pay_out(held)
                else:
                    self._give_back(held)

    def sign_change(self) -> None:
        """What was held back by `Lie.LATE_CHANGE` is signed now."""
        owed, self._owed = self._owed, []
        for held, blanks in owed:
            held.quote = replace(held.quote, change=tuple(self._sign(blanks, promised=True)))

    def melt_states(self, hash_: str) -> list[MeltState]:
        """What became of every quote for an invoice."""
        return [held.quote.state for held in self._melts.values() if held.hash == hash_]

    def _said(self, held: _Melt) -> MeltQuote:
        if held.quote.state is not MeltState.PAID or self.lie is Lie.NONE:
            return held.quote
        if self.lie is Lie.WRONG_PREIMAGE:
            return replace(held.quote, preimage="00" * 32)
        if self.lie is Lie.NO_PREIMAGE:
            return replace(held.quote, preimage=None)
        return held.quote

    def _melt(self, quote_id: str, inputs: tuple[Proof, ...], outputs: tuple[Output, ...]) -> MeltQuote:
        held = self._melts[quote_id]
        if held.quote.state is not MeltState.UNPAID:
            raise MintRejected(20005 if held.quote.state is MeltState.PENDING else 20006)
        self._one_unit([*inputs, *outputs], held.quote.unit or "")
        names = self._fresh(inputs)
        if any(output.b in self.signed for output in outputs):
            raise MintRejected(11003)
        if any(output.keyset not in self._infos or not self._infos[output.keyset].active for output in outputs):
            raise MintRejected(12002)
        if sum(p.amount for p in inputs) - self._due(inputs) < held.quote.amount + held.quote.fee_reserve:
            raise MintRejected(11005)
        held.inputs, held.outputs = inputs, outputs
        held.quote = replace(held.quote, state=MeltState.PENDING)
        self.pending |= set(names)
        # Nobody's Lightning node pays an invoice that has expired, or one that it has paid.
        dead = held.ends_at <= self.clock.now() or held.hash in self.paid
        how = Payment.FAILED if dead else self.lightning(held.hash)
        held.ends = MeltState.PAID if how in (Payment.PAID, Payment.SLOW) else MeltState.UNPAID
        if how is Payment.FAILED:
            self._give_back(held)
            raise MintRejected(20004)
        if how is Payment.PAID:
            self._pay_out(held)
        return self._said(held)

    def _give_back(self, held: _Melt) -> None:
        self.pending -= {hash_to_curve(proof.secret.encode()).format().hex() for proof in held.inputs}
        held.quote = replace(held.quote, state=MeltState.UNPAID)

    def _pay_out(self, held: _Melt) -> None:
        due = self._due(held.inputs)
        left = sum(p.amount for p in held.inputs) - due - held.quote.amount - self.route_fee
        if self.lie is Lie.NO_CHANGE:
            left = 0
        parts = [1 << bit for bit in reversed(range(left.bit_length())) if left >> bit & 1]
        if self.lie is Lie.TOO_MUCH_CHANGE:
            parts = [1 << (ORDERS - 1)]
        if self.lie is Lie.CHANGE_TWICE:
            parts += parts
        blanks = [replace(o, amount=part) for o, part in zip(held.outputs, parts, strict=False)]
        if self.lie is Lie.LATE_CHANGE:
            self._owed.append((held, tuple(blanks)))
            blanks = []
        change = tuple(self._sign(tuple(blanks), promised=True)) if blanks else ()
        for proof in held.inputs:
            y = hash_to_curve(proof.secret.encode()).format().hex()
            self.pending.discard(y)
            self._spend(proof, y)
        self.fees += due
        self.paid.append(held.hash)
        self.paid_out += held.quote.amount
        receipt = _RECEIPTS.get(held.hash)
        held.quote = replace(held.quote, state=MeltState.PAID, preimage=receipt, change=change)

    def _due(self, inputs: tuple[Proof, ...]) -> int:
        return -(-sum(self._infos[proof.keyset].ppk for proof in inputs) // 1000)

    def _fresh(self, inputs: tuple[Proof, ...]) -> list[str]:
        """The names of inputs that can be spent now."""
        names = [hash_to_curve(proof.secret.encode()).format().hex() for proof in inputs]
        if not inputs or len(set(names)) != len(names):
            raise MintRejected(11007)
        for proof, y in zip(inputs, names, strict=True):
            self._verify(proof)
            if y in self.pending:
                raise MintRejected(11002)
            if y in self.spent:
                raise MintRejected(11001)
        return names

    def _swap(self, inputs: tuple[Proof, ...], outputs: tuple[Output, ...]) -> list[Signature]:
        self._one_unit([*inputs, *outputs])
        names = self._fresh(inputs)
        fee = self._due(inputs)
        if sum(p.amount for p in inputs) - fee != sum(o.amount for o in outputs):
            raise MintRejected(11005)
        signatures = self._sign(outputs)
        self.fees += fee
        for proof, y in zip(inputs, names, strict=True):
            self._spend(proof, y)
        return signatures

    def _mint(self, quote_id: str, outputs: tuple[Output, ...], signature: str) -> list[Signature]:
        held = self._quotes[quote_id]
        if held.quote.state is QuoteState.ISSUED:
            raise MintRejected(20002)
        if held.quote.state is not QuoteState.PAID:
            raise MintRejected(20001)
        message = quote_id.encode() + b"".join(output.b.encode() for output in outputs)
        if not _signed_by(held.pubkey, message, [signature]):
            raise MintRejected(20008)
        self._one_unit(outputs, held.quote.unit or "")
        if sum(output.amount for output in outputs) != held.quote.amount:
            raise MintRejected(11005)
        signatures = self._sign(outputs)
        held.quote = replace(held.quote, state=QuoteState.ISSUED)
        self.issued += sum(output.amount for output in outputs)
        return signatures

    def _verify(self, proof: Proof) -> None:
        key = self._keys.get(proof.keyset, {}).get(proof.amount)
        if key is None:
            raise MintRejected(12001)
        expected = hash_to_curve(proof.secret.encode()).multiply(key.secret).format().hex()
        if expected != proof.c:
            raise MintRejected(10001)
        if not meets(proof, self.clock.now()):
            raise MintRejected(11000)

    def _sign(self, outputs: tuple[Output, ...], *, promised: bool = False) -> list[Signature]:
        """Sign; `promised` outputs were taken while their keyset was active."""
        if not outputs or len({output.b for output in outputs}) != len(outputs):
            raise MintRejected(11008)
        for output in outputs:
            if output.keyset not in self._infos or output.amount not in self._keys[output.keyset]:
                raise MintRejected(12001)
            if not self._infos[output.keyset].active and not promised:
                raise MintRejected(12002)
            if output.b in self.signed:
                raise MintRejected(11003)
        made = []
        for output in outputs:
            c, e, s = step2_bob(PublicKey(bytes.fromhex(output.b)), self._keys[output.keyset][output.amount])
            made.append(Signature(output.keyset, output.amount, c.format().hex(), e.secret.hex(), s.secret.hex()))
        self.signed |= {output.b: signature for output, signature in zip(outputs, made, strict=True)}
        return made


def bend(signatures: list[Signature], fault: Fault) -> list[Signature]:
    """The same answer, falsified."""
    if fault is Fault.WRONG_AMOUNT:
        return [replace(signature, amount=signature.amount * 2) for signature in signatures]
    if fault is Fault.WRONG_DLEQ:
        return [replace(signature, e="11" * 32) for signature in signatures]
    if fault is Fault.SHORT:
        return signatures[:-1]
    return signatures


def _signed_by(pubkey: str, message: bytes, signatures: Sequence[str]) -> bool:
    digest = hashlib.sha256(message).digest()
    key = PublicKeyXOnly(bytes.fromhex(pubkey)[1:])
    return any(len(sig) == 128 and key.verify(bytes.fromhex(sig), digest) for sig in signatures)


def meets(proof: Proof, now: int) -> bool:
    """Whether a coin's NUT-11 condition is met: main keys always, refund keys after the locktime as well."""
    try:
        kind, body = json.loads(proof.secret)
        data, tags = body["data"], {tag[0]: tag[1:] for tag in body.get("tags", [])}
        body["nonce"]
    except (ValueError, TypeError, KeyError):
        return proof.witness is None
    if kind not in ("P2PK", "HTLC"):
        return True
    try:
        shown = json.loads(proof.witness or "{}")
    except ValueError:
        shown = {}
    signatures = shown.get("signatures", [])

    def threshold(keys: Sequence[str], needed: int) -> bool:
        good = [key for key in keys if _signed_by(key, proof.secret.encode(), signatures)]
        return len(good) >= needed

    main, opened = [data, *tags.get("pubkeys", [])], True
    if kind == "HTLC":
        main, preimage = main[1:], str(shown.get("preimage") or "")
        opened = len(preimage) == 64 and hashlib.sha256(bytes.fromhex(preimage)).hexdigest() == data
    if opened and (not main or threshold(main, int(tags.get("n_sigs", ["1"])[0]))):
        return True
    if "locktime" not in tags or int(tags["locktime"][0]) >= now:
        return False
    refund = tags.get("refund", [])
    return not refund or threshold(refund, int(tags.get("n_sigs_refund", ["1"])[0]))


_RECEIPTS: dict[str, str] = {}


@cache
def payable(msat: int | None, now: int, name: str, *, currency: str = "bc", expiry: int = 3600) -> str:
    """An invoice whose preimage the model mints' Lightning can find; see `invoice`."""
    preimage = hashlib.sha256(b"preimage of " + name.encode()).digest()
    hash_ = hashlib.sha256(preimage).hexdigest()
    _RECEIPTS[hash_] = preimage.hex()
    return _encoded(msat, now, name, hash_, currency, expiry)


@cache
def invoice(msat: int, now: int, name: str, *, currency: str = "bc", expiry: int = 3600) -> str:
    """A real BOLT11 invoice that nobody can pay."""
    return _encoded(msat, now, name, hashlib.sha256(name.encode()).hexdigest(), currency, expiry)


def _encoded(msat: int | None, now: int, name: str, hash_: str, currency: str, expiry: int) -> str:
    tags = Tags()
    tags.add(TagChar.payment_hash, hash_)
    tags.add(TagChar.payment_secret, hashlib.sha256(b"s" + name.encode()).hexdigest())
    tags.add(TagChar.description, name)
    tags.add(TagChar.expire_time, expiry)
    features = Features.from_feature_list({Feature.payment_secret: FeatureState.required})
    tags.add(TagChar.features, features)
    amount = None if msat is None else MilliSatoshi(msat)
    plain = Bolt11(currency=currency, amount_msat=amount, date=now, tags=tags)
    return encode(plain, hashlib.sha256(b"payee").hexdigest())
