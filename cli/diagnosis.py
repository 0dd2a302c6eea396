"""What `vendo doctor` looks at. Each check says what it found and, if that is bad, what to do."""

import asyncio
import json
import os
import shutil
import ssl
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp

from core.error import VendoError
from node import config
from node.agent.load.library import for_replay
from node.agent.load.loader import FOLDER
from node.home import CONTROL, KEYS, TOKEN, Lock, database_of
from node.identity.keystore import Locked, read_keys
from node.storage.address import shown
from node.storage.error import UnsafeServer

_TIMEOUT_S = 8.0
_DISK_FAIL, _DISK_WARN = 64 << 20, 512 << 20
_CLOCK_WARN_S, _CLOCK_FAIL_S = 30, 600  # others drop events that are 15 minutes ahead


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One finding. `outside` is about a relay or mint and not about this machine."""

    name: str
    state: State
    detail: str
    fix: str = ""
    outside: bool = False

    def to_dict(self) -> dict[str, Any]:
        """As `--json` shows it."""
        return {"name": self.name, "state": self.state.value, "detail": self.detail, "fix": self.fix}


async def diagnose(home: Path) -> list[Check]:
    """Everything, this machine first; relays and mints only if the configuration names them."""
    found = [_python(), *_home(home)]
    if not home.is_dir():
        return found
    found += [_running(home), _disk(home)]
    try:
        settings = config.load(home)
    except VendoError as error:
        return [*found, Check("config", State.FAIL, error.message, error.advice)]
    found += [_config(settings), *_programs(home, settings), await _database(home, settings)]
    timeout = aiohttp.ClientTimeout(total=_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http:
        asked = [_relay(http, url) for url in settings.node.relays] + [_mint(http, url) for url in settings.node.mints]
        answers = await asyncio.gather(*asked)
    found += [check for check, _ in answers]
    return [*found, _clock([offset for _, offset in answers if offset is not None])]


def _python() -> Check:
    version = ".".join(str(part) for part in sys.version_info[:3])
    good = (3, 11) <= sys.version_info[:2] < (3, 13)
    fix = "" if good else "Install with Python 3.11 or 3.12."
    return Check("python", State.OK if good else State.FAIL, f"Python {version} at {sys.executable}", fix)


def _home(home: Path) -> Iterator[Check]:
    if not home.is_dir():
        yield Check("home", State.FAIL, f"There is no {home}.", f"Run: vendo init --home {home}")
        return
    mode = home.stat().st_mode & 0o077
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        yield Check("home", State.FAIL, f"{home} cannot be written by this user.", f"Run: chown -R $USER {home}")
    elif mode:
        yield Check("home", State.WARN, f"{home} is open to other users.", f"Run: chmod 700 {home}")
    else:
        yield Check("home", State.OK, f"{home} is this user's alone.")
    yield _keys(home)
    for name in (KEYS, TOKEN):
        path = home / name
        if not path.exists():
            yield Check(name, State.FAIL, f"There is no {path}.", f"Run: vendo init --home {home}")
        elif path.stat().st_mode & 0o077:
            yield Check(name, State.FAIL, f"{path} is open to other users.", f"Run: chmod 600 {path}")


def _keys(home: Path) -> Check:
    """Without the passphrase: asking for it is for `up`."""
    try:
        keys = read_keys(home / KEYS)
        if isinstance(keys, Locked):
            return Check("keys", State.OK, f"The words are encrypted (scrypt, 2^{keys.log_n}).")
        keys.ring()
    except VendoError as error:
        return Check("keys", State.FAIL, error.message, error.advice)
    detail = "The words are there and valid, and readable for whoever can read the file."
    return Check("keys", State.OK, detail, f"To encrypt them: vendo key encrypt --home {home}")


def _running(home: Path) -> Check:
    try:
        with Lock(home):
            left = (home / CONTROL).exists()
    except VendoError as error:
        return _control(home, error.message)
    except OSError as error:
        return Check("process", State.FAIL, f"The lock cannot be opened: {error.strerror}.", f"Run: ls -l {home}")
    detail = "The node is not running" + (" (it ended without a goodbye)." if left else ".")
    return Check("process", State.WARN, detail, f"Run: vendo up --home {home}")


def _control(home: Path, message: str) -> Check:
    try:
        url = json.loads((home / CONTROL).read_text(encoding="utf-8"))["url"]
    except (OSError, ValueError, KeyError, TypeError):
        return Check("process", State.WARN, f"{message} It does not listen yet.", "Wait, or read its log.")
    return Check("process", State.OK, f"{message} It listens at {url}.")


def _disk(home: Path) -> Check:
    free = shutil.disk_usage(home).free
    detail = f"{free >> 20} MiB free."
    state = State.FAIL if free < _DISK_FAIL else State.WARN if free < _DISK_WARN else State.OK
    return Check("disk", state, detail, "" if state is State.OK else "Free some space: a full disk stops all work.")


def _config(settings: config.Config) -> Check:
    if not settings.node.mints:
        detail = "config.toml is valid, but names no mint: nothing can be paid or earned."
        return Check("config", State.WARN, detail, "Add a mint that you trust to mints = [...] in config.toml.")
    return Check("config", State.OK, f"config.toml is valid; {len(settings.sell)} services for sale.")


async def _database(home: Path, settings: config.Config) -> Check:
    """A file is looked at from outside; a server is asked, and what it acknowledges must be durable."""
    try:
        where = database_of(home, settings.storage)
        if isinstance(where, Path):
            size = where.stat().st_size if where.exists() else 0
            return Check("database", State.OK, f"{where} has {size >> 20} MiB.")
        from node.storage.postgres_link import describe  # who has a file does without the driver

        begun = time.monotonic()
        facts, faults = await describe(where)
        took = (time.monotonic() - begun) * 1000
    except VendoError as error:
        return Check("database", State.FAIL, error.message, error.advice)
    said = f"PostgreSQL {facts['name']} at {shown(where)} answers in {took:.0f} ms and has {facts['bytes'] >> 20} MiB"
    if not faults:
        return Check("database", State.OK, f"{said}; what it acknowledges is on its disk.")
    state = State.WARN if settings.storage.unsafe else State.FAIL
    return Check("database", state, f"{said}, but {'; '.join(faults)}.", UnsafeServer.remedy)


def _programs(home: Path, settings: config.Config) -> Iterator[Check]:
    """Agents' code: what can be said of it without running it."""
    programs = for_replay(home)
    wrong = programs.check()
    for name, error in wrong.items():
        yield Check(f"program {name}", State.FAIL, error.message, error.advice)
    for agent in settings.agent:
        if agent.program not in programs:
            detail = f"The agent {agent.name!r} runs {agent.program!r}, and there is no such program."
            yield Check(f"agent {agent.name}", State.FAIL, detail, f"Put {agent.program}.py into {home / FOLDER}.")
    if not wrong:
        yield Check("programs", State.OK, f"{len(programs)} programs for agents; their code was not run.")


def _why(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return f"no answer within {_TIMEOUT_S:g} s"
    if isinstance(error, aiohttp.ClientConnectorCertificateError | ssl.SSLError):
        return "its certificate is not valid"
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "its name does not resolve"
    if isinstance(error, aiohttp.ClientConnectorError):
        return os.strerror(error.errno).lower() if error.errno else "no connection"
    return f"{type(error).__name__}"


async def _relay(http: aiohttp.ClientSession, url: str) -> tuple[Check, float | None]:
    """Open a websocket and ask for one event: a relay answers EVENT, EOSE, CLOSED or AUTH."""
    name = f"relay {url}"
    try:
        async with asyncio.timeout(_TIMEOUT_S), http.ws_connect(url, max_msg_size=1 << 20) as socket:
            offset = await _relay_offset(http, url)
            begun = time.monotonic()
            await socket.send_str('["REQ","doctor",{"kinds":[0],"limit":1}]')
            message = await socket.receive()
            if message.type is not aiohttp.WSMsgType.TEXT:
                return Check(name, State.FAIL, "It closed the connection.", "Try another relay.", outside=True), offset
            took = (time.monotonic() - begun) * 1000
            return Check(name, State.OK, f"It answers in {took:.0f} ms.", outside=True), offset
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        fix = "Check the address and your network, or use another relay in config.toml."
        return Check(name, State.FAIL, f"It cannot be reached: {_why(error)}.", fix, outside=True), None


async def _relay_offset(http: aiohttp.ClientSession, url: str) -> float | None:
    """A websocket handshake carries no date; the relay's information document (NIP-11) usually does."""
    try:
        headers = {"Accept": "application/nostr+json"}
        async with http.get("http" + url.removeprefix("ws"), headers=headers) as answer:
            return _offset(answer.headers.get("Date"))
    except (aiohttp.ClientError, TimeoutError, OSError):
        return None


async def _mint(http: aiohttp.ClientSession, url: str) -> tuple[Check, float | None]:
    """NUT-06: a mint says who it is and what it can."""
    name = f"mint {url}"
    fix = "Check the address and your network. Money at this mint cannot be moved until it answers."
    try:
        async with http.get(f"{url}/v1/info") as answer:
            offset = _offset(answer.headers.get("Date"))
            body = await answer.json(content_type=None)
            if answer.status != 200 or not isinstance(body, dict) or "nuts" not in body:
                detail = f"It answers, but not as a Cashu mint (HTTP {answer.status})."
                return Check(name, State.FAIL, detail, fix, outside=True), offset
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return Check(name, State.FAIL, f"It cannot be reached: {_why(error)}.", fix, outside=True), None
    missing = [nut for nut in ("7", "9", "11", "12") if not _supports(body["nuts"], nut)]
    if missing:
        detail = f"It lacks NUT-{', NUT-'.join(f'{int(nut):02d}' for nut in missing)}, which locked payments need."
        return Check(name, State.FAIL, detail, "Use another mint.", outside=True), offset
    return Check(name, State.OK, f"{body.get('version', 'a mint')}", outside=True), offset


def _supports(nuts: Any, nut: str) -> bool:
    found = nuts.get(nut) if isinstance(nuts, dict) else None
    return isinstance(found, dict) and bool(found.get("supported"))


def _offset(header: str | None) -> float | None:
    """How many seconds our clock is ahead of an HTTP server's."""
    if header is None:
        return None
    try:
        return time.time() - parsedate_to_datetime(header).timestamp()
    except ValueError:
        return None


def _clock(offsets: list[float]) -> Check:
    if not offsets:
        return Check("clock", State.OK, f"It says {time.strftime('%Y-%m-%d %H:%M:%S UTC', time.gmtime())}.")
    middle = sorted(offsets)[len(offsets) // 2]
    detail = f"It differs by {abs(middle):.0f} s from the servers that were asked."
    state = State.FAIL if abs(middle) > _CLOCK_FAIL_S else State.WARN if abs(middle) > _CLOCK_WARN_S else State.OK
    return Check("clock", state, detail, "" if state is State.OK else "Set this machine's clock (NTP).")
