"""Running the node of a home directory: from its lock to its last breath."""

import asyncio
import gc
import json
import logging
import os
import resource
import signal
import sys
from collections.abc import Sequence
from contextlib import AsyncExitStack
from pathlib import Path

import aiohttp

from core.clock import SystemClock
from node import home as homes
from node.agent.replay.redactor import secrets_in
from node.app import Node, Outside
from node.config import Config, load
from node.error import ConfigInvalid
from node.gate.ledger import ledger_seal
from node.http.error import HoldsMoney
from node.identity.passphrase import shield
from node.lightning import address_of
from node.line import LineFormatter, hide
from node.service import serve as run_services
from node.share.sharing import join
from node.storage.database import open_database
from node.supervisor import Supervisor
from node.workshop import workshop
from relays.key import Keyring
from wallet.leftover import leftover

log = logging.getLogger(__name__)

_FILES = 65_536
_SWITCH_S = 0.0005  # a busy loop would else keep the database's writer thread waiting up to 5 ms for its turn


async def _serve(
    home: Path, config: Config, keyring: Keyring, lock: homes.Lock, kind: type[Node], *, insecure: bool
) -> int:
    stop, started = asyncio.Event(), asyncio.Event()
    supervisor = Supervisor.adopt(os.environ, SystemClock())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(supervisor.attending(stop))
        where = homes.database_of(home, config.storage)
        os.environ.pop(homes.PASSWORD_VARIABLE, None)  # nothing that is started from now on gets it
        nwc = address_of(home, config.lightning, os.environ)
        connection = () if nwc is None else (nwc.key.secret.hex(),)
        hide(connection)
        seal, unsafe = ledger_seal(keyring.node), config.storage.unsafe
        database = await open_database(where, seal=seal, clock=SystemClock(), unsafe=unsafe)
        stack.push_async_callback(database.aclose)
        company = await join(database, where, config, home, lock, keyring.node.pubkey, stack)
        # no limit: what passes through for others must not make our own requests to mints wait
        http = await stack.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
        executor = workshop()
        stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        retired = await leftover(database, config.node.mints)
        if insecure:
            if await leftover(database, ()):
                raise HoldsMoney
            log.warning("no token is needed: everybody on this machine is the operator", extra={"action": "insecure"})
        private = (*secrets_in(os.environ), *connection)
        outside = Outside(http, executor, retired, home / "files", home, private, insecure, nwc)
        node = kind(config, keyring, database, outside, homes.read_token(home), company)
        await node.prepare()
        announcing = asyncio.create_task(_announce(home, node, started, supervisor))
        announcing.add_done_callback(lambda task: None if task.cancelled() or task.exception() is None else stop.set())
        try:
            await run_services(node.parts, stop, started=started)
        finally:
            announcing.cancel()
            await asyncio.wait([announcing])
            homes.clear_control(home)
        if not announcing.cancelled():
            announcing.result()  # a node that could not say where it listens has failed
    return 0


def _settle() -> None:
    """What was made until now stays as long as the node: the garbage collector need not look at it again and again.

    With 10,000 agents each full collection held up everything, messages and payments too, for more than half a second.
    """
    gc.collect()
    gc.freeze()


async def _announce(home: Path, node: Node, started: asyncio.Event, supervisor: Supervisor) -> None:
    await started.wait()
    _settle()
    homes.write_control(home, node.control.url)
    if node.company is not None:
        node.company.listens(node.control.url)
    line = {
        "npub": node.keyring.node.npub,
        "control": node.control.url,
        "relays": list(node.config.node.relays),
        "pid": os.getpid(),
    }
    if node.own_relay is not None:
        line["own_relay"] = node.own_relay.url
    if node.config.http.names:
        line["names"] = list(node.config.http.names)
    print(json.dumps(line), flush=True)  # noqa: T201 - the one line that says the node is ready
    supervisor.ready(f"{line['npub']} at {line['control']}")


def _log_to_stderr(known: Sequence[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(known))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Says with a traceback what is no HTTP, whoever sent it; our own faults are told by the control plane.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def _have_files() -> None:
    """A thousand clients are a thousand files; on most machines a process has no more, unless it asks."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if hard == resource.RLIM_INFINITY else min(_FILES, hard)
    if soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def serve(home: Path, kind: type[Node] = Node, *, insecure: bool = False) -> int:
    """Run the node of a home directory until SIGTERM or SIGINT; the exit code.

    Args:
        home: its directory.
        kind: a node with more to it.
        insecure: callers on this machine need no token.

    Raises:
        HomeMissing: there is none.
        ConfigInvalid: its configuration is wrong, or lets others in than this machine while no token is needed.
        HoldsMoney: no token is needed, and the node has money.
        AlreadyRunning: another process runs it.
    """
    config = load(home)
    if insecure and config.http.is_open:
        raise ConfigInvalid(
            "--insecure-loopback is for a control plane that nobody but this machine reaches.",
            remedy="Start it without, or take names, tls_cert, tls_key and behind_proxy out of [http].",
        )
    keyring = homes.open_keyring(home)
    shield()
    _log_to_stderr([keyring.words, homes.read_token(home)])
    # Python puts the working directory before everything else for the processes that it starts with `-c`: a folder
    # `multiprocessing` in it would be run in the workshop's place.
    os.environ["PYTHONSAFEPATH"] = "1"
    sys.setswitchinterval(_SWITCH_S)
    _have_files()
    with homes.Lock(home) as lock:
        homes.write_curl_auth(home)
        return asyncio.run(_serve(home, config, keyring, lock, kind, insecure=insecure))
