"""A recorded tick: what it began with, its steps, and how it ended. Pure.

A failed tick is recorded as well: it is the one that its owner wants to see again. In a tick:

    start = Start(...)                        # before the program runs
    tape = LiveTape(redactor)                 # what the Context reads and tells through
    end = End(version, state) | End.failed(code, message)
    unit.commit([..., *writes(start, tape, end, at_ms)])      # node/agent/replay/reel.py
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeAlias

from node.agent.replay.tape import Answer, Body, Step

ENVELOPE = ("envelope_id", "cause", "source", "sender", "payload", "at", "seq", "reply_to", "tries")
"""The columns of an inbox row that make a trigger."""

Text: TypeAlias = str | Body
"""A text, or what is known of it while it stands elsewhere."""


class Start(NamedTuple):
    """All that a program has before its first step.

    Attributes:
        agent: its name.
        tick_id: what randomness and ids derive from.
        program: the program's name.
        code: sha256 of its code.
        state_version: the version of `state`, before any migration.
        state: as it stands in the agent's row, JSON.
        config: the same.
        envelope: the trigger, the `ENVELOPE` columns of its inbox row; `payload` is JSON.
        now_ms: the tick's time.
        until_ms: when its time was to be over.
        flags: what else decides which hooks run, e.g. `woken`.
    """

    agent: str
    tick_id: str
    program: str
    code: str
    state_version: int
    state: Text
    config: Text
    envelope: Mapping[str, Any]
    now_ms: int
    until_ms: int
    flags: tuple[str, ...] = ()


class End(NamedTuple):
    """How a tick ended: with a state (JSON, its version), or with an error that has a code.

    `late`: the program had ended well, and then the tick could not be committed.
    """

    state_version: int
    state: Text = ""
    code: str = ""
    message: str = ""
    late: bool = False

    @classmethod
    def failed(cls, code: str, message: str, *, late: bool = False) -> "End":
        """A tick of which nothing but its failure was committed."""
        return cls(0, "", code, message, late)

    def cleaned(self, clean: Callable[[str], str]) -> "End":
        """With texts as they are kept."""
        state = clean(self.state) if isinstance(self.state, str) else self.state
        return self._replace(state=state, message=clean(self.message))


class Recording(NamedTuple):
    """One tick. `cut`: it had more steps than were kept."""

    start: Start
    steps: tuple[Step, ...]
    end: End
    cut: bool = False

    def digests(self) -> set[str]:
        """What it names of the table `blob`. A state after the tick is there only if another tick began with it."""
        texts = (self.start.state, self.start.config, self.start.envelope["payload"], self.end.state)
        answers = (step.answer for step in self.steps)
        return {one.digest for one in (*texts, *answers) if isinstance(one, Body)}

    def filled(self, blobs: Mapping[str, bytes]) -> "Recording":
        """The recording with the large bodies that are given; the others stay a `Body`."""

        def text(value: Text) -> Text:
            return blobs[value.digest].decode() if isinstance(value, Body) and value.digest in blobs else value

        def answer(value: Answer) -> Answer:
            return blobs[value.digest] if isinstance(value, Body) and value.digest in blobs else value

        start, end = self.start, self.end
        envelope = {**start.envelope, "payload": text(start.envelope["payload"])}
        return self._replace(
            start=start._replace(state=text(start.state), config=text(start.config), envelope=envelope),
            steps=tuple(Step(op, args, answer(one)) for op, args, one in self.steps),
            end=end._replace(state=text(end.state)),
        )
