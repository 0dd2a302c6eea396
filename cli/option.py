"""Options that many commands share, so that they are spelled and explained the same everywhere."""

from pathlib import Path
from typing import Annotated, TypeAlias

import platformdirs
import typer

from cli.completion import agent_names, tree_owners, tree_paths

HomeOption: TypeAlias = Annotated[
    Path,
    typer.Option(
        "--home",
        envvar="VENDO_HOME",
        help="The node's home directory.",
        default_factory=lambda: Path(platformdirs.user_data_dir("vendo")),
        show_default="the platform's data directory",
        file_okay=False,
    ),
]
JsonOption: TypeAlias = Annotated[bool, typer.Option("--json", help="Answer with JSON alone.")]
KeyOption: TypeAlias = Annotated[
    str | None,
    typer.Option("--key", help="Idempotency key: the same key and request never happen twice."),
]
MintOption: TypeAlias = Annotated[
    str | None, typer.Option("--mint", help="The mint's address; needed if the node has several.")
]
NameArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="NAME", help="The agent's name.", autocompletion=agent_names)
]
PathArgument: TypeAlias = Annotated[
    str, typer.Argument(metavar="PATH", help="A path in the tree, e.g. /compute/jobs.", autocompletion=tree_paths)
]
AgentOption: TypeAlias = Annotated[
    str, typer.Option("--agent", help="Whose tree; `node` is the operator's own.", autocompletion=tree_owners)
]
BodyArgument: TypeAlias = Annotated[str, typer.Argument(metavar="BODY", help="Text, @FILE, or - for standard input.")]
