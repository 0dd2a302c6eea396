"""A home directory: configuration, keys, database, token. Made once, readable by its owner alone.

config.toml    settings, commented
keys.json      the seed words (0600), encrypted unless its owner chose otherwise; all keys derive from them
passphrase     unlocks keys.json (0600), if nothing else was chosen and nobody could be asked; belongs elsewhere
token          the operator's bearer token for the control plane (0600)
curl-auth      the same as a header, for `curl -H @HOME/curl-auth` (0600)
tokens.json    digests of the tokens that were given to others (0600)
node.db        the database; relays' events are never in it
lock           held while the node runs; names the pid
control.json   where the running node listens
"""

import fcntl
import hashlib
import json
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from node import config
from node.error import AlreadyRunning, HomeExists, HomeMissing
from node.identity.keystore import Locked, locked_text, plain_text, read_keys, replace_private, write_private
from node.identity.passphrase import Sources, ask_at_terminal, read_file
from node.market import SellSection
from node.storage.address import OWN_FILE, file_of, is_postgres, with_password
from relays.key import Keyring, new_words, parse_pubkey
from relays.key import npub as to_npub
from relays.nip49 import DEFAULT_LOG_N

KEYS = "keys.json"
PASSPHRASE = "passphrase"  # noqa: S105 - the name of a file
TOKEN = "token"  # noqa: S105 - the name of a file
CURL_AUTH = "curl-auth"
DATABASE = "node.db"
LOCK = "lock"
CONTROL = "control.json"
PASSWORD_VARIABLE = "VENDO_DATABASE_PASSWORD"  # noqa: S105 - the name of a variable
_BOOT = Path("/proc/sys/kernel/random/boot_id")


@dataclass(frozen=True, slots=True)
class Created:
    """A new home. The words are shown once and are the only backup."""

    home: Path
    words: str = field(repr=False)
    owner: str
    operator: str
    node: str
    agent: str


def create(
    home: Path,
    *,
    relays: Sequence[str],
    mints: Sequence[str],
    port: int = 8080,
    owner: str | None = None,
    words: str | None = None,
    name: str = "vendo",
    services: Sequence[SellSection] = (),
    passphrase: str | None = None,
    passphrase_file: Path | None = None,
    log_n: int = DEFAULT_LOG_N,
    database: str = OWN_FILE,
) -> Created:
    """Make a home directory with new keys, or with the keys of given words.

    `passphrase` encrypts the words at rest (NIP-49); None leaves them readable for their owner. `passphrase_file` is
    where the node will find it at its start, if that is a file; it is written if it is not there. `log_n` is what
    trying a passphrase costs, as a power of two: 16 is 64 MiB and 0.3 s. `database` is the URL of `[storage]`.

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
        passphrase_file=str(passphrase_file.absolute()) if passphrase_file is not None else "",
        log_n=log_n,
        database=database,
    )
    config.parse(text)
    keys = plain_text(keyring) if passphrase is None else locked_text(keyring, passphrase, log_n)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    if passphrase is not None and passphrase_file is not None and not passphrase_file.exists():
        write_private(passphrase_file, passphrase + "\n")
    write_private(home / KEYS, keys)
    write_private(home / TOKEN, secrets.token_urlsafe(32) + "\n")
    write_curl_auth(home)
    write_private(home / config.FILE, text)
    agent = keyring.agent("agent").npub
    return Created(home, keyring.words, owner_npub, keyring.operator.npub, keyring.node.npub, agent)


def open_keyring(home: Path, sources: Sources | None = None) -> Keyring:
    """The keys of a home directory; encrypted ones are unlocked by its configured sources, or by those given.

    Raises:
        HomeMissing: there are none.
        InvalidInput: the file is readable by others.
        KeysDamaged: the file is damaged.
        PassphraseNeeded: no source has a passphrase.
        WrongPassphrase: the one that was given is another.
        ConfigInvalid: the configuration, which says where the passphrase is, is wrong.
    """
    keys = read_keys(home / KEYS)
    if isinstance(keys, Locked):
        return (sources or passphrase_sources(home)).unlock(keys)
    return keys.ring()


def passphrase_sources(home: Path) -> Sources:
    """Where this home's passphrase is looked for.

    Raises:
        HomeMissing, ConfigInvalid: as `config.load`.
    """
    section = config.load(home).keys
    file = home / section.passphrase_file if section.passphrase_file else None  # a path from the root stays as it is
    return Sources(section.passphrase_from, file, ask=ask_at_terminal())


def lock_keys(home: Path, keyring: Keyring, passphrase: str | None, log_n: int = DEFAULT_LOG_N) -> None:
    """Write the keys anew, under this passphrase or, with None, readable for their owner.

    Raises:
        InvalidInput: the passphrase is empty, or the cost is out of range; the file stays as it is.
    """
    text = plain_text(keyring) if passphrase is None else locked_text(keyring, passphrase, log_n)
    replace_private(home / KEYS, text)


def database_of(home: Path, section: config.StorageSection) -> str | Path:
    """Where a home's database is: a file, or the URL of a PostgreSQL database with its password in it.

    The password comes from the environment, or else from the file that the setting names.

    Raises:
        InvalidInput: the file cannot be used.
    """
    if not is_postgres(section.url):
        return file_of(section.url, home)
    password = os.environ.get(PASSWORD_VARIABLE, "")
    if not password and section.password_file:
        password = read_file(home / section.password_file, "database password")
    return with_password(section.url, password) if password else section.url


def read_token(home: Path) -> str:
    """The operator's bearer token.

    Raises:
        HomeMissing: there is none.
    """
    try:
        return (home / TOKEN).read_text(encoding="utf-8").strip()
    except FileNotFoundError as error:
        raise HomeMissing(f"There is no {TOKEN} in {home}.") from error


def write_curl_auth(home: Path) -> None:
    """Write the operator's token as the one line of a header, where that is not so already.

    Raises:
        HomeMissing: there is no token.
    """
    path, text = home / CURL_AUTH, f"Authorization: Bearer {read_token(home)}\n"
    try:
        if path.read_text(encoding="utf-8", errors="replace") == text:
            if path.stat().st_mode & 0o077:
                path.chmod(0o600)
            return
    except FileNotFoundError:
        pass
    replace_private(path, text)


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

    @property
    def name(self) -> str:
        """Names this very lock, as long as this machine runs: whoever holds it knows that others who did are dead."""
        assert self._handle is not None
        facts = os.fstat(self._handle)
        try:
            machine = _BOOT.read_text(encoding="ascii").strip()
        except OSError:  # then nobody is known to be dead, and a lease is waited for
            machine = secrets.token_hex(16)
        return hashlib.sha256(f"{machine} {facts.st_dev} {facts.st_ino}".encode()).hexdigest()[:32]

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
