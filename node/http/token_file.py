"""Tokens that the operator gives out, in a file of the home: who has each, and of the token itself only the digest.

A token derives from the node's seed and its own random id, so the same idempotency key shows the same token again for a
few minutes: an answer that was lost leaves no second token behind. The file is replaced whole, and read again when it
has changed; one that cannot be used opens nothing.
"""

import asyncio
import base64
import hashlib
import logging
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import orjson
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from core.clock import Clock
from core.error import InvalidInput, KeyReused, NotFound
from node.http.error import TokensDamaged
from node.http.token import Grant, digest, grant_of
from node.identity.keystore import replace_private
from relays.key import Keyring

log = logging.getLogger(__name__)

FILE = "tokens.json"
PREFIX = "vendo_token_"
MAX_TOKENS = 1_000
SHOWN_S = 600
_LOOK_S = 1.0
_MAX_FILE = 1 << 20


class _Row(BaseModel):
    """One token: who has it, and for how long."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(pattern=r"^[0-9a-f]{16}$")
    caller: str = Field(pattern=r"^(operator|agent:[a-z][a-z0-9-]{0,30})$")
    label: str = Field(max_length=100)
    created_at: int
    expires_at: int | None
    digest: str = Field(pattern=r"^[0-9a-f]{64}$")
    key: str = Field(pattern=r"^[0-9a-f]{64}$")

    def to_dict(self, now: int) -> dict[str, Any]:
        """As it is shown: everything but the digests."""
        grant = grant_of(self.caller)
        return {
            "id": self.id,
            "role": grant.role.name.lower(),
            "agent": self.caller.partition(":")[2],
            "label": self.label,
            "created_at": self.created_at,
            "expires_at": self.expires_at,
            "expired": self.is_over(now),
        }

    def is_over(self, now: int) -> bool:
        """Whether it has expired."""
        return self.expires_at is not None and now >= self.expires_at


class _File(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)

    version: Literal[1]
    tokens: tuple[_Row, ...] = Field(max_length=MAX_TOKENS)


class TokenFile:
    """The tokens that were given out.

    Args:
        path: the file; None keeps them in memory, for a node without a home.
        clock: when they expire, and when the file is looked at again.
        secret: 32 bytes for a token's id; the same on every run of this node.
    """

    def __init__(self, path: Path | None, clock: Clock, secret: Callable[[str], bytes]) -> None:
        self._path, self._clock, self._secret = path, clock, secret
        self._rows: dict[str, _Row] = {}  # by digest
        self._damage = ""
        self._looked, self._seen = float("-inf"), (0, 0, 0)
        self._changing = asyncio.Lock()

    # ---- who comes

    def known(self, offered: str) -> Grant | None:
        """Who has the token with this digest, or None. A change of the file counts within a second."""
        self._look()
        row = self._rows.get(offered)
        return None if row is None or row.is_over(self._clock.now()) else grant_of(row.caller)

    # ---- the operator's view

    def rows(self) -> Sequence[Mapping[str, Any]]:
        """All of them, oldest first.

        Raises:
            TokensDamaged: the file cannot be used.
        """
        now = self._clock.now()
        return [row.to_dict(now) for row in self._current()]

    async def add(self, role: str, agent: str, label: str, lifetime_s: int | None, key: str) -> Mapping[str, Any]:
        """Make a token. The same key makes the same one, and shows it for ten minutes.

        Args:
            role: `operator` or `agent`.
            agent: whose files an agent's token opens.
            label: what it is for.
            lifetime_s: for how many seconds it holds; None: until it is revoked.
            key: the idempotency key.

        Raises:
            KeyReused: another token was made with this key.
            InvalidInput: there are too many.
            TokensDamaged: the file cannot be used.
        """
        caller = role if role == "operator" else f"agent:{agent}"
        hashed = hashlib.sha256(key.encode()).hexdigest()
        async with self._changing:
            rows, now = self._current(), self._clock.now()
            for row in rows:
                if row.key == hashed:
                    return self._again(row, caller, label, lifetime_s)
            kept = [row for row in rows if not row.is_over(now)]
            if len(kept) >= MAX_TOKENS:
                raise InvalidInput(f"There are {MAX_TOKENS} tokens.", remedy="Revoke those that nobody needs.")
            made = _Row(
                id=secrets.token_hex(8), caller=caller, label=label, created_at=now, digest="0" * 64, key=hashed,
                expires_at=None if lifetime_s is None else now + lifetime_s,
            )  # fmt: skip
            token = self._token(made.id)
            made = made.model_copy(update={"digest": digest(token)})
            await self._replace([*kept, made])
        log.info("a token was made", extra={"action": "token_made", "token": made.id, "caller": caller})
        return {**made.to_dict(now), "token": token}

    async def remove(self, token_id: str) -> None:
        """Revoke a token: it opens nothing from now on.

        Raises:
            NotFound: there is none with this id.
            TokensDamaged: the file cannot be used.
        """
        async with self._changing:
            rows = self._current()
            kept = [row for row in rows if row.id != token_id]
            if len(kept) == len(rows):
                raise NotFound("There is no token with this id.")
            await self._replace(kept)
        log.info("a token was revoked", extra={"action": "token_revoked", "token": token_id})

    def _again(self, row: _Row, caller: str, label: str, lifetime_s: int | None) -> Mapping[str, Any]:
        lasts = None if row.expires_at is None else row.expires_at - row.created_at
        if (row.caller, row.label, lasts) != (caller, label, lifetime_s):
            raise KeyReused
        now = self._clock.now()
        shown = self._token(row.id) if now - row.created_at <= SHOWN_S else None
        return {**row.to_dict(now), "token": shown}

    def _token(self, token_id: str) -> str:
        return PREFIX + base64.urlsafe_b64encode(self._secret(token_id)).decode().rstrip("=")

    # ---- the file

    def _current(self) -> list[_Row]:
        self._looked = float("-inf")
        self._look()
        if self._damage:
            raise TokensDamaged(self._damage)
        return list(self._rows.values())

    def _look(self) -> None:
        """Read the file again if it is another one than before; at most once a second."""
        mono = self._clock.monotonic()
        if self._path is None or mono - self._looked < _LOOK_S:
            return
        self._looked = mono
        try:
            facts = self._path.stat()
            seen = (facts.st_ino, facts.st_mtime_ns, facts.st_mode)
            if seen == self._seen:
                return
            if facts.st_mode & 0o077:
                raise TokensDamaged(f"{self._path} can be read by others.")
            rows = _read(self._path)
        except FileNotFoundError:
            rows, seen = [], (0, 0, 0)
        except (TokensDamaged, OSError) as error:
            damage = error.message if isinstance(error, TokensDamaged) else f"{self._path}: {error.strerror}."
            if damage != self._damage:
                log.error("tokens that were given out are not taken: %s", damage, extra={"action": "tokens_damaged"})
            self._rows, self._seen, self._damage = {}, (0, 0, 0), damage
            return
        self._rows, self._seen, self._damage = {row.digest: row for row in rows}, seen, ""

    async def _replace(self, rows: Sequence[_Row]) -> None:
        if self._path is not None:
            text = _File(version=1, tokens=tuple(rows)).model_dump_json(indent=1) + "\n"
            await asyncio.to_thread(replace_private, self._path, text)
        self._rows = {row.digest: row for row in rows}
        self._looked = float("-inf")


def token_file(home: Path | None, clock: Clock, keyring: Keyring) -> TokenFile:
    """The one of a home directory."""
    return TokenFile(None if home is None else home / FILE, clock, lambda token_id: keyring.derive("token", token_id))


def _read(path: Path) -> list[_Row]:
    """The file's rows.

    Raises:
        TokensDamaged: it is not such a file.
    """
    with path.open("rb") as file:
        raw = file.read(_MAX_FILE)
    try:
        return list(_File.model_validate(orjson.loads(raw)).tokens)
    except (orjson.JSONDecodeError, ValidationError) as error:
        raise TokensDamaged(f"{path} is damaged, or was written by another version of vendo.") from error
