"""The passphrase that a person chooses for keys at rest: of a file, of the environment, a typed one, or none."""

import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from core.error import InvalidInput

NewFileOption = Annotated[
    Path | None,
    typer.Option("--passphrase-file", help="Encrypt the keys with this file's first line; made if it is not there."),
]
NewKeyringOption = Annotated[
    bool, typer.Option("--passphrase-keyring", help="A random passphrase, kept in the operating system's keyring.")
]
NoneOption = Annotated[bool, typer.Option("--no-passphrase", help="Leave the keys readable for their owner.")]


@dataclass(frozen=True, slots=True, repr=False)
class Chosen:
    """What was chosen. `text` None: no encryption. `keyring`: it must be put there before anything is encrypted."""

    text: str | None
    file: Path | None = None
    keyring: bool = False


def choose(file: Path | None, keyring: bool, none: bool, *, may_ask: bool = True, spare: Path | None = None) -> Chosen:
    """The passphrase that the options name; without any of them the environment's, or a person is asked.

    `spare` is the file for a random one where nobody can be asked (`node.home.create` writes it), so that a script
    never makes readable keys by saying nothing.

    Raises:
        InvalidInput: more than one was named, or the file cannot be used.
        PassphraseNeeded: none was named, and there is nobody to ask.
    """
    from node.identity.error import PassphraseNeeded
    from node.identity.passphrase import VARIABLE, ask_at_terminal, ask_new, make_file, read_file

    if (file is not None) + keyring + none > 1:
        raise InvalidInput("Choose one of --passphrase-file, --passphrase-keyring and --no-passphrase.")
    if none:
        return Chosen(None)
    if file is not None:
        return Chosen(read_file(file) if file.exists() else make_file(file), file)
    if keyring:
        return Chosen(secrets.token_urlsafe(24), keyring=True)
    if text := os.environ.pop(VARIABLE, ""):
        return Chosen(text)
    ask = ask_at_terminal() if may_ask else None
    if ask is None and spare is not None:
        return Chosen(read_file(spare) if spare.exists() else secrets.token_urlsafe(24), spare)
    if ask is None:
        raise PassphraseNeeded(
            "Nothing says how the keys are to be encrypted.",
            remedy=f"Name --passphrase-file or --passphrase-keyring, set {VARIABLE}, or say --no-passphrase.",
        )
    return Chosen(ask_new(ask))
