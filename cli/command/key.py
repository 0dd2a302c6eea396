"""`vendo key …`: who the node and its agents are, and their keys at rest.

What shows or changes identities asks the running node. What touches secrets works on the home itself and needs its
passphrase: the operator's token alone gets no secret out of a node.
"""

import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import Output
from cli.passphrase import NewFileOption, NewKeyringOption, NoneOption, choose

app = typer.Typer(no_args_is_help=True, help="Identities, and keys at rest.")

_BASE = "/agents/node/identity"
_CALL_S, _LOOK_S = 120.0, 0.5

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="The identity's name: an agent's, as a rule.")]
EpochOption = Annotated[int | None, typer.Option("--epoch", min=0, help="Which of its keys; the newest by itself.")]


@app.command("list")
def list_keys(home: HomeOption, json_mode: JsonOption = False) -> None:
    """Every identity and its keys, without secrets."""
    out = Output(json_mode=json_mode)
    rows = Client.open(home).get(f"{_BASE}/keys")
    names = ("name", "role", "source", "state", "epoch", "npub")
    out.rows(rows, names, [[row[one] for one in names] for row in rows], "There are none.")


@app.command()
def show(name: NameArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """One identity: its keys, its profile, its relays."""
    Output(json_mode=json_mode).answer(Client.open(home).get(f"{_BASE}/keys/{name}"))


@app.command()
def new(
    name: NameArgument,
    home: HomeOption,
    epoch: EpochOption = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """A new identity with a key from the seed words."""
    body: dict[str, Any] = {"name": name} | ({} if epoch is None else {"epoch": epoch})
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_BASE}/new", body, key=out.key(key)))


@app.command("import")
def import_key(
    name: NameArgument,
    home: HomeOption,
    file: Annotated[Path, typer.Option("--file", help="Holds nsec, hex or ncryptsec; - is standard input.")] = Path(
        "-"
    ),
    passphrase_file: Annotated[
        Path | None, typer.Option("--passphrase-file", help="What opens an ncryptsec (NIP-49).")
    ] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """A new identity with a key from elsewhere; the seed words will not bring it back."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    body = {"name": name, "secret": _secret(file, passphrase_file)}
    out.answer(client.call(f"{_BASE}/import", body, key=out.key(key)))


def _secret(file: Path, passphrase_file: Path | None) -> str:
    from node.identity.error import PassphraseNeeded
    from node.identity.passphrase import ask_at_terminal, read_file
    from relays.nip49 import decrypt_key

    text = (sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")).strip()
    if not text.lower().startswith("ncryptsec"):
        return text
    if passphrase_file is not None:
        return decrypt_key(text, read_file(passphrase_file)).nsec
    ask = ask_at_terminal()
    if ask is None or str(file) == "-":
        raise PassphraseNeeded("The key is encrypted.", remedy="Name the file of its passphrase: --passphrase-file.")
    return decrypt_key(text, ask("Passphrase of the key: ")).nsec


@app.command()
def bunker(
    name: NameArgument,
    home: HomeOption,
    file: Annotated[
        Path | None, typer.Option("--file", help="Holds the signer's bunker:// address; - is standard input.")
    ] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """A new identity whose key a remote signer holds (NIP-46); without --file it shows an address for the signer."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    if file is not None:
        text = sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")
        used = out.key(key)
        with out.waiting("Asking the signer…"):
            answer = client.call(f"{_BASE}/bunker", {"name": name, "uri": text.strip()}, key=used)
        out.answer(answer)
        return
    uri = client.call(f"{_BASE}/bunker", {"name": name}, key=out.key(key))["uri"]
    out.note(f"Give this address to your signer within {_CALL_S:.0f} s:")
    out.note(uri)
    deadline = time.monotonic() + _CALL_S
    with out.waiting("Waiting for the signer…"):
        while time.monotonic() < deadline:
            rows = [row for row in client.get(f"{_BASE}/keys") if row["name"] == name and row["state"] == "active"]
            if rows:
                out.answer(rows[0])
                return
            time.sleep(_LOOK_S)
    raise _no_call()


def _no_call() -> Exception:
    from relays.error import SignerUnavailable

    return SignerUnavailable("No signer called.")


@app.command()
def rotate(
    name: NameArgument,
    home: HomeOption,
    lost: Annotated[
        bool, typer.Option("--lost", help="The old key cannot sign any more: nobody hears it from it.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option("--file", help="Holds the new key (nsec, hex) or a bunker:// address; - is stdin.")
    ] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Give an agent a new key: both keys sign that, contacts are told, lists are published anew."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    body: dict[str, Any] = {"name": name} | ({"lost": True} if lost else {})
    if file is not None:
        text = (sys.stdin.readline() if str(file) == "-" else file.read_text(encoding="utf-8")).strip()
        body |= {"bunker": text} if text.startswith("bunker:") else {"secret": text}
    answer = client.call(f"{_BASE}/rotate", body, key=out.key(key))
    out.answer(answer)
    if answer["state"] == "begun":
        out.note("It has begun and goes on by itself; the node's log says what it waits for.")


@app.command()
def retire(name: NameArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Give an identity up that no agent speaks with; its name never gets the same key again."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_BASE}/retire", {"name": name}, key=out.key(key)))


@app.command()
def lookup(
    address: Annotated[str, typer.Argument(metavar="ADDRESS", help="NAME@DOMAIN, or a domain.")],
    home: HomeOption,
    json_mode: JsonOption = False,
) -> None:
    """Whom a domain names now (NIP-05): a hint from whoever holds the domain, and no proof of more."""
    Output(json_mode=json_mode).answer(Client.open(home).call(f"{_BASE}/lookup", {"address": address}))


@app.command()
def export(
    name: NameArgument,
    home: HomeOption,
    epoch: EpochOption = None,
    reveal: Annotated[bool, typer.Option("--reveal", help="As nsec, which anybody can use who sees it.")] = False,
    passphrase_file: NewFileOption = None,
    json_mode: JsonOption = False,
) -> None:
    """A key for a backup, encrypted (ncryptsec, NIP-49); works on the home itself and asks for its passphrase."""
    from node.config import load
    from node.home import open_keyring
    from relays.nip49 import encrypt_key

    out = Output(json_mode=json_mode)
    found = _key(home, open_keyring(home), name, epoch)
    answer = {"name": name, "npub": found.npub}
    if reveal:
        out.note("Whoever sees the nsec is this identity.")
        out.answer(answer | {"nsec": found.nsec})
        return
    chosen = choose(passphrase_file, False, False)
    assert chosen.text is not None, "a file, the environment or a person gave one"
    out.answer(answer | {"ncryptsec": encrypt_key(found, chosen.text, load(home).keys.scrypt_log_n)})


def _key(home: Path, ring: Any, name: str, epoch: int | None) -> Any:
    from node.config import load
    from node.home import database_of
    from node.identity.error import IdentityUnknown
    from node.identity.registry import key_of
    from node.storage.archive import read_identities

    if name in ("node", "operator"):
        return ring.node if name == "node" else ring.operator
    database = database_of(home, load(home).storage)
    rows = [] if isinstance(database, Path) and not database.exists() else read_identities(database)
    found = [row for row in rows if row["name"] == name and (row["epoch"] == epoch or epoch is None)]
    wanted = [row for row in found if epoch is not None or row["state"] == "active"]
    if not wanted:
        raise IdentityUnknown(f"There is no such key of {name!r} in {home}.")
    return key_of(wanted[-1], ring)


@app.command()
def encrypt(
    home: HomeOption,
    passphrase_file: NewFileOption = None,
    passphrase_keyring: NewKeyringOption = False,
    no_passphrase: NoneOption = False,
    json_mode: JsonOption = False,
) -> None:
    """Encrypt the seed words of a home, or change their passphrase; the one before is asked for first."""
    from cli.rekey import rekey

    Output(json_mode=json_mode).answer(rekey(home, passphrase_file, passphrase_keyring, no_passphrase))
