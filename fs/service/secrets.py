"""/secrets/<name>: what is set and never read. PUT sets one, DELETE takes it away; nobody gets it back, whoever set it.

A secret is used by its name: where settings of a program take `secret:<name>`, the value is put in at the moment of its
use. Agents see names, sizes and times; only the operator sets them.
"""

import re
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Annotated, Protocol

from pydantic import Field, RootModel

from core.error import InvalidInput
from fs.body import Fact
from fs.protocol import Stat
from fs.session import Role, Session
from fs.tree import File, Folder, Tree, json_bytes

MAX_SECRETS = 100
MIN_BYTES, MAX_BYTES = 8, 16_384
_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


class SecretFact(Fact):
    """What is shown of a secret.

    Attributes:
        name: by which it is used.
        bytes: how long it is.
        set_at_ms: when it was set last, Unix ms.
    """

    name: str
    bytes: Annotated[int, Field(ge=0)]
    set_at_ms: Annotated[int, Field(ge=0)]


class SecretFacts(RootModel[list[SecretFact]]):
    """All secrets of an owner, by name."""


class Secrets(Protocol):
    """What the node's secrets of one owner answer."""

    async def facts(self) -> Sequence[SecretFact]:
        """All of them, by name."""

    async def put(self, name: str, value: str, session: Session) -> None:
        """Set one; what it was before is gone."""

    async def remove(self, name: str, session: Session) -> None:
        """Take one away."""


def secret_text(body: bytes) -> str:
    """A secret as it was sent; one line break at its end is not a part of it, for it is the editor's or the shell's.

    Raises:
        InvalidInput: it is no text, too short or too long. The message has nothing of it.
    """
    try:
        text = body.decode()
    except UnicodeDecodeError:
        raise InvalidInput("A secret is text, in UTF-8.") from None  # the cause would quote it
    text = text.removesuffix("\n").removesuffix("\r")
    if "\0" in text:
        raise InvalidInput("A secret has no zero byte in it.")
    if len(text.strip().encode()) < MIN_BYTES or len(text.encode()) > MAX_BYTES:
        raise InvalidInput(
            f"A secret has {MIN_BYTES} to {MAX_BYTES} bytes.",
            remedy="A shorter one cannot be kept out of logs: it would be found in half of all words.",
        )
    return text


def secrets_service(secrets: Secrets) -> Tree:
    """The service at `/secrets`."""

    def file(name: str, fact: SecretFact | None) -> File:
        async def write(body: bytes, session: Session) -> None:
            text = secret_text(body)
            if fact is None and len(await secrets.facts()) >= MAX_SECRETS:
                raise InvalidInput(f"There are at most {MAX_SECRETS} secrets.")
            await secrets.put(name, text, session)

        async def remove(session: Session) -> None:
            await secrets.remove(name, session)

        about = "a secret: it can be set, and not be read" if fact is None else _about(fact)
        return File(about, write=write, remove=remove, max_bytes=MAX_BYTES + 2, absent=fact is None)

    async def find(name: str, session: Session) -> File | None:
        if _NAME.fullmatch(name) is None:
            return None
        fact = next((one for one in await secrets.facts() if one.name == name), None)
        if fact is None and session.role < Role.OPERATOR:
            return None
        return file(name, fact)

    async def entries(session: Session) -> AsyncIterator[Stat]:
        for fact in await secrets.facts():
            about = _about(fact)
            yield Stat(fact.name, False, about, fact.bytes, writable=True, removable=True, max_bytes=MAX_BYTES + 2)

    async def read(session: Session) -> bytes:
        return json_bytes(SecretFacts(list(await secrets.facts())).model_dump())

    about = (
        f"Secrets: set with PUT ({MIN_BYTES} to {MAX_BYTES} bytes of text), taken away with DELETE, read by nobody. "
        'Where settings take them, "secret:<name>" stands for the value.'
    )
    return Tree(
        Folder(
            about, {}, None, find, "<name>", "one secret (write, remove)", read=read, entries=entries,
            sample=lambda: file("name", None), gives=SecretFacts,
        )
    )  # fmt: skip


def _about(fact: SecretFact) -> str:
    when = datetime.fromtimestamp(fact.set_at_ms / 1_000, UTC)
    return f"{fact.bytes} bytes, set {when:%Y-%m-%dT%H:%M:%SZ}"
