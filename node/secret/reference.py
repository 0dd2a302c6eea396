"""How settings name a secret, and in which forms its value may turn up in a text. Pure.

    secret:openai         the agent's own
    secret:node/openai    the node's: only where the settings are the operator's own words

The whole setting is the name, or it is a plain text.
"""

import re
from collections.abc import Awaitable, Callable
from typing import NamedTuple, TypeAlias

from core.error import InvalidInput
from node.secret.error import SecretMissing

PREFIX = "secret:"
NODE = "node"
_FORM = re.compile(r"secret:(node/)?([a-z0-9][a-z0-9_-]{0,63})")
_MIN_LINE = 8

Reveal: TypeAlias = Callable[[str, str], Awaitable[str]]
"""The value of a setting, of an agent: what it names, or the text itself if it names nothing."""


class Reference(NamedTuple):
    """A secret that is named. `shared`: it is the node's."""

    name: str
    shared: bool


def read_reference(text: str) -> Reference | None:
    """What a setting names; None for a text that begins with something else.

    Raises:
        InvalidInput: it begins so, and names nothing.
    """
    if not text.startswith(PREFIX):
        return None
    found = _FORM.fullmatch(text)
    if found is None:
        raise InvalidInput('A secret is named as "secret:<name>", the node\'s own as "secret:node/<name>".')
    return Reference(found[2], found[1] is not None)


def check_setting(text: str, *, shared: bool) -> None:
    """Whether a setting is a plain text, or names a secret that it may name.

    Raises:
        ValueError: it is neither.
    """
    try:
        found = read_reference(text)
    except InvalidInput as error:
        raise ValueError(error.message) from error
    if found is not None and found.shared and not shared:
        raise ValueError("only the agent's own secrets may be named here, as secret:<name>")


def faces(value: str) -> tuple[str, ...]:
    """What is to be looked for in texts: a secret, and of one of several lines each that says something by itself."""
    lines = [line.strip() for line in value.splitlines()]
    apart = [line for line in lines if len(line) >= _MIN_LINE and not line.startswith("-----")]
    return tuple(dict.fromkeys((value, value.strip(), *apart)))


async def no_secrets(agent: str, text: str) -> str:
    """Where no secrets are kept.

    Raises:
        SecretMissing: one is named.
    """
    if read_reference(text) is None:
        return text
    raise SecretMissing(f"The agent {agent!r} has no secrets here.")
