"""Bearer tokens: only their digests are held, and every comparison takes the same time. Pure."""

import hashlib
import hmac
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from fs.session import Role

OPERATOR = "operator"
_SCHEME = "bearer "


@dataclass(frozen=True, slots=True)
class Grant:
    """Who the holder of a token is. An agent's token opens that agent's files and no others."""

    caller: str
    role: Role

    def reaches(self, agent: str) -> bool:
        """Whether an agent's files are open to this caller."""
        return self.role >= Role.OPERATOR or self.caller == f"agent:{agent}"


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
    """Digests, and who each stands for."""

    def __init__(self, grants: Iterable[tuple[str, Grant]]) -> None:
        """`grants` are pairs of a token's digest and what it grants."""
        self._grants = tuple((known.encode(), grant) for known, grant in grants)

    @classmethod
    def for_operator(cls, token: str) -> "Tokens":
        """One token, the operator's."""
        return cls([(digest(token), Grant(OPERATOR, Role.OPERATOR))])

    def find(self, authorization: str | None) -> Grant | None:
        """Who sends this `Authorization` header, or None. Every known digest is compared, whatever matches."""
        token = bearer_of(authorization)
        if token is None:
            return None
        offered = digest(token).encode()
        found: Grant | None = None
        for known, grant in self._grants:
            if hmac.compare_digest(known, offered):
                found = grant
        return found
