"""Changing what a home's words are encrypted with.

What is lost on the way is lost for good, so the order matters: the new passphrase is kept where it will be looked for,
then the file of keys is replaced whole, and read again.
"""

from pathlib import Path
from typing import Any

import tomlkit

from cli.passphrase import choose
from node.config import FILE, load, parse
from node.home import KEYS, lock_keys, open_keyring
from node.identity.keystore import Locked, read_keys, replace_private
from node.identity.passphrase import forget_before, into_keyring


def rekey(home: Path, file: Path | None, keyring: bool, none: bool) -> dict[str, Any]:
    """Encrypt the words, change their passphrase, or take it off.

    Raises:
        WrongPassphrase, PassphraseNeeded: the keys as they are do not open.
        InvalidInput: the new passphrase is not valid.
        Unavailable: the operating system's keyring does not take it.
    """
    ring = open_keyring(home)
    chosen = choose(file, keyring, none)
    log_n = load(home).keys.scrypt_log_n
    if chosen.keyring and chosen.text is not None:
        into_keyring(ring.node.npub, chosen.text)
    lock_keys(home, ring, chosen.text, log_n)
    _name_file(home, chosen.file)
    keys = read_keys(home / KEYS)
    if chosen.keyring:
        forget_before(ring.node.npub)
    locked = isinstance(keys, Locked)
    return {
        "node": ring.node.npub,
        "encrypted": locked,
        "scrypt_log_n": keys.log_n if isinstance(keys, Locked) else None,
    }


def _name_file(home: Path, file: Path | None) -> None:
    """Let `[keys] passphrase_file` name the new file; a name that leads to the old passphrase is taken away."""
    path = home / FILE
    settings = tomlkit.parse(path.read_text(encoding="utf-8"))
    wanted = str(file.absolute()) if file is not None else ""
    section = settings.get("keys")
    if section is None:
        if not wanted:
            return
        section = settings["keys"] = tomlkit.table()
    if section.get("passphrase_file", "") == wanted:
        return
    section["passphrase_file"] = wanted
    text = tomlkit.dumps(settings)
    parse(text)
    replace_private(path, text)
