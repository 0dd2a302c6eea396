"""Bearer tokens: only their digests are held. Pure."""

import hashlib
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from fs.session import Role

OPERATOR = "operator"
AGENT_PREFIX = "agent:"
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Grant:
    """Who a caller is. An agent's token opens that agent's files and no others."""

    caller: str
    role: Role

    def reaches(self, agent: str) -> bool:
        """Whether an agent's files are open to this caller."""
        return self.role >= Role.OPERATOR or self.caller == f"{AGENT_PREFIX}{agent}"


PUBLIC = Grant("public", Role.PUBLIC)
"""Whoever sends no `Authorization` header: it sees what is public, and nothing else."""


def grant_of(caller: str) -> Grant:
    """What a caller may do, by its name: `operator`, `agent:<name>`; everybody else is the public."""
    if caller == OPERATOR:
        return Grant(OPERATOR, Role.OPERATOR)
    if caller.startswith(AGENT_PREFIX) and len(caller) > len(AGENT_PREFIX):
        return Grant(caller, Role.AGENT)
    return PUBLIC


def digest(token: str) -> str:
    """What is kept of a token: its SHA-256, hex. Tokens are 256 random bits, so nothing slower is needed."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def new_token() -> str:
    """A fresh token: 256 random bits."""
    return secrets.token_urlsafe(32)


def bearer_of(authorization: str | None) -> str | None:
    """The token in an `Authorization` header, or None."""
    if authorization is None or authorization[: len(_SCHEME)].lower() != _SCHEME:
        return None
    return authorization[len(_SCHEME) :].strip()


class Tokens:
    """Digests, and who each stands for.

    They are looked up by the digest of what was offered. How long that takes could tell something about a digest, which
    is no way back to a token: nobody can choose tokens by what their digests begin with and learn more than that.
    """

    def __init__(self, grants: Iterable[tuple[str, Grant]]) -> None:
        """`grants` are pairs of a token's digest and what it grants."""
        self._grants = dict(grants)

    @classmethod
    def for_operator(cls, token: str) -> "Tokens":
        """One token, the operator's."""
        return cls([(digest(token), grant_of(OPERATOR))])

    def find(self, authorization: str | None) -> Grant | None:
        """Who sends this `Authorization` header, or None."""
        token = bearer_of(authorization)
        return None if token is None else self.known(digest(token))

    def known(self, offered: str) -> Grant | None:
        """Who has the token with this digest, or None."""
        return self._grants.get(offered)
