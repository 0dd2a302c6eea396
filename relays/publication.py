"""Events that were sent to one relay and wait for its OK. Pure.

An OK may never come; then the verdict is `UNKNOWN` and the same bytes may be sent again.
"""

from collections.abc import Callable

from relays.message import prefix
from relays.verdict import Verdict, judge, lost

OK_S = 10.0
Done = Callable[[Verdict], None]


class _Sent:
    __slots__ = ("dones", "frame", "retried", "until")

    def __init__(self, frame: str, until: float, done: Done) -> None:
        self.frame = frame
        self.until = until
        self.dones = [done]
        self.retried = False


class Publications:
    """What is in flight on one connection, in the order of sending, so that the first is the first to be overdue."""

    __slots__ = ("_parked", "_sent")

    def __init__(self) -> None:
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
        self._sent[event_id] = _Sent(frame, mono + OK_S, done)
        return True

    def answered(self, event_id: str, accepted: bool, reason: str) -> bool:
        """An OK came. True if the event is parked now, until `release` is told how authentication went."""
        sent = self._sent.pop(event_id, None)
        if sent is None:
            return False
        if not accepted and not sent.retried and prefix(reason) == "auth-required":
            self._parked[event_id] = sent
            return True
        self._tell(sent, judge(accepted, reason))
        return False

    def release(self, authenticated: bool, mono: float) -> list[str]:
        """Authentication ended: the frames to send again, or all parked are refused."""
        parked, self._parked = self._parked, {}
        for event_id, sent in parked.items():
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
