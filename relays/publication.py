"""Events that were sent to one relay and wait for its OK. Pure.

An OK may never come; then the verdict is `UNKNOWN` and the same bytes may be sent again.
"""

from collections.abc import Callable

import orjson

from core.identifier import PubKey
from relays.message import prefix
from relays.verdict import Verdict, judge, lost

OK_S = 10.0
Done = Callable[[Verdict], None]


class _Sent:
    __slots__ = ("at", "dones", "frame", "key", "retried", "until")

    def __init__(self, frame: str, at: float, done: Done) -> None:
        self.frame = frame
        self.at = at
        self.until = at + OK_S
        self.key: PubKey | None = None  # whose authentication it waits for
        self.dones = [done]
        self.retried = False


class Publications:
    """What is in flight on one connection, in the order of sending, so that the first is the first to be overdue."""

    __slots__ = ("_parked", "_sent", "round_trip")

    def __init__(self) -> None:
        self.round_trip = 0.0  # seconds from an event to its OK, the last time
        self._sent: dict[str, _Sent] = {}
        self._parked: dict[str, _Sent] = {}  # refused with auth-required, once

    def __len__(self) -> int:
        return len(self._sent) + len(self._parked)

    def add(self, event_id: str, frame: str, done: Done, mono: float) -> bool:
        """Await an OK. False if the same event is in flight already: then nothing need be sent."""
        known = self._sent.get(event_id) or self._parked.get(event_id)
        if known is not None:
            known.dones.append(done)
            return False
        self._sent[event_id] = _Sent(frame, mono, done)
        return True

    def answered(self, event_id: str, accepted: bool, reason: str, mono: float) -> str | None:
        """An OK came. The event's author, if it is parked now until `await_key` or `release` say how to go on."""
        sent = self._sent.pop(event_id, None)
        if sent is None:
            return None
        self.round_trip = mono - sent.at
        if not accepted and not sent.retried and prefix(reason) == "auth-required":
            self._parked[event_id] = sent
            return str(orjson.loads(sent.frame)[1]["pubkey"])
        self._tell(sent, judge(accepted, reason))
        return None

    def await_key(self, event_id: str, key: PubKey) -> None:
        """The parked event needs this key to be authenticated."""
        if event_id in self._parked:
            self._parked[event_id].key = key

    def release(self, key: PubKey | None, authenticated: bool, mono: float) -> list[str]:
        """Authentication of a key ended: the frames to send again, or those that waited for it are refused.

        None stands for those that no key of ours could help.
        """
        parked = {event_id: sent for event_id, sent in self._parked.items() if sent.key == key}
        for event_id, sent in parked.items():
            del self._parked[event_id]
            if authenticated:
                sent.retried, sent.until = True, mono + OK_S
                self._sent[event_id] = sent
            else:
                self._tell(sent, judge(False, "auth-required: we do not authenticate to this relay"))
        return [sent.frame for sent in parked.values()] if authenticated else []

    def overdue(self, mono: float) -> None:
        """Give up those whose OK did not come in time."""
        late = []
        for event_id, sent in self._sent.items():
            if sent.until > mono:
                break
            late.append(event_id)
        for event_id in late:
            self._tell(self._sent.pop(event_id), lost("the relay did not answer"))
        for event_id in [key for key, sent in self._parked.items() if sent.until <= mono]:
            self._tell(self._parked.pop(event_id), lost("the relay wants authentication but sent no challenge"))

    def lost(self) -> None:
        """The connection is gone."""
        gone = [*self._sent.values(), *self._parked.values()]
        self._sent, self._parked = {}, {}
        for sent in gone:
            self._tell(sent, lost("the connection was lost"))

    @staticmethod
    def _tell(sent: _Sent, verdict: Verdict) -> None:
        for done in sent.dones:
            done(verdict)
