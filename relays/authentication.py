"""Answering a relay's challenge (NIP-42): only when something needs it, once per connection. Pure."""

from collections.abc import Callable

from core.identifier import EventId
from relays.event import Event

ANSWER_S = 10.0
Signer = Callable[[str, str], Event | None]  # (relay, challenge) -> a signed kind 22242, or None for "not to this one"


class Authentication:
    """The state of one connection: `fresh` → `sent` → `accepted` or `failed`.

    Proving who we are tells the relay who we are, so it is not done before a relay says `auth-required:`.
    """

    __slots__ = ("_challenge", "_sent_at", "_signer", "_url", "_wanted", "event_id", "state")

    def __init__(self, url: str, signer: Signer | None) -> None:
        self._url = url
        self._signer = signer
        self.reset()

    def reset(self) -> None:
        """A new connection."""
        self.state = "fresh"
        self.event_id: EventId | None = None
        self._challenge: str | None = None
        self._wanted = False
        self._sent_at = 0.0

    def challenged(self, challenge: str, mono: float) -> Event | None:
        """The relay's challenge. Returns the event to send, if something waits for it."""
        self._challenge = challenge
        return self._answer(mono) if self._wanted else None

    def want(self, mono: float) -> Event | None:
        """Something was refused with `auth-required:`. Returns the event to send, if it is time."""
        self._wanted = True
        return self._answer(mono)

    @property
    def hopeless(self) -> bool:
        """Whether waiting for it makes no sense."""
        return self._signer is None or self.state == "failed"

    def _answer(self, mono: float) -> Event | None:
        if self.state != "fresh" or self._challenge is None or self._signer is None:
            return None
        event = self._signer(self._url, self._challenge)
        if event is None:
            self.state = "failed"
            return None
        self.state, self.event_id, self._sent_at = "sent", event.id, mono
        return event

    def answered(self, event_id: str, accepted: bool) -> bool:
        """An OK came. Whether it was for our AUTH."""
        if self.state != "sent" or event_id != self.event_id:
            return False
        self.state = "accepted" if accepted else "failed"
        return True

    def overdue(self, mono: float) -> bool:
        """Give up waiting for the relay's answer; true once, when that happens."""
        if self.state == "sent" and mono - self._sent_at > ANSWER_S:
            self.state = "failed"
            return True
        return False
