"""What an agent's code is: a program with hooks, a typed state and typed settings.

    class Counter(Program[Count, Nothing]):
        name = "counter"
        state_type, config_type = Count, Nothing

        async def on_trigger(self, ctx: Context[Count, Nothing], trigger: Trigger) -> None:
            ctx.state.total += 1

A program acts on nothing but its `Context`. Everything it asks for in one tick is committed with the tick, or not at
all; nothing leaves the process before. One program object serves all of its agents: it keeps nothing in itself.
"""

import hashlib
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeAlias

from pydantic import BaseModel, ConfigDict

from node.agent.context import C, Context, Files, Namespaces, S
from node.agent.error import NoProgram, StateRefused

__all__ = ["Context", "Files", "Namespaces", "Nothing", "Program", "Programs", "Trigger", "code_digest"]


class Nothing(BaseModel):
    """No state, or no settings."""

    model_config = ConfigDict(extra="forbid")


class Trigger(NamedTuple):
    """Why a tick happens.

    Attributes:
        envelope_id: unique per agent; the same trigger never ends two ticks.
        cause: message, event, manual, initialize or alarm.
        source: where it came in: nostr, control-plane, market, node.
        sender: who sent it: a public key, `operator`, or empty.
        payload: what it says.
        at: when it arrived, Unix seconds.
        seq: the source's own number for it, if it has one.
        reply_to: the id of what it answers, or empty.
    """

    envelope_id: str
    cause: str
    source: str
    sender: str
    payload: Mapping[str, Any]
    at: int
    seq: int | None = None
    reply_to: str = ""


class Program(ABC, Generic[S, C]):
    """An agent's code.

    Whatever a hook raises makes its tick void; the trigger is tried again later.

    Attributes:
        name: what agents name as their `program`.
        version: of the form of the state; raise it with every change that older state does not fit.
        state_type: what the state is; it can be made without arguments, which is the state of a new agent.
        config_type: what the settings are.
    """

    name: str = ""
    version: int = 1
    state_type: type[S]
    config_type: type[C]

    @cached_property
    def digest(self) -> str:
        """SHA-256 of its code, as hex. It is kept with each tick."""
        return code_digest(type(self))

    def migrate(self, version: int, state: dict[str, Any]) -> dict[str, Any]:
        """State of an older version in today's form. Who has gone through many versions goes step by step.

        Raises:
            StateRefused: there is no way from that version.
        """
        raise StateRefused(
            f"The program {self.name!r} has no way from version {version} of its state to {self.version}."
        )

    async def on_create(self, ctx: Context[S, C]) -> None:
        """The agent's first tick, before everything else; again if that tick fails."""

    async def on_wake(self, ctx: Context[S, C]) -> None:
        """The start of every tick: a tick is all that an agent ever lives."""

    @abstractmethod
    async def on_trigger(self, ctx: Context[S, C], trigger: Trigger) -> None:
        """Deal with one trigger."""

    async def on_sleep(self, ctx: Context[S, C]) -> None:
        """After a trigger that was dealt with, before the commit."""

    async def on_error(self, ctx: Context[S, C], error: BaseException) -> None:
        """A hook has failed. Of what is done here only `ctx.log` is kept; the state is the one before the tick."""

    async def on_terminate(self, ctx: Context[S, C]) -> None:
        """The agent is deleted. What is asked for here is committed with the deletion."""


AnyProgram: TypeAlias = Program[Any, Any]
Programs: TypeAlias = Mapping[str, AnyProgram]


def program_of(programs: Programs, name: str) -> AnyProgram:
    """A program that an agent names.

    Raises:
        NoProgram: there is none, or it cannot be loaded.
    """
    try:
        return programs[name]
    except KeyError as error:
        raise NoProgram(f"This node has no program called {name!r}.") from error


def code_digest(program: type) -> str:
    """SHA-256 of the file in which a class stands, as hex; of its name where there is no file."""
    file = getattr(sys.modules.get(program.__module__), "__file__", None)
    try:
        source = Path(file).read_bytes() if file else b""
    except OSError:
        source = b""
    return hashlib.sha256(source or f"{program.__module__}.{program.__qualname__}".encode()).hexdigest()
