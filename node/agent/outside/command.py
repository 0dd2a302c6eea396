"""The program `command`: a trigger starts a command, with the trigger as JSON on its standard input.

It is a list of arguments; no shell looks at it. It runs in `HOME/work/<agent>`, in a process group and session of its
own, with an environment of a few names: PATH, HOME, LANG, VENDO_AGENT, VENDO_DELIVERY, VENDO_TURN_URL,
VENDO_TURN_TOKEN, those of the node's own that the settings name, and those that the settings set: a value there may be
the name of a secret, which is put in when the command starts. What it prints goes to the agent's trace. Its end is the
turn's: code 0 commits, another one fails with the end of standard error. A last line that is JSON can say more:
{"commit": true, "state", "writes"}, {"commit": false, "reason"}. It may also act over HTTP, and commit there.
"""

import asyncio
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import orjson
from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.clock import Clock
from core.error import Paused
from node.agent.outside.act import COMMIT, TURN, Act, verdict
from node.agent.outside.child import Child, Ended
from node.agent.outside.error import CommandFailed
from node.agent.outside.host import Turns
from node.agent.outside.program import Outside, patience
from node.agent.outside.turn import Door, Turn
from node.agent.replay.redactor import Redactor
from node.secret.reference import Reveal, check_setting, faces, no_secrets

FOLDER = "work"
_PATH = "/usr/local/bin:/usr/bin:/bin"
_NAME = r"^[A-Za-z_][A-Za-z0-9_]{0,99}$"
_WAIT_S = 5.0
_SHOWN_LINES, _SHOWN = 5, 600
Name = Annotated[str, Field(pattern=_NAME)]


class CommandsFull(Paused):
    """As many commands run as may; the trigger waits."""

    code = "command.full"
    remedy = "Wait, or raise `commands` in [tick]."


class CommandConfig(BaseModel):
    """Settings of an agent that is a command.

    Attributes:
        argv: the program, and its arguments.
        environment: names of the node's own environment that it is given as well.
        env: further variables, with their values; `secret:<name>` stands for a secret of the agent, and
            `secret:node/<name>` for one of the node's.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    argv: tuple[Annotated[str, Field(max_length=32_768)], ...] = Field(min_length=1, max_length=256)
    environment: tuple[Name, ...] = Field((), max_length=100)
    env: dict[Name, Annotated[str, Field(max_length=32_768)]] = Field(default_factory=dict, max_length=100)

    @field_validator("argv")
    @classmethod
    def _words(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if not value[0] or any("\0" in word for word in value):
            raise ValueError("argv is a program and its arguments, without zero bytes")
        return value

    @field_validator("environment")
    @classmethod
    def _names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        if any(name.startswith("VENDO_") for name in value):
            raise ValueError("names that begin with VENDO_ are the node's own")
        return value

    @field_validator("env")
    @classmethod
    def _variables(cls, value: dict[str, str]) -> dict[str, str]:
        cls._names(tuple(value))
        for text in value.values():
            if "\0" in text:
                raise ValueError("a variable's value has no zero byte in it")
            check_setting(text, shared=True)
        return value


class Command(Outside[CommandConfig]):
    """The program.

    Args:
        turns: where turns are opened.
        clock: for the time that is left.
        folder: below it each agent has a working directory.
        parallel: how many commands run at once.
        leave: asks the gate whether one may be started.
        reveal: the value of a variable.
    """

    name = "command"
    config_type = CommandConfig

    def __init__(
        self,
        turns: Turns,
        clock: Clock,
        folder: Path,
        parallel: int,
        leave: Callable[[], None],
        reveal: Reveal = no_secrets,
    ) -> None:
        super().__init__(turns, clock)
        self._folder, self._slots, self._leave = folder, asyncio.Semaphore(parallel), leave
        self._reveal = reveal

    async def reach(self, brief: Mapping[str, Any], config: CommandConfig, turn: Turn, door: Door) -> Act | None:
        """See `Outside.reach`."""
        try:
            async with asyncio.timeout(patience(brief["until_ms"] - self.clock.millis(), _WAIT_S)):
                await self._slots.acquire()
        except TimeoutError as error:
            raise CommandsFull from error
        try:
            self._leave()
            return await self._run(brief, config, turn, door)
        finally:
            self._slots.release()

    async def _run(self, brief: Mapping[str, Any], config: CommandConfig, turn: Turn, door: Door) -> Act:
        own = {name: await self._reveal(turn.agent, text) for name, text in config.env.items()}
        redactor = Redactor([door.token, *_secret(config, own)])

        def hear(line: str) -> None:
            body = orjson.dumps({"type": "stdout", "data": {"line": redactor.text(line)}})
            turn.put(Act("POST", f"{TURN}/log", body))

        folder = self._folder / turn.agent
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        turn.works_since = self.clock.monotonic()
        child = await Child.start(config.argv, folder, _environment(config, own, brief, folder, door))
        try:
            ended = await child.talk(orjson.dumps(brief) + b"\n", hear)
        finally:
            await child.end()
        act = verdict(ended.last)
        if act is None:
            ended.said.flush()
        if ended.code != 0:
            raise CommandFailed(_failure(ended, redactor))
        return act or Act("POST", COMMIT, strict=True)


def _secret(config: CommandConfig, own: Mapping[str, str]) -> list[str]:
    """What of its variables nobody may see."""
    return [face for name, value in own.items() if value != config.env[name] for face in faces(value)]


def _environment(
    config: CommandConfig, own: Mapping[str, str], brief: Mapping[str, Any], folder: Path, door: Door
) -> dict[str, str]:
    lent = {name: os.environ[name] for name in config.environment if name in os.environ}
    return {
        "PATH": _PATH,
        "LANG": "C.UTF-8",
        "HOME": str(folder),
        **lent,
        **own,
        "VENDO_AGENT": str(brief["agent"]),
        "VENDO_DELIVERY": str(brief["delivery"]),
        "VENDO_TURN_URL": door.url,
        "VENDO_TURN_TOKEN": door.token,
    }


def _failure(ended: Ended, redactor: Redactor) -> str:
    """The code, and the last lines of what it complained about."""
    lines = [line for line in ended.complained.splitlines() if line.strip()][-_SHOWN_LINES:]
    words = redactor.text(" / ".join(lines))[-_SHOWN:]
    return f"The command ended with {ended.code}." + (f" It said: {words}" if words else "")
