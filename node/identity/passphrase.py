"""Where the passphrase of a node's keys comes from: environment, file, the operating system's keyring, or a terminal.

The first source that has one gives it, in the order of `[keys] passphrase_from`. A source that gives a wrong one is
told by name and no other is tried: the operator meant that one. Only a person at a terminal may try again.
"""

import ctypes
import getpass
import os
import resource
import secrets
import sys
from collections.abc import Callable, Mapping, MutableMapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from core.error import InvalidInput, Unavailable
from node.identity.error import PassphraseNeeded
from node.identity.keystore import Locked, write_private
from relays.error import WrongPassphrase
from relays.key import Keyring

VARIABLE = "VENDO_PASSPHRASE"
LENT = "CREDENTIALS_DIRECTORY"  # where systemd puts credentials of this process (systemd.exec(5))
CREDENTIAL = "vendo-passphrase"  # the name of a systemd credential (LoadCredential=, LoadCredentialEncrypted=)
SERVICE = "vendo"  # the name under which an operating system's keyring has it
_PR_SET_DUMPABLE = 4
_BEFORE = " before"
_TRIES = 3
_MAX_BYTES = 4_096

Ask = Callable[[str], str]


def shield(environ: MutableMapping[str, str] = os.environ) -> None:
    """For the process that holds the keys: nothing that it starts gets the passphrase, and a crash leaves no core.

    Also where the passphrase was not needed, or came from elsewhere. `environ.pop` does not reach what the process was
    started with: that stays in /proc, for every process of the same user. On Linux the process is therefore made one
    that only root can look into (prctl(2), PR_SET_DUMPABLE); what it starts is readable again.
    """
    environ.pop(VARIABLE, None)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def ask_at_terminal() -> Ask | None:
    """What asks a person, if one is there."""
    return getpass.getpass if sys.stdin.isatty() else None


@dataclass(frozen=True, slots=True)
class Sources:
    """Where to look, and in which order.

    Attributes:
        order: of `environment`, `file`, `keyring`, `prompt`; the others are not asked.
        file: the file of the setting `passphrase_file`, or None.
        environ: the process's environment; the variable is removed from it when it was read.
        ask: asks a person; None if there is none.
    """

    order: Sequence[str]
    file: Path | None = None
    environ: MutableMapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    ask: Ask | None = None

    def unlock(self, keys: Locked) -> Keyring:
        """Open the keys with the first passphrase that is to be had.

        Raises:
            PassphraseNeeded: no source has one.
            WrongPassphrase: the one that was given is not it.
            InvalidInput: a file cannot be used.
            KeysDamaged: the file of keys is not whole.
        """
        for name in self.order:
            if name == "prompt":
                if self.ask is not None:
                    return _asked(keys, self.ask)
                continue
            found = self._from(name, keys.node)
            if found is not None:
                return _opened(keys, found, name, from_keyring(keys.node + _BEFORE) if name == "keyring" else None)
        raise PassphraseNeeded

    def _from(self, name: str, node: str) -> str | None:
        if name == "environment":
            return self.environ.pop(VARIABLE, None) or None
        if name == "file":
            return self._file()
        return from_keyring(node)

    def _file(self) -> str | None:
        if self.file is not None:
            return read_file(self.file, environ=self.environ)
        folder = self.environ.get(LENT)
        credential = Path(folder) / CREDENTIAL if folder else None
        return read_file(credential, environ=self.environ) if credential is not None and credential.exists() else None


def _opened(keys: Locked, passphrase: str, name: str, before: str | None) -> Keyring:
    try:
        return keys.ring(passphrase)
    except WrongPassphrase as error:
        if before is not None:  # a change of the passphrase ended before the file was replaced
            ring = _opened(keys, before, name, None)
            _take_back(keys.node, before)
            return ring
        raise WrongPassphrase(f"The passphrase from the {name} does not open the keys.") from error


def _asked(keys: Locked, ask: Ask) -> Keyring:
    for left in reversed(range(_TRIES)):
        try:
            return keys.ring(ask("Passphrase: "))
        except WrongPassphrase:
            if not left:
                raise
    raise AssertionError("a try ends it")


def ask_new(ask: Ask) -> str:
    """A new passphrase, asked for twice.

    Raises:
        InvalidInput: it is empty, or the two differ.
    """
    first = ask("New passphrase for the keys: ")
    if not first:
        raise InvalidInput("The passphrase is empty.", remedy="Or say --no-passphrase.")
    if first != ask("The same again: "):
        raise InvalidInput("The two passphrases differ.", remedy="Try again.")
    return first


def read_file(path: Path, what: str = "passphrase", *, environ: Mapping[str, str] = os.environ) -> str:
    """The first line of a private file that holds a secret of this name.

    systemd lets a service's user in by an access list, which shows as if the group might read (0440, from version 254
    on): that is taken in the folder that it lends to this process, which nobody else can enter.

    Raises:
        InvalidInput: it is not there, empty, too long, not text, or others can read it.
    """
    try:
        others = 0o037 if str(path.parent) == environ.get(LENT) else 0o077
        if path.stat().st_mode & others:
            raise InvalidInput(f"{path} can be read by others.", remedy=f"Run: chmod 600 {path}")
        with path.open("rb") as file:
            raw = file.read(_MAX_BYTES + 1)
        text = raw.decode().partition("\n")[0].removesuffix("\r")
    except OSError as error:
        raise InvalidInput(f"The {what}'s file {path} cannot be read: {error.strerror}.") from error
    except UnicodeDecodeError as error:
        raise InvalidInput(f"The {what}'s file {path} is not UTF-8 text.") from error
    if not text or len(raw) > _MAX_BYTES:
        raise InvalidInput(f"The {what}'s file {path} is empty or longer than {_MAX_BYTES} bytes.")
    return text


def make_file(path: Path) -> str:
    """A random passphrase in a new private file."""
    text = secrets.token_urlsafe(24)
    write_private(path, text + "\n")
    return text


def from_keyring(node: str) -> str | None:
    """What the operating system's keyring has for a node; None if it has nothing, or if there is no keyring here."""
    import keyring
    from keyring.errors import KeyringError

    try:
        return keyring.get_password(SERVICE, node) or None
    except KeyringError:
        return None


def into_keyring(node: str, passphrase: str) -> None:
    """Keep a node's passphrase in the operating system's keyring, and the one before beside it: it may be nowhere else.

    Raises:
        Unavailable: there is no keyring here, or it refuses.
    """
    import keyring
    from keyring.errors import KeyringError

    try:
        if before := keyring.get_password(SERVICE, node):
            keyring.set_password(SERVICE, node + _BEFORE, before)
        keyring.set_password(SERVICE, node, passphrase)
    except KeyringError as error:
        remedy = "Keep the passphrase in a file instead, or type it."
        raise Unavailable("The operating system's keyring does not take the passphrase.", remedy=remedy) from error


def _take_back(node: str, before: str) -> None:
    """The passphrase before is the right one again."""
    import keyring
    from keyring.errors import KeyringError

    with suppress(KeyringError):
        keyring.set_password(SERVICE, node, before)
        forget_before(node)


def forget_before(node: str) -> None:
    """The new passphrase opens the keys: the one before is not kept any longer."""
    import keyring
    from keyring.errors import KeyringError

    with suppress(KeyringError):
        if keyring.get_password(SERVICE, node + _BEFORE):
            keyring.delete_password(SERVICE, node + _BEFORE)
