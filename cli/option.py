"""Options that many commands share, so that they are spelled and explained the same everywhere."""

from pathlib import Path
from typing import Annotated, TypeAlias

import platformdirs
import typer

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
