"""A further home for the same node, for one more process on its PostgreSQL database: same keys, same settings.

What belongs to one process alone is its own: the control plane's port and token, and the embedded relay stays where it
is. Programs in files are copied; whoever changes one changes it in every home.
"""

import secrets
from dataclasses import dataclass
from pathlib import Path

import tomlkit

from node import config
from node.error import ConfigInvalid, HomeExists, HomeMissing
from node.home import KEYS, TOKEN
from node.identity.keystore import write_private
from node.storage.address import is_postgres

PROGRAMS = "agents"
_FILES = (("keys", "passphrase_file"), ("storage", "password_file"), ("lightning", "nwc_file"))


@dataclass(frozen=True, slots=True)
class Joined:
    """A home that was made beside another one."""

    home: Path
    beside: Path
    port: int
    relay_left: bool


def join(home: Path, beside: Path, port: int = 0) -> Joined:
    """Make a home for one more process.

    Args:
        home: the new one.
        beside: a home of the node, or a copy of one from another machine.
        port: the new process's control plane; 0 takes a free one.

    Raises:
        HomeExists: there is a node in the new home already.
        HomeMissing: there is none in the other one.
        ConfigInvalid: the node's database is a file, which takes one process only.
    """
    if (home / KEYS).exists() or (home / config.FILE).exists():
        raise HomeExists(f"{home} already holds a node.")
    before = config.load(beside)
    if not is_postgres(before.storage.url):
        raise ConfigInvalid(
            f"The node in {beside} keeps its data in a file, which one process uses.",
            remedy="Several processes share a node whose [storage] url is a PostgreSQL database.",
        )
    try:
        keys = (beside / KEYS).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise HomeMissing(f"There is no {KEYS} in {beside}.") from error
    settings = tomlkit.parse((beside / config.FILE).read_text(encoding="utf-8"))
    settings["node"]["port"] = port
    for section, name in _FILES:
        if named := settings.get(section, {}).get(name, ""):
            settings[section][name] = str((beside / str(named)).absolute())
    if before.relay.enabled:
        settings["relay"]["enabled"] = False
    text = tomlkit.dumps(settings)
    config.parse(text)
    home.mkdir(parents=True, exist_ok=True)
    home.chmod(0o700)
    write_private(home / KEYS, keys)
    write_private(home / TOKEN, secrets.token_urlsafe(32) + "\n")
    write_private(home / config.FILE, text)
    _copy_programs(beside / PROGRAMS, home / PROGRAMS)
    return Joined(home, beside, port, before.relay.enabled)


def _copy_programs(there: Path, here: Path) -> None:
    sources = sorted(path for path in there.glob("*.py") if path.is_file() and not path.is_symlink())
    if sources:
        here.mkdir(mode=0o700)
    for source in sources:
        write_private(here / source.name, source.read_text(encoding="utf-8"))
