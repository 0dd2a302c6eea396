"""The hooks of one tick, in their order. The same for a live tick and for one that is run again. Pure."""

from functools import lru_cache
from typing import Any

from node.agent.context import Context
from node.agent.program import AnyProgram, Program, Trigger
from node.agent.replay.tape import Tape


@lru_cache(1_024)
def hooks(program: type[AnyProgram], first: bool) -> tuple[str, ...]:
    """Which hooks a tick runs: those that a program has, in order. `first`: it is the agent's first tick."""
    names = (("on_create",) if first else ()) + ("on_wake", "on_trigger", "on_sleep")
    return tuple(name for name in names if getattr(program, name) is not getattr(Program, name))


async def play(program: AnyProgram, ctx: Context[Any, Any], trigger: Trigger, tape: Tape, *, first: bool) -> None:
    """Run the hooks. What one of them raises ends it.

    Args:
        program: whose.
        ctx: what they are given.
        trigger: why.
        tape: is told of each hook before it runs.
        first: whether it is the agent's first tick.
    """
    for name in hooks(type(program), first):
        tape.tell("hook", name)
        if name == "on_trigger":
            await program.on_trigger(ctx, trigger)
        else:
            await getattr(program, name)(ctx)
