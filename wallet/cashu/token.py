"""Payments as text and as messages: `cashuB…` tokens (NUT-00 V4) and NUT-18 payloads. Strict, capped. Pure.

Only V4 is read: a V3 token may name several mints, of which the first one would be taken on trust.
"""

import base64
import binascii
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import cbor2

from wallet.cashu.lock import MAX_SECRET
from wallet.cashu.proof import Dleq, Proof
from wallet.error import TokenMalformed, TokenOversized

MAX_TEXT = 65_536
MAX_PROOFS = 200
MAX_AMOUNT = 1 << 50
_HEX = re.compile("[0-9a-f]*")
_PREFIX = "cashuB"
_STRINGS, _LISTS, _TAGGED, _ENDLESS = (2, 3), (4, 5), 6, 31  # majors of CBOR, and the length that an end mark gives


@dataclass(frozen=True, slots=True)
class Payment:
    """Coins that somebody offers, as they say. `keyset` of each proof may still be a short id."""

    mint: str
    unit: str
    proofs: tuple[Proof, ...]
    id: str = ""


def encode(mint: str, unit: str, proofs: Sequence[Proof]) -> str:
    """A `cashuB` token, with the DLEQ proofs."""
    groups: dict[str, list[dict[str, Any]]] = {}
    for proof in proofs:
        item: dict[str, Any] = {"a": proof.amount, "s": proof.secret, "c": bytes.fromhex(proof.c)}
        if proof.dleq is not None:
            item["d"] = {name: bytes.fromhex(getattr(proof.dleq, name)) for name in ("e", "s", "r")}
        groups.setdefault(proof.keyset[:16], []).append(item)
    body = {"t": [{"i": bytes.fromhex(keyset), "p": items} for keyset, items in groups.items()], "m": mint, "u": unit}
    return _PREFIX + base64.urlsafe_b64encode(cbor2.dumps(body)).decode().rstrip("=")


def decode(text: str) -> Payment:
    """Read a `cashuB` token.

    Raises:
        TokenMalformed: it is none.
        TokenOversized: too long, or too many coins.
    """
    text = text.strip()
    if len(text) > MAX_TEXT:
        raise TokenOversized
    if not text.startswith(_PREFIX):
        raise TokenMalformed("This is not a cashuB token.")
    raw = text[len(_PREFIX) :]
    try:
        packed = base64.b64decode(raw + "=" * (-len(raw) % 4), altchars=b"-_", validate=True)
        _refuse_tags(packed)
        source = io.BytesIO(packed)
        body = cbor2.load(source)
    except (cbor2.CBORError, binascii.Error, ValueError, OverflowError, RecursionError, TypeError) as error:
        raise TokenMalformed from error
    if source.read(1):
        raise TokenMalformed("There is something after the token.")
    proofs = []
    for group in _field(body, "t", list):
        keyset = _field(group, "i", bytes).hex()
        for item in _field(group, "p", list):
            dleq = item.get("d") if isinstance(item, Mapping) else None
            parts = None if dleq is None else {name: _field(dleq, name, bytes).hex() for name in ("e", "s", "r")}
            proofs.append(_proof(keyset, _field(item, "a", int), item.get("s"), _field(item, "c", bytes).hex(), parts))
            if len(proofs) > MAX_PROOFS:
                raise TokenOversized
    return _whole(Payment(_field(body, "m", str), _field(body, "u", str), tuple(proofs)))


def _refuse_tags(packed: bytes) -> None:
    """Look for tags in all heads of the CBOR (RFC 8949 §3), of which no token has any.

    A tag asks the decoder for a number, a pattern, a shared value …,
    each with errors of its own, and some with work without bounds.

    Raises:
        TokenMalformed: there is a tag, or a list that claims to be longer than what is there.
    """
    at, end = 0, len(packed)
    while at < end:
        major, info = packed[at] >> 5, packed[at] & 31
        wide = 1 << info - 24 if 24 <= info <= 27 else 0
        size = int.from_bytes(packed[at + 1 : at + 1 + wide], "big") if wide else info
        at += 1 + wide
        if major == _TAGGED or (major in _LISTS and info < _ENDLESS and size > end - at):
            raise TokenMalformed("The token's CBOR holds a tag, or a list without its items.")
        if major in _STRINGS and info < _ENDLESS:
            at += size


def to_payload(payment: Payment) -> dict[str, Any]:
    """NUT-18's PaymentRequestPayload, with the DLEQ proofs."""
    return {
        "id": payment.id,
        "mint": payment.mint,
        "unit": payment.unit,
        "proofs": [proof.to_dict(dleq=True) for proof in payment.proofs],
    }


def from_payload(body: object) -> Payment:
    """Read a NUT-18 payload.

    Raises:
        TokenMalformed: it is none.
        TokenOversized: too many coins.
    """
    items = _field(body, "proofs", list)
    if len(items) > MAX_PROOFS:
        raise TokenOversized
    proofs = []
    for item in items:
        dleq = item.get("dleq") if isinstance(item, Mapping) else None
        parts = None if dleq is None else {name: _field(dleq, name, str) for name in ("e", "s", "r")}
        secret = _field(item, "secret", str)
        proofs.append(
            _proof(_field(item, "id", str), _field(item, "amount", int), secret, _field(item, "C", str), parts)
        )
    named = body.get("id") if isinstance(body, Mapping) else None
    return _whole(
        Payment(
            _field(body, "mint", str),
            _field(body, "unit", str),
            tuple(proofs),
            named if isinstance(named, str) else "",
        )
    )


def _field(body: object, name: str, kind: type) -> Any:
    value = body.get(name) if isinstance(body, Mapping) else None
    if type(value) is not kind:
        raise TokenMalformed(f"The payment's field {name!r} is missing or not of the right type.")
    return value


def _hex(text: str, size: int) -> str:
    if len(text) != 2 * size or _HEX.fullmatch(text) is None:
        raise TokenMalformed("A coin has a value that is not lower-case hex of the right length.")
    return text


def _proof(keyset: str, amount: int, secret: object, c: str, dleq: Mapping[str, str] | None) -> Proof:
    if not isinstance(secret, str) or not 0 < len(secret) <= MAX_SECRET or not secret.isprintable():
        raise TokenMalformed("A coin's secret is not a short text.")
    if not 0 < amount <= MAX_AMOUNT:
        raise TokenMalformed("A coin's amount is not one.")
    if len(keyset) not in (16, 66):
        raise TokenMalformed("A coin's keyset id is not one.")
    _hex(keyset, len(keyset) // 2)
    proven = None if dleq is None else Dleq(*(_hex(dleq[name], 32) for name in ("e", "s", "r")))
    return Proof(keyset, amount, secret, _hex(c, 33), proven)


def _whole(payment: Payment) -> Payment:
    if not payment.proofs or len(payment.mint) > 512 or len(payment.unit) > 32 or len(payment.id) > 256:
        raise TokenMalformed("The payment holds no coins, or names that are too long.")
    if len({proof.secret for proof in payment.proofs}) != len(payment.proofs):
        raise TokenMalformed("The payment holds a coin twice.")
    return payment
