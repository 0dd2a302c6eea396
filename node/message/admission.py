"""Who may write to an agent: rules as data, and the judgement, cheapest questions first. Pure.

The order is fixed: size and form, then what the wrap itself shows (expiry, proof of work), then the budget for opening
wraps, then the sender, then rates; only after all of them is anything stored, fetched, paid or woken.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from core.error import InvalidInput
from core.identifier import PubKey
from dvm.admission import Meter
from relays.event import Event
from relays.key import parse_pubkey
from relays.kind import FILE

MAX_CONTENT = 60_000
MAX_BITS = 32
MAX_KEYS = 5_000
BURST_MINUTES = 10  # what a person wrote while the node was off comes all at once
ANSWER_S = 30 * 86_400  # so long may somebody answer whom the agent wrote to
MAX_WRITTEN = 256  # of those, for one agent
_MINUTE = 60.0


class Strangers(StrEnum):
    """What somebody must do who is no contact."""

    NONE = "none"  # they are not heard
    POW = "pow"  # proof of work on the wrap (NIP-13)
    PAY = "pay"  # a Cashu token in the first message
    ALL = "all"  # nothing


class Mentions(StrEnum):
    """Whose public notes that name the agent reach its inbox."""

    NONE = "none"
    CONTACTS = "contacts"
    ALL = "all"


@dataclass(frozen=True, slots=True)
class Rules:
    """The admission of one agent, as it stands in the configuration or in `/nostr/admission`.

    Attributes:
        contacts: who may write, without conditions but the rate.
        deny: who may not, whatever else holds.
        strangers: what everybody else must do.
        pow_bits: leading zero bits of a wrap's id, for `Strangers.POW`.
        toll_sat: what the first message must bring, for `Strangers.PAY`.
        per_minute: messages of one sender; those of ten minutes may come at once.
        strangers_per_minute: messages of all strangers together.
        mentions: whose public notes are heard.
        acknowledge: whether a message that was taken is answered with a reaction.
    """

    contacts: frozenset[PubKey] = frozenset()
    deny: frozenset[PubKey] = frozenset()
    strangers: Strangers = Strangers.NONE
    pow_bits: int = 20
    toll_sat: int = 10
    per_minute: int = 60
    strangers_per_minute: int = 60
    mentions: Mentions = Mentions.CONTACTS
    acknowledge: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As JSON shows it."""
        return {
            "contacts": sorted(self.contacts),
            "deny": sorted(self.deny),
            "strangers": self.strangers.value,
            "pow_bits": self.pow_bits,
            "toll_sat": self.toll_sat,
            "per_minute": self.per_minute,
            "strangers_per_minute": self.strangers_per_minute,
            "mentions": self.mentions.value,
            "acknowledge": self.acknowledge,
        }


FIELDS = frozenset(Rules().to_dict())
_RANGES = {"pow_bits": MAX_BITS, "toll_sat": 1_000_000, "per_minute": 10_000, "strangers_per_minute": 100_000}


def read_rules(value: Mapping[str, Any], base: Rules | None = None) -> Rules:
    """Rules from JSON; what is not named stays as in `base`.

    Raises:
        InvalidInput: a field is unknown or not valid.
    """
    shown = {**(base or Rules()).to_dict(), **value}
    if unknown := sorted(set(shown) - FIELDS):
        raise InvalidInput(f"The rules have a field that is not known: {unknown[0][:40]!r}.")
    for name, most in _RANGES.items():
        if type(shown[name]) is not int or not 0 <= shown[name] <= most:
            raise InvalidInput(f"{name} is a whole number from 0 to {most}.")
    if type(shown["acknowledge"]) is not bool:
        raise InvalidInput("acknowledge is true or false.")
    try:
        strangers, mentions = Strangers(shown["strangers"]), Mentions(shown["mentions"])
    except ValueError as error:
        raise InvalidInput("strangers is none, pow, pay or all; mentions is none, contacts or all.") from error
    return Rules(
        _keys("contacts", shown["contacts"]),
        _keys("deny", shown["deny"]),
        strangers,
        **{name: shown[name] for name in _RANGES},
        mentions=mentions,
        acknowledge=shown["acknowledge"],
    )


def _keys(name: str, value: Any) -> frozenset[PubKey]:
    if not isinstance(value, list | tuple) or len(value) > MAX_KEYS or not all(isinstance(one, str) for one in value):
        raise InvalidInput(f"{name} is a list of at most {MAX_KEYS} public keys.")
    return frozenset(parse_pubkey(one) for one in value)


class Verdict(StrEnum):
    """What becomes of a message."""

    TAKE = "take"
    TOLL = "toll"  # it must bring money
    DROP = "drop"


def work_of(event: Event) -> int:
    """Leading zero bits of an id, as far as its `nonce` tag committed to them (NIP-13): luck does not count."""
    bits = 4 * len(event.id) - int(event.id, 16).bit_length()
    for tag in event.tags:
        if tag[0] == "nonce" and len(tag) > 2 and tag[2].isascii() and tag[2].isdigit() and len(tag[2]) < 4:
            return min(bits, int(tag[2]))
    return 0


def unfit(event: Event, now: int) -> str | None:
    """Why an event is not looked at, as a stable word; None if it is. Nothing is decrypted for this."""
    if not event.content or len(event.content) > MAX_CONTENT:
        return "size"
    expires = event.value("expiration")
    if expires is not None and (not (expires.isascii() and expires.isdigit()) or int(expires[:15]) <= now):
        return "expired"
    return None


@dataclass(slots=True)
class Door:
    """The rules of one agent, and who has knocked lately. Mutable, but it does nothing by itself: time is handed in.

    `paid` are strangers who have brought the toll, with the Unix seconds until which it counts; `written` are those to
    whom the agent wrote first, with the Unix seconds until which they may answer. `recalled`: the latter were read from
    what was said in earlier runs.
    """

    rules: Rules
    paid: dict[str, int] = field(default_factory=dict)
    written: dict[str, int] = field(default_factory=dict)
    recalled: bool = False
    _senders: Meter = field(init=False)
    _strangers: Meter = field(init=False)

    def __post_init__(self) -> None:
        self._senders = Meter(max(1, BURST_MINUTES * self.rules.per_minute), self.rules.per_minute / _MINUTE)
        self._strangers = Meter(max(1, self.rules.strangers_per_minute), self.rules.strangers_per_minute / _MINUTE)

    def needs_work(self, bits: int) -> bool:
        """Whether a wrap is from nobody we would hear, seen from outside: only if contacts have no way in either."""
        nobody = self.recalled and not self.rules.contacts and not self.written
        return self.rules.strangers is Strangers.POW and nobody and bits < self.rules.pow_bits

    def wrote(self, peer: PubKey, at: int, *, first: bool) -> None:
        """The agent wrote to somebody (Unix seconds): an answer is heard, unless it was itself one to a stranger.

        `first`: they had not written before.
        """
        if not first and peer not in self.written:
            return
        until = max(self.written.pop(peer, 0), at + ANSWER_S)
        self.written[peer] = until
        while len(self.written) > MAX_WRITTEN:
            del self.written[next(iter(self.written))]

    def known(self, sender: PubKey, now: int) -> bool:
        """Whether it is a contact, or somebody who has paid."""
        return sender in self.rules.contacts or self.paid.get(sender, 0) > now

    def glance(self, sender: PubKey, bits: int, now: int) -> tuple[Verdict, str]:
        """What the sender alone decides, before the rest is decrypted. Counts nothing."""
        if sender in self.rules.deny:
            return Verdict.DROP, "denied"
        if self.known(sender, now):
            return Verdict.TAKE, "contact"
        if self.written.get(sender, 0) > now:
            return Verdict.TAKE, "answer"
        if self.rules.strangers is Strangers.NONE:
            return Verdict.DROP, "stranger"
        if self.rules.strangers is Strangers.POW and bits < self.rules.pow_bits:
            return Verdict.DROP, "stranger"
        return Verdict.TAKE, "stranger"

    def judge(self, sender: PubKey, bits: int, kind: int, now: int, mono: float) -> tuple[Verdict, str]:
        """What becomes of a private message, and why as a stable word.

        Args:
            sender: whose signature the seal bears.
            bits: the work on the wrap.
            kind: of the rumor.
            now: Unix seconds.
            mono: seconds that never run backwards.
        """
        verdict, reason = self.glance(sender, bits, now)
        if verdict is Verdict.DROP:
            return verdict, reason
        if reason == "contact":
            return (Verdict.TAKE, reason) if self._senders.take(sender, mono) else (Verdict.DROP, "rate")
        if kind == FILE:
            return Verdict.DROP, reason  # nothing is ever fetched for a stranger (M7)
        if not self._strangers.take("", mono) or not self._senders.take(sender, mono):
            return Verdict.DROP, "rate"
        if self.rules.strangers is Strangers.PAY and reason != "answer":
            return Verdict.TOLL, reason
        return Verdict.TAKE, reason

    def hears(self, author: PubKey, now: int, mono: float) -> tuple[bool, str]:
        """Whether a public note that names the agent reaches its inbox, and why not."""
        rules = self.rules
        if author in rules.deny or rules.mentions is Mentions.NONE:
            return False, "denied"
        if not self.known(author, now):
            if rules.mentions is not Mentions.ALL:
                return False, "stranger"
            if not self._strangers.take("", mono):
                return False, "rate"
        return (True, "") if self._senders.take(author, mono) else (False, "rate")

    def replaced(self, rules: Rules) -> "Door":
        """A door with other rules; who has paid stays admitted, and who was written to may answer."""
        return Door(rules, self.paid, self.written, self.recalled)
