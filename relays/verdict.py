"""What became of an event that was sent to one relay, and how a relay's OK is read (NIP-01). Pure."""

from dataclasses import dataclass
from enum import StrEnum

from relays.message import prefix

# refusals that the same bytes will meet again
_FINAL = frozenset({"blocked", "invalid", "restricted", "pow", "mute", "auth-required", "unsupported", "replaced"})


class VerdictState(StrEnum):
    """STORED: the relay has it. REFUSED: it will not take these bytes. UNKNOWN: nobody knows; send the same again."""

    STORED = "stored"
    REFUSED = "refused"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Verdict:
    """A state and the relay's (or our) words for it. `answered` is false if the relay said nothing."""

    state: VerdictState
    reason: str = ""
    answered: bool = True


STORED = Verdict(VerdictState.STORED)


def judge(accepted: bool, reason: str) -> Verdict:
    """Read an OK. `duplicate:` is success; `rate-limited`, `error` and unknown words are worth another try."""
    if accepted or prefix(reason) == "duplicate":
        return Verdict(VerdictState.STORED, reason) if reason else STORED
    return Verdict(VerdictState.REFUSED if prefix(reason) in _FINAL else VerdictState.UNKNOWN, reason)


def lost(reason: str) -> Verdict:
    """No answer came: the event may or may not be there."""
    return Verdict(VerdictState.UNKNOWN, reason, answered=False)
