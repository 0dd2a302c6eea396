"""`vendo init` and `vendo up`: make a node, run a node."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from cli.option import HomeOption, JsonOption
from cli.output import Output
from cli.passphrase import NewFileOption, NewKeyringOption, NoneOption, choose
from node.storage.address import OWN_FILE

_PORT = 8080
_RELAYS = ("wss://relay.damus.io", "wss://nos.lol")

RelayOption = Annotated[list[str] | None, typer.Option("--relay", help="A relay's address; give it again for more.")]
MintsOption = Annotated[list[str] | None, typer.Option("--mint", help="A Cashu mint to trust; again for more.")]
PortOption = Annotated[
    int | None, typer.Option("--port", min=0, max=65535, help="The control plane's port; 0: any free one.")
]
SellOption = Annotated[
    list[str] | None, typer.Option("--sell", help="A service for sale, KIND:PRICE_MSAT:PROVIDER; again for more.")
]
WordsOption = Annotated[
    Path | None, typer.Option("--words", help="A file with the seed words of a lost node; - reads standard input.")
]
DatabaseOption = Annotated[
    str, typer.Option("--database", help="Where the database is: sqlite:///FILE, or postgresql://USER@HOST/DATABASE.")
]
JoinOption = Annotated[
    Path | None, typer.Option("--join", help="A home of a node on PostgreSQL: one more process for it, with its keys.")
]
OwnerOption = Annotated[str | None, typer.Option("--owner", help="Whose DMs are answered (npub or hex).")]


def init(
    home: HomeOption,
    relay: RelayOption = None,
    mint: MintsOption = None,
    port: PortOption = None,
    owner: OwnerOption = None,
    name: Annotated[str, typer.Option("--name", help="The node's public name.")] = "vendo",
    sell: SellOption = None,
    words: WordsOption = None,
    database: DatabaseOption = OWN_FILE,
    join: JoinOption = None,
    passphrase_file: NewFileOption = None,
    passphrase_keyring: NewKeyringOption = False,
    no_passphrase: NoneOption = False,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    json_mode: JsonOption = False,
) -> None:
    """Make a node: encrypted keys, seed words (shown once), spending limits, a commented config.toml."""
    from node.config import FILE
    from node.error import HomeExists
    from node.home import KEYS, PASSPHRASE, create
    from node.identity.passphrase import into_keyring
    from node.market import parse_service
    from relays.key import Keyring, new_words

    out = Output(json_mode=json_mode)
    if join is not None:
        return _join(out, home, join, port)
    relays = tuple(relay or _RELAYS)
    if not (yes or json_mode) and sys.stdin.isatty():
        typer.confirm(f"Make a node in {home}, on {', '.join(relays)}?", default=True, abort=True, err=True)
    services = [parse_service(text) for text in sell or ()]
    seed = new_words()
    if words is not None:
        seed = sys.stdin.read() if str(words) == "-" else words.read_text(encoding="utf-8")
    if (home / KEYS).exists() or (home / FILE).exists():
        raise HomeExists(f"{home} already holds a node.")  # before a passphrase is made or asked for
    may_ask = not (yes or json_mode)
    chosen = choose(passphrase_file, passphrase_keyring, no_passphrase, may_ask=may_ask, spare=home / PASSPHRASE)
    if chosen.keyring and chosen.text is not None:
        into_keyring(Keyring(seed).node.npub, chosen.text)
    made = create(
        home, relays=relays, mints=tuple(mint or ()), port=_PORT if port is None else port, owner=owner, name=name,
        services=services, words=seed, passphrase=chosen.text, passphrase_file=chosen.file, database=database,
    )  # fmt: skip
    answer = {
        "home": str(made.home),
        "npub": made.node,
        "agent": made.agent,
        "operator": made.operator,
        "owner": made.owner,
        "words": made.words,
    }
    out.answer(answer)
    if json_mode:
        return
    out.note("The words are shown this once. They are the only backup of keys and money: write them down.")
    if chosen.text is None:
        out.note(f"The keys are not encrypted: whoever reads {made.home / KEYS} has them. Later: vendo key encrypt")
    if chosen.file == home / PASSPHRASE:
        out.note(f"A passphrase was made in {chosen.file}: keep it elsewhere, or whoever reads the home has all.")
    if owner is None:
        out.note("No --owner was given: only the operator key of these words can send the agent DMs.")
    if words is not None:
        out.note("If a node with these words was lost: start this one, then `vendo wallet restore`, before it spends.")
    if not mint:
        out.note("No --mint was given: the node can sell for free and use built-in providers, but not pay.")
    out.note(f"Limits and everything else: {made.home / 'config.toml'}. Start it: vendo up --home {made.home}")


def _join(out: Output, home: Path, beside: Path, port: int | None) -> None:
    """`vendo init --join`: a home for one more process of a node."""
    from node.share.offshoot import join

    made = join(home, beside, port or 0)
    out.answer({"home": str(home), "beside": str(beside)})
    if made.relay_left:
        out.note(f"The node's own relay stays with {beside}: [relay] enabled is false here.")
    out.note(f"One more process for the same node. Start it: vendo up --home {home}")


def up(
    home: HomeOption,
    insecure_loopback: Annotated[
        bool, typer.Option("--insecure-loopback", help="Nobody on this machine needs a token; not with money.")
    ] = False,
    json_mode: JsonOption = False,
) -> int:
    """Run the node until SIGTERM; prints one JSON line when it is ready."""
    del json_mode  # the line is JSON either way
    from node.launch import serve

    return serve(home, insecure=insecure_loopback)
