"""`vendo config`: every setting that holds, where it comes from, and what is wrong with `config.toml`."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cli.client import CONTROL
from cli.option import HomeOption, JsonOption
from cli.output import ExitCode, Output, plain

if TYPE_CHECKING:
    from cli.setting import Setting
    from node.config import Config

app = typer.Typer(help="Settings: show what holds, check config.toml.", no_args_is_help=True)

OriginOption = Annotated[
    bool, typer.Option("--origin", help="And where each comes from: config.toml and its line, or the default.")
]
_SOURCES = {"COMMANDLINE": "command line (--home)", "ENVIRONMENT": "environment variable VENDO_HOME"}


@app.command()
def show(context: typer.Context, home: HomeOption, origin: OriginOption = False, json_mode: JsonOption = False) -> None:
    """Every setting with its value, as the next start takes it; secrets are not shown."""
    from cli.setting import faults, settings
    from node.config import parse
    from node.error import ConfigInvalid

    out, text = Output(json_mode=json_mode), _text(home)
    if wrong := faults(text):
        raise ConfigInvalid(f"{wrong[0]}.", remedy=f"See all of it: vendo config check --home {home}")
    config = parse(text)
    found = [*_outside(home, context, config), *settings(config, text)]
    names = ("setting", "value", "origin") if origin else ("setting", "value")
    value = [_shown(one, origin=origin) for one in found]
    out.rows(value, names, ((one.name, plain(one.value), one.origin)[: len(names)] for one in found), "")
    if not json_mode and _is_newer(home):
        out.note("config.toml was changed since the node was started: what is new takes effect at the next start.")


def _shown(one: "Setting", *, origin: bool) -> dict[str, Any]:
    value = {"name": one.name, "value": one.value}
    return value | {"origin": one.origin, "line": one.line} if origin else value


def _outside(home: Path, context: typer.Context, config: "Config") -> Iterator["Setting"]:
    """What is said elsewhere than in config.toml. Of secrets only that they are there."""
    from cli.setting import DEFAULT, HIDDEN, Setting
    from node.home import PASSWORD_VARIABLE
    from node.identity.passphrase import VARIABLE
    from node.storage.address import is_postgres

    source = context.get_parameter_source("home")
    yield Setting("home", str(home), _SOURCES.get(source.name if source is not None else "", DEFAULT))
    if is_postgres(config.storage.url) and os.environ.get(PASSWORD_VARIABLE):
        yield Setting("storage.password", HIDDEN, f"environment variable {PASSWORD_VARIABLE}")
    if os.environ.get(VARIABLE) and "environment" in config.keys.passphrase_from:
        yield Setting("keys.passphrase", HIDDEN, f"environment variable {VARIABLE}")


@app.command()
def check(home: HomeOption, json_mode: JsonOption = False) -> int:
    """Check config.toml as a start would: each thing that is wrong with its line; 78 if there is any."""
    from cli.setting import faults

    out, found = Output(json_mode=json_mode), faults(_text(home))
    out.answer(
        {"ok": not found, "faults": [one.to_dict() for one in found]},
        "\n".join(map(str, found)) or "config.toml is in order.",
    )
    return ExitCode.CONFIG if found else ExitCode.OK


def _text(home: Path) -> str:
    from node.config import FILE
    from node.error import ConfigInvalid, HomeMissing

    try:
        return (home / FILE).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise HomeMissing(f"There is no {FILE} in {home}.") from error
    except UnicodeDecodeError as error:
        raise ConfigInvalid(f"{FILE} is not UTF-8 text.") from error


def _is_newer(home: Path) -> bool:
    """Whether the settings were changed after the running node had read them."""
    from node.config import FILE

    try:
        return (home / FILE).stat().st_mtime > (home / CONTROL).stat().st_mtime
    except OSError:
        return False
