"""The home directory: whose it is, who can read its secrets, whether a node runs in it, how full its disk is."""

import fcntl
import json
import os
import pwd
import shutil
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from cli.checkup.finding import Check, State, fail, ok, warn
from core.error import VendoError
from node.backup.memo import last_backup
from node.home import CONTROL, DATABASE, KEYS, LOCK, PASSPHRASE, TOKEN
from node.identity.keystore import Locked, read_keys

NEEDED = (KEYS, TOKEN)
PRIVATE = (*NEEDED, "curl-auth", PASSPHRASE, CONTROL)
_MEGABYTE, _DAY_S = 1 << 20, 86_400
_ROOM_WARN, _FILES_WARN, _BACKUP_WARN_S, _AHEAD_S = 512 << 20, 1_000, 7 * _DAY_S, 60


@dataclass(frozen=True, slots=True)
class Running:
    """What the lock and `control.json` say: the pid of who holds the lock, and where it says that it listens."""

    pid: str = ""
    url: str = ""
    said_by: str = ""
    left: bool = False


def home_checks(home: Path) -> list[Check]:
    """Whose it is, and whose its secrets are."""
    if not home.is_dir():
        return [fail("home", f"There is no {home}.", f"Run: vendo init --home {home}")]
    owner = _owner(home)
    return [owner] if owner.state is State.FAIL else [owner, *_secrets(home)]


def is_ours(home: Path) -> bool:
    """Whether what is made in it belongs to the user that the node runs as; else nothing may be made."""
    return home.stat().st_uid == os.geteuid()


def _owner(home: Path) -> Check:
    facts = home.stat()
    if facts.st_uid != os.geteuid():
        said = f"{home} belongs to {_user(facts.st_uid)}, and this command runs as {_user(os.geteuid())}."
        fix = f"Run: sudo -u '#{facts.st_uid}' vendo doctor --home {home}"
        return warn("home", said, fix) if os.geteuid() == 0 else fail("home", said, fix)
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        return fail("home", f"{home} cannot be written by this user.", f"Run: chmod u+rwx {home}")
    if facts.st_mode & 0o077:
        return warn("home", f"{home} is open to other users.", f"Run: chmod 700 {home}")
    for folder in home.resolve().parents:
        mode = folder.stat().st_mode
        if mode & stat.S_IWOTH and not mode & stat.S_ISVTX:
            said = f"Everybody may write in {folder}, and so put another home in the place of this one."
            return warn("home", said, f"Run: sudo chmod o-w {folder}")
    return ok("home", f"{home} is this user's alone.")


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def _secrets(home: Path) -> Iterator[Check]:
    yield _keys(home)
    wrong = 0
    for name in PRIVATE:
        try:
            facts = (home / name).stat()
        except FileNotFoundError:
            if name in NEEDED:
                wrong += 1
                yield fail(name, f"There is no {home / name}.", _remake(home, name))
            continue
        if facts.st_mode & 0o077:
            wrong += 1
            yield fail(name, f"{home / name} is open to other users.", f"Run: chmod 600 {home / name}")
        elif facts.st_uid != home.stat().st_uid:
            wrong += 1
            said = f"{home / name} belongs to {_user(facts.st_uid)}, and the home to {_user(home.stat().st_uid)}."
            yield fail(name, said, f"Run: sudo chown --reference={home} {home / name}")
    if not wrong:
        yield ok("secrets", "Token, keys and what else is secret are their owner's alone.")


def _remake(home: Path, name: str) -> str:
    if name == KEYS:
        return f"Run: vendo restore FILE --replace --home {home}"
    return f"Run: (umask 077; openssl rand -hex 32 > {home / name})"


def _keys(home: Path) -> Check:
    """Without the passphrase: asking for it is for `up`."""
    try:
        keys = read_keys(home / KEYS)
        if isinstance(keys, Locked):
            return ok("keys", f"The words are encrypted (scrypt, 2^{keys.log_n}).")
        keys.ring()
    except VendoError as error:
        return fail("keys", error.message, error.advice)
    except OSError as error:
        return fail("keys", f"{home / KEYS} cannot be read: {error.strerror}.", f"Run: ls -l {home}")
    detail = "The words are there and valid, and readable for whoever can read the file."
    return ok("keys", detail, f"To encrypt them: vendo key encrypt --home {home}")


# ---- the process


def running(home: Path) -> Running:
    """Who holds the lock. Nothing is made, and it is held for no longer than it takes to see that nobody has it.

    Raises:
        OSError: the lock cannot be opened.
    """
    pid = ""
    try:
        handle = os.open(home / LOCK, os.O_RDONLY)
    except FileNotFoundError:
        return Running(left=(home / CONTROL).exists())
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        pid = os.read(handle, 32).decode(errors="replace").strip() or "unknown"
    finally:
        os.close(handle)
    try:
        body = json.loads((home / CONTROL).read_text(encoding="utf-8"))
        return Running(pid, str(body["url"]), str(body["pid"]), left=not pid)
    except FileNotFoundError:
        return Running(pid)
    except (OSError, ValueError, KeyError, TypeError):
        return Running(pid, left=True)


def process(home: Path, found: Running) -> Check:
    """Whether a node runs, and what an earlier one has left."""
    if not found.pid:
        detail = "The node is not running" + (" (it ended without a goodbye)." if found.left else ".")
        return warn("process", detail, f"Run: vendo up --home {home}")
    said = f"This node runs as process {found.pid}."
    if not found.url:
        return warn("process", f"{said} It does not listen yet.", f"Wait, and run: vendo doctor --home {home}")
    if found.said_by != found.pid:
        detail = f"{said} It does not listen yet: {CONTROL} is of process {found.said_by}, which has ended."
        return warn("process", detail, f"Wait, and run: vendo doctor --home {home}")
    return ok("process", f"{said} It listens at {found.url}.")


# ---- the disk, the clock's traces, the last backup


def disk(places: Sequence[Path], min_free: int) -> list[Check]:
    """Room where the node writes, measured by its own limit (`[disk]`): below it the node begins nothing new."""
    found = []
    for place in places:
        name = "disk" if place == places[0] else f"disk of {place}"
        free, facts = shutil.disk_usage(place).free, os.statvfs(place)
        detail, fix = f"{free // _MEGABYTE} MiB free at {place}.", f"Free some space: vendo gc; df -h {place}"
        if facts.f_flag & os.ST_RDONLY:
            found.append(fail(name, f"{place} is on a file system that takes no writes.", f"Run: findmnt -T {place}"))
        elif free < max(min_free, 1):
            limit = f" The node begins nothing new below {min_free // _MEGABYTE} MiB ([disk] min_free_mb)."
            found.append(fail(name, detail + limit, fix))
        elif facts.f_files and facts.f_favail < _FILES_WARN:
            found.append(warn(name, f"Only {facts.f_favail} more files can be made at {place}.", f"Run: df -i {place}"))
        elif free < max(_ROOM_WARN, min_free + min_free // 4):
            found.append(warn(name, detail, fix))
        else:
            found.append(ok(name, detail))
    return found


def newest(home: Path, now: float) -> list[Check]:
    """Files from the future: the clock stood elsewhere when they were written, or stands wrong now. Asks nobody."""
    times = [(home / name).stat().st_mtime for name in (DATABASE, LOCK, CONTROL, KEYS) if (home / name).exists()]
    ahead = max(times, default=0.0) - now
    if ahead <= _AHEAD_S:
        return []
    detail = f"Files in {home} were written {_span(ahead)} later than it is now: the clock was set back."
    return [warn("clock's past", detail, "Run: timedatectl")]


def backup(home: Path, now: float) -> Check:
    """How old the last backup is that was taken from this home, as far as the home knows."""
    fix = f"Run: vendo backup FILE --home {home}"
    last = last_backup(home)
    if last is None:
        if not (home / LOCK).exists():
            return ok("backup", "There is nothing to back up yet but keys.json and the words.")
        return warn("backup", "This home knows of no backup.", fix)
    detail = f"The last one was taken {_span(now - last.taken_at)} ago, to {last.file}."
    return ok("backup", detail) if now - last.taken_at < _BACKUP_WARN_S else warn("backup", detail, fix)


def _span(seconds: float) -> str:
    for unit, size in (("days", _DAY_S), ("hours", 3_600), ("minutes", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} seconds"
