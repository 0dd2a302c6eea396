"""Prepaid balances (ADR 27): signed vouchers, and the words that both sides say to each other about a deposit. Pure.

A voucher says: of this deposit the seller has earned so much in all, this request's price included. It is signed with
the deposit's own key over seller, deposit, number, total and request, so it is good for nothing else.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from core.identifier import is_hex64
from core.money import Msat
from dvm.error import VoucherSignature
from relays.event import Draft
from relays.key import Key
from relays.kind import DM
from relays.nip17 import Rumor
from wallet.cashu.signature import holds

TAG = "prepaid"  # names the word of a message; `deposit` the deposit
ASK, TERMS, DEPOSIT, STATUS, CLOSE, ACCOUNT = "ask", "terms", "deposit", "status", "close", "account"
OPEN, CLOSING, CLOSED, RELEASED, REFUSED = "open", "closing", "closed", "released", "refused"
MOST_MSAT = 1 << 40  # no deposit, and so no total, is as large
MOST_SEQ = 1 << 31
VOUCHER_KEY = "voucher"  # the purpose under which a deposit's key derives from the seed
_NUMBER = re.compile(r"[0-9]{1,13}")
_ID = re.compile(r"[0-9a-f]{32}")
_SIGNATURE = re.compile(r"[0-9a-f]{128}")


@dataclass(frozen=True, slots=True)
class Voucher:
    """`total` is all that is earned of the deposit, this job included; `seq` rises with every voucher."""

    deposit: str
    seq: int
    total: Msat
    request_id: str
    signature: str

    def is_signed(self, seller: str, key: str) -> bool:
        """Whether the holder of `key` (compressed hex) signed it for this seller."""
        return holds(self.signature, voucher_text(seller, self.deposit, self.seq, self.total, self.request_id), key)

    def to_dict(self) -> dict[str, Any]:
        """For the message that carries it."""
        return {
            "deposit": self.deposit,
            "seq": self.seq,
            "total_msat": self.total.value,
            "request_id": self.request_id,
            "signature": self.signature,
        }


def voucher_text(seller: str, deposit: str, seq: int, total: Msat, request_id: str) -> str:
    """What is signed. It can never be taken for a coin's secret, which begins with `[`."""
    return f"vendo.voucher:1:{seller}:{deposit}:{seq}:{total.value}:{request_id}"


def signed(key: Key, seller: str, deposit: str, seq: int, total: Msat, request_id: str) -> Voucher:
    """A voucher of ours."""
    text = voucher_text(seller, deposit, seq, total, request_id)
    return Voucher(deposit, seq, total, request_id, key.sign_digest(sha256(text.encode()).digest()).hex())


def read_voucher(value: Any) -> Voucher:
    """A voucher as it came; whether it is good is not said.

    Raises:
        VoucherSignature: it is not of the form of one.
    """
    if not isinstance(value, Mapping):
        raise VoucherSignature("There is no voucher in the message.")
    deposit, request_id, signature = (str(value.get(name)) for name in ("deposit", "request_id", "signature"))
    seq, total = value.get("seq"), value.get("total_msat")
    if not is_id(deposit) or not is_hex64(request_id) or not _SIGNATURE.fullmatch(signature):
        raise VoucherSignature("The voucher names no deposit and request, or has no signature.")
    if type(seq) is not int or type(total) is not int or not 0 < seq < MOST_SEQ or not 0 < total < MOST_MSAT:
        raise VoucherSignature("The voucher's numbers are out of bounds.")
    return Voucher(deposit, seq, Msat(total), request_id, signature)


def is_id(text: str) -> bool:
    """Whether it can be the name of a deposit."""
    return _ID.fullmatch(text) is not None


def rest_sat(amount: Msat, total: Msat, fee_sat: int) -> int:
    """What goes back of a deposit when it is closed: whole sat, less what handing over a token costs at the mint."""
    return max(0, (amount - total).sat_down() - fee_sat)


def message(word: str, peer: str, deposit: str, at: int, *tags: tuple[str, ...], content: str = "") -> Draft:
    """What one side says to the other; it goes in a gift wrap."""
    return Draft(DM, content, (("p", peer), (TAG, word), ("deposit", deposit), *tags), at)


def number(rumor: Rumor, name: str, most: int = MOST_MSAT) -> int | None:
    """A whole number of a message, or None if it has none within bounds."""
    text = rumor.value(name) or ""
    return int(text) if _NUMBER.fullmatch(text) and int(text) < most else None


@dataclass(frozen=True, slots=True)
class Statement:
    """What a seller says of a deposit: its state, the highest voucher it has seen, what it counts as earned.

    `busy`: a job is at work, so that more may be earned by the vouchers that it has seen.
    """

    state: str
    seq: int
    total: Msat
    busy: bool

    def tag(self) -> tuple[str, ...]:
        """As it stands in a message."""
        return (ACCOUNT, self.state, str(self.seq), str(self.total.value), "busy" if self.busy else "idle")


def read_statement(rumor: Rumor) -> Statement | None:
    """A seller's statement; None if the message holds none that can be read."""
    tag = next((one for one in rumor.tags if one[0] == ACCOUNT), ())
    if len(tag) < 5 or tag[1] not in (OPEN, CLOSING, CLOSED, RELEASED, REFUSED):
        return None
    if not _NUMBER.fullmatch(tag[2]) or not _NUMBER.fullmatch(tag[3]):
        return None
    seq, total = int(tag[2]), int(tag[3])
    if seq >= MOST_SEQ or total >= MOST_MSAT:
        return None
    return Statement(tag[1], seq, Msat(total), tag[4] == "busy")


@dataclass(frozen=True, slots=True)
class Terms:
    """On which a seller takes a deposit. `mints` with the wallet key to which it is locked; times in seconds."""

    least: Msat
    most: Msat
    most_s: int
    fee_sat: int
    wallet_key: str
    mints: tuple[str, ...]

    def tags(self) -> tuple[tuple[str, ...], ...]:
        """As they stand in a message."""
        numbers = (str(self.least.value), str(self.most.value), str(self.most_s), str(self.fee_sat))
        return (("terms", *numbers, self.wallet_key), *(("mint", mint) for mint in self.mints))


def read_terms(rumor: Rumor) -> Terms | None:
    """A seller's terms; None if it takes no deposit, or says nothing that can be read."""
    tag = next((one for one in rumor.tags if one[0] == "terms"), ())
    if len(tag) < 6 or not all(_NUMBER.fullmatch(part) for part in tag[1:5]):
        return None
    least, most, most_s, fee_sat = (int(part) for part in tag[1:5])
    if not 0 < least <= most < MOST_MSAT or fee_sat >= MOST_MSAT // 1000:
        return None
    return Terms(Msat(least), Msat(most), most_s, fee_sat, tag[5], tuple(rumor.values("mint")[:32]))
