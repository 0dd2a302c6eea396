"""/tokens, for the operator: who else may ask over HTTP. A token is shown once; here is only who has which."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import Field, RootModel, model_validator

from core.error import NotFound
from fs.body import Body, Fact, parsed
from fs.error import NoSuchFile
from fs.secret import Secret
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes

LONGEST_S = 10 * 366 * 86_400


class Tokens(Protocol):
    """Where tokens are kept: `node.http.token_file.TokenFile`."""

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """All of them, oldest first, without the tokens themselves."""

    async def add(self, role: str, agent: str, label: str, lifetime_s: int | None, key: str) -> Mapping[str, Any]:
        """Make a token; the same key makes the same one."""

    async def remove(self, token_id: str) -> None:
        """Revoke a token."""


class NewToken(Body):
    """What a new token is for. An agent's names the agent, the operator's names none."""

    role: Literal["operator", "agent"] = Field(description="what it may do: everything, or what one agent may")
    agent: str = Field("", pattern=r"^([a-z][a-z0-9-]{0,30})?$", description="whose files it opens, for an agent's")
    label: str = Field("", max_length=100, description="what it is for, in one line; shown in the list")
    expires_in_s: int | None = Field(None, ge=1, le=LONGEST_S, description="null: it holds until it is revoked")

    @model_validator(mode="after")
    def _check(self) -> "NewToken":
        if (self.role == "agent") is not bool(self.agent):
            raise ValueError("an agent's token names the agent, and the operator's names none")
        if not self.label.isprintable():
            raise ValueError("a label is one line of text")
        return self


class TokenRow(Fact):
    """One token, without the token itself. Times are Unix seconds."""

    id: str
    role: Literal["operator", "agent"]
    agent: str
    label: str
    created_at: int
    expires_at: int | None
    expired: bool


class MadeToken(TokenRow):
    """A token that was made; `token` is null if the key was used more than ten minutes ago."""

    token: str | None


def tokens_service(tokens: Tokens, is_agent: Callable[[str], Awaitable[bool]]) -> Tree:
    """The service at `/tokens`. `is_agent`: whether there is an agent of this name."""

    async def new(body: bytes, session: Session) -> bytes:
        asked = parsed(NewToken, body)
        if asked.agent and not await is_agent(asked.agent):
            raise NotFound("There is no agent with this name.")
        made = await tokens.add(asked.role, asked.agent, asked.label, asked.expires_in_s, session.effect_key())
        return Secret(json_bytes(made))

    def one(name: str) -> File:
        async def read(session: Session) -> bytes:
            row = next((row for row in tokens.rows() if row["id"] == name), None)
            if row is None:
                raise NoSuchFile
            return json_bytes(row)

        async def remove(session: Session) -> None:
            await tokens.remove(name)

        about = "one token, without the token itself; removed, it opens nothing"
        return File(about, read, remove=remove, gives=TokenRow)

    async def read_all(session: Session) -> bytes:
        return json_bytes(tokens.rows())

    async def names(session: Session) -> Sequence[str]:
        return [str(row["id"]) for row in tokens.rows()]

    async def find(name: str, session: Session) -> File | None:
        return one(name) if any(row["id"] == name for row in tokens.rows()) else None

    about = (
        'make a token: {"role": "operator" or "agent", "agent": whose files, "label": what for, "expires_in_s": '
        "seconds or null}; the answer has the token, this once"
    )
    return Tree(
        Folder(
            "Tokens for the control plane that were given out; reading it gives all of them as JSON.",
            {"new": File(about, call=new, takes=NewToken, gives=MadeToken)},
            names,
            find,
            "<id>",
            "one token, as JSON; removed, it opens nothing any more",
            read=read_all,
            gives=RootModel[list[TokenRow]],
            sample=lambda: one("id"),
        )
    )
