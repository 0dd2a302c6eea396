"""A home directory: configuration, keys, database, token. Made once, readable by its owner alone.

config.toml    settings, commented
keys.json      the seed words (0600); every key of the node derives from them
token          the operator's bearer token for the control plane (0600)
node.db        the database; relays' events are never in it
lock           held while the node runs; names the pid
control.json   where the running node listens
"""

import fcntl
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from core.error import InvalidInput
from node import config
from node.error import AlreadyRunning, HomeExists, HomeMissing
from relays.key import Keyring, new_words, parse_pubkey
from relays.key import npub as to_npub

KEYS = "keys.json"
TOKEN = "token"  # noqa: S105 - the name of a file
DATABASE = "node.db"
LOCK = "lock"
CONTROL = "control.json"


@dataclass(frozen=True, slots=True)
class Created:
    """A new home. The words are shown once and are the only backup."""

    home: Path
    words: str
    owner: str
    operator: str
    node: str
    agent: str


def _write_private(path: Path, text: str) -> None:
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def create(
    home: Path,
    *,
    relays: Sequence[str],
    mints: Sequence[str],
    port: int = 8080,
    owner: str | None = None,
    words: str | None = None,
    name: str = "vendo",
    services: Sequence[config.SellSection] = (),
) -> Created:
    """Make a home directory with new keys, or with the keys of given words.

    Raises:
        HomeExists: there is one already; it is left as it is.
        InvalidInput: the words, the owner, or an address is not valid.
    """
    if (home / KEYS).exists() or (home / config.FILE).exists():
        raise HomeExists(f"{home} already holds a node.")
    keyring = Keyring(words or new_words())
    owner_npub = to_npub(parse_pubkey(owner)) if owner else keyring.operator.npub
    text = config.render(
        owner=owner_npub,
        relays=tuple(relays),
        mints=tuple(mints),
        port=port,
        name=name,
        services=tuple(services),
    )
    config.parse(text)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    _write_private(home / KEYS, json.dumps({"words": keyring.words}) + "\n")
    _write_private(home / TOKEN, secrets.token_urlsafe(32) + "\n")
    _write_private(home / config.FILE, text)
    agent = keyring.agent("agent").npub
    return Created(home, keyring.words, owner_npub, keyring.operator.npub, keyring.node.npub, agent)


def open_keyring(home: Path) -> Keyring:
    """The keys of a home directory.

    Raises:
        HomeMissing: there are none.
        InvalidInput: the file is readable by others, or damaged.
    """
    path = home / KEYS
    try:
        mode = path.stat().st_mode & 0o077
        body = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HomeMissing(f"There is no {KEYS} in {home}.") from error
    except json.JSONDecodeError as error:
        raise InvalidInput(f"{path} is damaged.", remedy="Restore it from your words.") from error
    if mode:
        raise InvalidInput(f"{path} can be read by others.", remedy=f"Run: chmod 600 {path}")
    if not isinstance(body, dict) or not isinstance(body.get("words"), str):
        raise InvalidInput(f"{path} is damaged.", remedy="Restore it from your words.")
    return Keyring(body["words"])


def read_token(home: Path) -> str:
    """The operator's bearer token.

    Raises:
        HomeMissing: there is none.
    """
    try:
        return (home / TOKEN).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise HomeMissing(f"There is no {TOKEN} in {home}.") from error


class Lock:
    """One node per home: a lock that dies with its process, however that ends."""

    def __init__(self, home: Path) -> None:
        self._path = home / LOCK
        self._handle: int | None = None

    def __enter__(self) -> "Lock":
        """Take it.

        Raises:
            AlreadyRunning: another process has it; its pid is named.
        """
        handle = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            pid = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
            os.close(handle)
            raise AlreadyRunning(f"This node already runs as process {pid}.", pid=pid) from error
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        self._handle = handle
        return self

    def __exit__(self, *_: object) -> None:
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None


def write_control(home: Path, url: str) -> None:
    """Say where the running node listens; replaced whole, so that a reader never sees half of it."""
    draft = home / (CONTROL + ".new")
    draft.write_text(json.dumps({"url": url, "pid": os.getpid()}) + "\n", encoding="utf-8")
    draft.chmod(0o600)
    draft.replace(home / CONTROL)


def clear_control(home: Path) -> None:
    """The node no longer listens."""
    (home / CONTROL).unlink(missing_ok=True)
