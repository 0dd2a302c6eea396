"""Nutzaps on the wire (NIP-61): who takes them (kind 10019), one (kind 9321), and that it was redeemed (7376). Pure.

What a nutzap says of its coins is its sender's word; the wallet checks them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.kind import DELETION, NUTZAP, NUTZAP_INFO, NUTZAP_REDEEMED

MAX_PROOFS = 64
MAX_PROOF_CHARS = 4_096
MAX_NAMED = 16  # events that one nutzap may name and that are looked for
_HEX_ID = 64
_SIGN = "02"  # of the key that senders lock to: Nostr keys have none (BIP-340)


@dataclass(frozen=True, slots=True)
class Nutzap:
    """A kind 9321 as its sender wrote it. `payload` has NUT-18's form; `named` are the events that it is for."""

    id: str
    sender: str
    created_at: int
    mint: str
    unit: str
    payload: dict[str, Any]
    named: tuple[str, ...]


def info_draft(relays: Sequence[str], mints: Sequence[str], pubkey: str, created_at: int) -> Draft:
    """Where nutzaps are taken: on which relays, at which mints, locked to which key.

    Args:
        relays: where they are looked for.
        mints: addresses; a nutzap's `u` is exactly one of them.
        pubkey: the wallet's key without its sign, 64 hex digits; never an identity's key.
        created_at: Unix seconds.
    """
    tags: list[tuple[str, ...]] = [("relay", url) for url in relays]
    tags += [("mint", url, "sat") for url in mints]
    return Draft(NUTZAP_INFO, "", (*tags, ("pubkey", pubkey)), created_at)


def withdrawn_draft(author: str, created_at: int) -> Draft:
    """No nutzaps are taken any more (NIP-09)."""
    return Draft(DELETION, "", (("a", f"{NUTZAP_INFO}:{author}:"), ("k", str(NUTZAP_INFO))), created_at)


def locked_to(pubkey: str) -> str:
    """The key to which nutzaps for `pubkey` (64 hex digits) are locked, compressed."""
    return _SIGN + pubkey


def read_nutzap(event: Event, recipient: str) -> Nutzap:
    """A verified kind 9321 that is for one recipient.

    Raises:
        MalformedEvent: it is none, is for somebody else or for several, names no mint or two, or its proofs are too
            many, too long, or no objects.
    """
    if event.kind != NUTZAP or set(event.values("p")) != {recipient}:
        raise MalformedEvent("This is not a nutzap for this key.")
    mints, units = event.values("u"), event.values("unit") or ["sat"]
    proofs = event.values("proof")
    if len(mints) != 1 or len(units) != 1:
        raise MalformedEvent("A nutzap names one mint and one unit.")
    if not 0 < len(proofs) <= MAX_PROOFS or any(len(text) > MAX_PROOF_CHARS for text in proofs):
        raise MalformedEvent(f"A nutzap has 1 to {MAX_PROOFS} proofs.")
    named = tuple(dict.fromkeys(one for one in event.values("e") if len(one) == _HEX_ID))[:MAX_NAMED]
    payload = {"mint": mints[0], "unit": units[0], "proofs": [_proof(text) for text in proofs]}
    return Nutzap(event.id, event.pubkey, event.created_at, mints[0], units[0], payload, named)


def _proof(text: str) -> dict[str, Any]:
    try:
        body = orjson.loads(text)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("A nutzap's proof is not JSON.") from error
    if type(body) is not dict:
        raise MalformedEvent("A nutzap's proof is not an object.")
    return body


def redeemed_content(amount: int, unit: str) -> str:
    """What the author alone reads of a redemption (NIP-60); still to be encrypted."""
    return orjson.dumps([["direction", "in"], ["amount", str(amount)], ["unit", unit]]).decode()


def redeemed_draft(nutzap: str, sender: str, relay: str, encrypted: str, created_at: int) -> Draft:
    """That a nutzap was redeemed (NIP-61), for its sender and for other clients of its recipient."""
    tags = (("e", nutzap, relay, "redeemed"), ("p", sender))
    return Draft(NUTZAP_REDEEMED, encrypted, tags, created_at)
