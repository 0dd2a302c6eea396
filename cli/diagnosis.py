"""What `vendo doctor` looks at. Each check says what it found and, if that is not well, why and what to type.

All checks run at once, each within some seconds; nothing is changed. It works with and without a running node, and
without a network: a relay that is away is that relay's fault alone, as long as another one answers.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp

from cli.checkup.clock import astray, clock
from cli.checkup.finding import PATIENCE_S, Check, State, bounded, detached, fail, ok, warn
from cli.checkup.machine import libraries, python
from cli.checkup.outside import Answer, mint, relay
from cli.checkup.place import Running, backup, disk, home_checks, is_ours, newest, process, running
from cli.checkup.port import Door, certificate, port
from cli.checkup.store import database
from cli.setting import faults
from core.error import VendoError
from node import config
from node.agent.load.library import for_replay
from node.agent.load.loader import FOLDER
from node.disk import writers_of
from node.home import KEYS, database_of, read_token
from node.identity.keystore import Locked, read_keys
from node.identity.passphrase import read_file
from node.storage.address import is_postgres

__all__ = ["Check", "State", "diagnose"]


async def diagnose(home: Path, patience_s: float = PATIENCE_S) -> list[Check]:
    """Everything, this machine first; relays and mints only if the configuration names them."""
    slow = f"Run: df {home} (its file system does not answer)"
    found = [python(), *libraries()]
    found += await bounded("home", detached(lambda: home_checks(home)), slow, patience_s)
    if any(check.name == "home" and check.state is State.FAIL for check in found):
        return found
    look = asyncio.create_task(bounded("process", _process(home), slow, patience_s))
    settings, wrong = await _settings(home, patience_s)
    if settings is None:
        return [*found, *await look, *wrong]
    local, answers = await asyncio.gather(_local(home, settings, slow, patience_s), _outside(settings, patience_s))
    return [*found, *await look, *wrong, *local, *answers]


async def _settings(home: Path, patience_s: float) -> tuple[config.Config | None, list[Check]]:
    file = home / config.FILE
    try:
        text = await asyncio.wait_for(detached(lambda: file.read_text(encoding="utf-8")), patience_s)
    except FileNotFoundError:
        return None, [fail("config", f"There is no {file}.", f"Run: vendo restore FILE --replace --home {home}")]
    except TimeoutError:
        return None, [fail("config", f"{file} was not read within {patience_s:g} s.", f"Run: ls -l {file}")]
    except (OSError, UnicodeDecodeError) as error:
        return None, [fail("config", f"{file} cannot be read: {error}.", f"Run: ls -l {file}")]
    if wrong := faults(text):
        told = "; ".join(map(str, wrong))
        return None, [fail("config", f"{told}.", f"Edit {file}, then run: vendo config check --home {home}")]
    settings = config.parse(text)
    if not settings.node.mints:
        detail = "config.toml is valid, but names no mint: nothing can be paid or earned."
        return settings, [warn("config", detail, "Add a mint that you trust to mints = [...] in config.toml.")]
    return settings, [ok("config", f"config.toml is valid; {len(settings.sell)} services for sale.")]


# ---- this machine


async def _process(home: Path) -> list[Check]:
    try:
        found = await detached(lambda: running(home))
    except OSError as error:
        return [fail("process", f"The lock cannot be opened: {error.strerror}.", f"Run: ls -l {home}")]
    return [process(home, found), *await _answers(home, found)]


async def _answers(home: Path, found: Running) -> list[Check]:
    """What a running node says of itself."""
    if not found.pid or not found.url:
        return []
    log = f"Look at its log: journalctl -u vendo; or start it again: kill {found.pid}; vendo up --home {home}"
    try:
        ready = await _get(f"{found.url}/readyz")
    except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as error:
        return [fail("control plane", f"{found.url} does not answer: {type(error).__name__}.", log)]
    reasons = ready.get("reasons") if isinstance(ready, dict) else {}
    if reasons:
        told = "; ".join(f"{name}: {why}" for name, why in reasons.items())
        return [warn("control plane", f"The node runs, but is not ready: {told}.", f"Run: vendo status --home {home}")]
    return [ok("control plane", "The node says that it is ready.")]


async def _get(url: str, token: str = "") -> Any:
    headers = {"Accept": "application/json"} | ({"Authorization": f"Bearer {token}"} if token else {})
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S / 2)
    async with aiohttp.ClientSession(timeout=timeout) as http, http.get(url, headers=headers) as answer:
        return json.loads(await answer.read())


async def _local(home: Path, settings: config.Config, slow: str, patience_s: float) -> list[Check]:
    """What the settings name on this machine."""
    work = {
        "passphrase": detached(lambda: [*_passphrase(home, settings), *certificate(home, settings, time.time())]),
        "disk": detached(lambda: _disk(home, settings)),
        "backup": detached(lambda: [*newest(home, time.time()), backup(home, time.time())]),
        "programs": detached(lambda: list(_programs(home, settings)) if is_ours(home) else []),
        "database": _one(database(home, settings.storage)),
        "ports": _ports(home, settings),
    }
    asked = "Run: pg_isready -d DATABASE -h HOST; look at [storage] in config.toml"
    fixes = {"database": asked} if is_postgres(settings.storage.url) else {}
    done = await asyncio.gather(*(bounded(name, one, fixes.get(name, slow), patience_s) for name, one in work.items()))
    return [check for checks in done for check in checks]


async def _one(check: Awaitable[Check]) -> list[Check]:
    return [await check]


def _passphrase(home: Path, settings: config.Config) -> Iterator[Check]:
    """Whether the file is there that the next start takes the passphrase from."""
    section = settings.keys
    if "file" not in section.passphrase_from or not section.passphrase_file:
        return
    try:
        if isinstance(read_keys(home / KEYS), Locked):
            read_file(home / section.passphrase_file)
    except VendoError as error:
        yield fail("passphrase", error.message, error.advice)


def _disk(home: Path, settings: config.Config) -> list[Check]:
    try:
        where = database_of(home, settings.storage)
    except VendoError:  # the check of the database says it
        where = ""
    places = [one for one in writers_of(home, where) if one.exists()]
    devices = {one.stat().st_dev: one for one in reversed(places)}
    return disk(list(reversed(devices.values())), settings.disk.min_free_mb << 20)


def _programs(home: Path, settings: config.Config) -> Iterator[Check]:
    """Agents' code: what can be said of it without running it."""
    programs = for_replay(home)
    wrong = programs.check()
    for name, error in wrong.items():
        yield fail(f"program {name}", error.message, error.advice or f"Run: ls -l {home / FOLDER}")
    for agent in settings.agent:
        if agent.program not in programs:
            detail = f"The agent {agent.name!r} runs {agent.program!r}, and there is no such program."
            yield fail(f"agent {agent.name}", detail, f"Put {agent.program}.py into {home / FOLDER}.")
    if not wrong:
        yield ok("programs", f"{len(programs)} programs for agents; their code was not run.")


async def _ports(home: Path, settings: config.Config) -> list[Check]:
    """Each listener of the node: a running one says itself where its own are."""
    found = await detached(lambda: running(home))
    if found.pid and not found.url:
        return []  # it is about to listen, and nobody can tell its listener from another's
    urls = [found.url] if found.pid else []
    if found.pid and settings.http.is_open:  # the commands go another way in, and it runs only because it has this one
        urls.append(f"https://x:{settings.node.port}")
    doors = [Door("control plane", settings.node.host, settings.node.port, "[node] port")]
    silent: list[Check] = []
    if settings.relay.enabled:
        own = await _own_relay(home, urls)
        if own is None:  # its own listener must not be taken for another's
            why = "The node runs and did not say whether it is its own."
            silent.append(warn("port of the relay", why, f"Run: vendo doctor --home {home}"))
        else:
            doors.append(Door("relay", settings.relay.host, settings.relay.port, "[relay] port"))
            urls += own
    return await detached(lambda: [*(port(door, urls) for door in doors), *silent])


async def _own_relay(home: Path, urls: Sequence[str]) -> list[str] | None:
    """Where the running node's relay listens; None if it does not say it in time."""
    if not urls:
        return []
    try:
        status = await _get(f"{urls[0]}/agents/node/status", read_token(home))
        return [str(status["own_relay"]["url"])]
    except (aiohttp.ClientError, TimeoutError, OSError, VendoError):
        return None
    except (ValueError, KeyError, TypeError):
        return []


# ---- relays, mints, and the time there


async def _outside(settings: config.Config, patience_s: float) -> list[Check]:
    relays, mints = settings.node.relays, settings.node.mints
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=patience_s)) as http:
        asked = [relay(http, url, patience_s) for url in relays] + [mint(http, url, patience_s) for url in mints]
        answers = dict(zip((*relays, *mints), await asyncio.gather(*asked), strict=True))
    offsets = {url: answer.offset for url, answer in answers.items() if answer.offset is not None}
    strays = astray(offsets)
    heard = _heard([answers[url] for url in relays]) + [answers[url].check for url in mints]
    checks = [_dated(check, strays.get(url)) for url, check in zip((*relays, *mints), heard, strict=True)]
    return [*checks, clock({url: one for url, one in offsets.items() if url not in strays}, time.time())]


def _heard(answers: Sequence[Answer]) -> list[Check]:
    """Relays, each for itself: one that is away is a warning while others are there, and a failure if none is."""
    if all(one.is_away for one in answers):
        return [one.check for one in answers]
    return [replace(one.check, state=State.WARN) if one.is_away else one.check for one in answers]


def _dated(check: Check, wrong_s: float | None) -> Check:
    """The same, with what is wrong with that server's own clock."""
    if wrong_s is None or check.state is State.FAIL:
        return check
    detail = f"{check.detail} Its clock is {wrong_s:.0f} s from that of the others."
    return replace(check, state=State.WARN, detail=detail, fix=check.fix or "Tell its operator, or use another one.")
