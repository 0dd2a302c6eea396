"""What a seller says to requests that it does not serve: at a bounded rate, and once to each."""

from collections import Counter as Tally
from collections.abc import Callable, Sequence
from dataclasses import replace

from core.clock import Clock
from core.unit import UnitOfWork
from dvm.admission import Decline, Limits, Meter, note
from dvm.destination import answer_relays
from relays.key import Key
from relays.nip90 import ERROR, JobRequest, feedback_draft
from relays.outbox import Outbox
from relays.private_job import sealed_answer

DECLINE = "market.decline"  # the standing purpose under which refusals go out
REFUSED, REFUSED_S = 8_192, 60  # requests that were told no: they are not judged again at once


class Refusals:
    """Of one seller. `relays` are those that it answers at, `dropped` counts refusals by reason."""

    def __init__(
        self,
        unit: UnitOfWork,
        relays: Callable[[], Sequence[str]],
        outbox: Outbox,
        key: Key,
        clock: Clock,
        limits: Limits,
        dropped: Tally[str],
    ) -> None:
        self._unit, self._relays, self._outbox, self._key, self._clock = unit, relays, outbox, key, clock
        self._meter = Meter(2 * limits.declines_per_second, limits.declines_per_second)
        self._dropped = dropped
        self._told: dict[str, float] = {}

    def stands(self, request_id: str) -> bool:
        """Whether this request was told no a moment ago."""
        return self._told.get(request_id, 0) > self._clock.now()

    def knows(self, request_id: str) -> bool:
        """Whether it was told no at all, as far as that is remembered."""
        return request_id in self._told

    async def say(self, request: JobRequest, decision: Decline) -> None:
        """Say no, at a bounded rate; a stranger's request is not worth a ledger entry of its own."""
        self._dropped[decision.word] += 1
        note(self._told, request.event_id, self._clock.now() + (decision.retry_after_s or REFUSED_S), REFUSED)
        if not self._meter.take("", self._clock.monotonic()):
            return
        draft = feedback_draft(
            request=request,
            status=ERROR,
            created_at=self._clock.now(),
            info=decision.reason[:200],
            amount=decision.floor,
        )
        if decision.retry_after_s:
            draft = replace(draft, tags=(*draft.tags, ("retry-after", str(decision.retry_after_s))))
        event = sealed_answer(self._key, request, draft)
        rows = self._outbox.rows(event, DECLINE, answer_relays(self._relays(), request.relays))
        await self._unit.commit(rows)
        self._outbox.kick(rows)
