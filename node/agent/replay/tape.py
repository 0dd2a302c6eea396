"""What one tick asks of the world and what it does, in order: written down as it happens, or answered from a recording.

Everything that reaches a program from outside passes `read`; everything it does that needs no answer passes `tell`.
The two make one sequence of steps, so that two runs can be compared step by step. What stays the same for a whole tick
(state, config, trigger, time, randomness, ids) is no step: `node/agent/replay/recording.py` keeps it. Pure.

The operations, and their arguments:

    read          path                      bytes of a file
    list          path                      a directory, as JSON; also stat path
    check         path, verb                whether it may be done; answers nothing
    write         path, body                staged; answers nothing
    call          path, key, body           staged; the answer
    remove        path                      staged; answers nothing; also mkdir path
    rename        path, to                  staged; answers nothing
    seen          id                        whether an id was marked: b"1" or b""
    item.get      key                       a kept value, as JSON
    item.list     prefix                    kept values, as JSON
    mark          id                        told
    item.set      key, value                told; also item.delete key
    alarm.set     id, spec as JSON          told; also alarm.cancel id
    watch         id, event, pattern        told; also unwatch id
    log           kind, data as JSON        told
    hook          name                      told by whoever runs a program's hooks, before each
    turn          count                     an act of whoever has the turn of an agent outside, as JSON
    hibernate                               told
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, NoReturn, Protocol, TypeAlias

from core.error import VendoError
from fs.secret import Secret
from node.agent.replay.redactor import Redactor, digest_of, handle_of

Argument: TypeAlias = str | bytes
Fetch: TypeAlias = Callable[[], Awaitable[bytes]]

MAX_STEPS = 5_000
MAX_KEPT = 4 * 1_048_576
"""How much of one tick is kept in memory for its recording; of what comes after, only digests."""


@dataclass(frozen=True, slots=True)
class Fault:
    """An error that answered a step, as data."""

    code: str
    message: str
    advice: str = ""
    context: tuple[tuple[str, str | int], ...] = ()

    @classmethod
    def of(cls, error: VendoError) -> "Fault":
        """What is to be kept of an error."""
        return cls(error.code, error.message, error.advice, tuple(error.context.items()))

    def error(self) -> VendoError:
        """The error again, of the class that has its code; of a class made for it if none has it here."""
        kind = _classes().get(self.code)
        if kind is None:

            class RecordedError(VendoError):
                """An error of a class that is not loaded here."""

                code = self.code

            kind = RecordedError
        error = kind.__new__(kind)
        VendoError.__init__(error, self.message, remedy=self.advice, **dict(self.context))
        return error


def _classes() -> dict[str, type[VendoError]]:
    found: dict[str, type[VendoError]] = {}
    left: list[type[VendoError]] = [VendoError]
    while left:
        kind = left.pop(0)
        if "code" in vars(kind):
            found.setdefault(kind.code, kind)
        left.extend(kind.__subclasses__())
    return found


@dataclass(frozen=True, slots=True)
class Body:
    """An answer that is not here but under its digest, or nowhere any more. `size` is in bytes."""

    digest: str
    size: int


Answer: TypeAlias = bytes | Fault | Body | None


class Step(NamedTuple):
    """One thing that a tick asked or did. `answer` is None if the tick broke off before there was one."""

    op: str
    args: tuple[Argument, ...]
    answer: Answer = b""


class Tape(Protocol):
    """Between a program and everything outside of it."""

    async def read(self, op: str, args: tuple[Argument, ...], fetch: Fetch) -> bytes:
        """What `fetch` answers, or answered when the tick was recorded.

        Raises:
            VendoError: as `fetch`.
            Diverged: a replay, and here it is not what was recorded.
        """

    def tell(self, op: str, *args: Argument) -> None:
        """Something was done that needs no answer.

        Raises:
            Diverged: a replay, and here it is not what was recorded.
        """


NOTHING_KNOWN = Redactor()


@dataclass(slots=True)
class LiveTape:
    """Asks, and writes down what was asked and answered. `node/agent/replay/recording.py` makes a recording of it."""

    redactor: Redactor = NOTHING_KNOWN  # what may not be recorded
    steps: list[Step] = field(default_factory=list)
    kept: int = 0
    cut: bool = False  # there were more steps than are kept

    async def read(self, op: str, args: tuple[Argument, ...], fetch: Fetch) -> bytes:
        """See `Tape`. Of an answer of the type `Secret` only a handle is kept, and its value is known from then on."""
        at = self._begin(op, args)
        try:
            answer = await fetch()
        except VendoError as error:
            self._end(at, Fault.of(error))
            raise
        kept = answer
        if type(answer) is Secret:
            kept, values = handle_of(answer)
            self.redactor = self.redactor.knowing(values)
        self._end(at, kept)
        return answer

    def tell(self, op: str, *args: Argument) -> None:
        """See `Tape`."""
        if len(self.steps) >= MAX_STEPS:
            self.cut = True
            return
        self.steps.append(Step(op, self._kept(args)))

    def _begin(self, op: str, args: tuple[Argument, ...]) -> int:
        """The step's place. It is taken when the step begins, so that steps that overlap have one order in any run."""
        if len(self.steps) >= MAX_STEPS:
            self.cut = True
            return -1
        self.steps.append(Step(op, self._kept(args), None))
        return len(self.steps) - 1

    def _kept(self, args: tuple[Argument, ...]) -> tuple[Argument, ...]:
        for arg in args:
            self.kept += len(arg)
        return args if self.kept <= MAX_KEPT else canonical(args, self.redactor)

    def _end(self, at: int, answer: bytes | Fault) -> None:
        if at < 0:
            return
        kept: Answer = answer
        if isinstance(answer, bytes):
            self.kept += len(answer)
            if self.kept > MAX_KEPT:
                body = self.redactor.body(answer)
                kept = Body(digest_of(body), len(body))
        self.steps[at] = Step(self.steps[at].op, self.steps[at].args, kept)


def canonical(args: Sequence[Argument], redactor: Redactor) -> tuple[str, ...]:
    """Arguments as they are kept and compared: texts without secrets, long ones as their beginning and a digest."""
    return tuple(map(redactor.argument, args))


class Stopped(BaseException):
    """A replay ends within the program. Not an `Exception`, so that the program's own handlers let it pass."""


class Diverged(Stopped):
    """The first difference: at step `position` (from 0) the recording has `expected`, the program did `found`."""

    def __init__(self, position: int, expected: Step | None, found: Step | None) -> None:
        super().__init__(f"step {position} is another one")
        self.position, self.expected, self.found = position, expected, found


class BrokenOff(Stopped):
    """The recorded tick, or its recording, goes no further than step `position`: no difference was seen up to there."""

    def __init__(self, position: int) -> None:
        super().__init__(f"the recording ends at step {position}")
        self.position = position


class BodyMissing(Stopped):
    """The answer of step `position` was too large to keep, or its time is over: nothing can be said from here on."""

    def __init__(self, position: int, body: Body) -> None:
        super().__init__(f"the answer of step {position} is gone")
        self.position, self.body = position, body


class ReplayTape:
    """Answers from a recording, and asks nobody. Once it has stopped it stops again at every step."""

    def __init__(self, steps: Sequence[Step], *, cut: bool = False, redactor: Redactor = NOTHING_KNOWN) -> None:
        """`cut`: the recorded tick may have gone on after the last step."""
        self._steps, self._cut, self._at = steps, cut, 0
        self._redactor = redactor
        self.stopped: Stopped | None = None

    @property
    def position(self) -> int:
        """How many steps were the same so far."""
        return self._at

    async def read(self, op: str, args: tuple[Argument, ...], fetch: Fetch) -> bytes:
        """See `Tape`; `fetch` is not called."""
        answer = self._next(op, args)
        if isinstance(answer, Fault):
            raise answer.error()
        if isinstance(answer, Body):
            self._stop(BodyMissing(self._at - 1, answer))
        if answer is None:
            self._stop(BrokenOff(self._at - 1))
        return answer

    def tell(self, op: str, *args: Argument) -> None:
        """See `Tape`."""
        self._next(op, args)

    def finish(self) -> None:
        """The program has ended.

        Raises:
            Stopped: it stopped before, or the recorded tick did more.
        """
        if self.stopped is not None:
            raise self.stopped
        if self._at < len(self._steps):
            self._stop(Diverged(self._at, self._steps[self._at], None))

    def _next(self, op: str, args: tuple[Argument, ...]) -> Answer:
        if self.stopped is not None:
            raise self.stopped
        found = Step(op, canonical(args, self._redactor))
        if self._at >= len(self._steps):
            self._stop(BrokenOff(self._at) if self._cut else Diverged(self._at, None, found))
        step = self._steps[self._at]
        if step.op != op or step.args != found.args:
            self._stop(Diverged(self._at, step, found))
        self._at += 1
        return step.answer

    def _stop(self, why: Stopped) -> NoReturn:
        self.stopped = why
        raise why
