"""Foreign relays, and ours beside them, for tests and the bench: each a process of its own on this machine.

The foreign ones are installed by `make test-deps`.

    async with foreign_relay("khatru", tmp_path) as url: ...
    async with foreign_process("localrelay", tmp_path, auth=True) as peer:
        await peer.kill()       # as a power cut would
        await peer.start()      # again, at the same address

`SORTS` says of each what it is and what its OK is worth. Every process is gone when the block is left.
"""

import asyncio
import os
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PEERS = ROOT / "tests/interop"
RELAYS_PYTHON = ROOT / ".tool/relays/bin/python"
KHATRU = ROOT / ".tool/khatru"
_START_S, _STOP_S, _TRIES = 30.0, 5.0, 3


@dataclass(frozen=True, slots=True)
class Sort:
    """One kind of foreign relay: how it is started, which part of `make test-deps` it needs, what its OK is worth."""

    needs: str
    durability: str
    argv: Callable[[Path, int, bool], list[str]]
    can_auth: bool = False


def _ours(folder: Path, port: int, _: bool) -> list[str]:
    """Our own: letters go to their parties alone, whatever is asked for here."""
    return [sys.executable, "-m", "cli.relay", f"--home={folder}", f"--port={port}"]


def _localrelay(_: Path, port: int, auth: bool) -> list[str]:
    return [sys.executable, str(PEERS / "python/local_relay.py"), f"--port={port}", *(["--auth"] if auth else [])]


def _nostr_relay(folder: Path, port: int, _: bool) -> list[str]:
    config = folder / "nostr-relay.yaml"
    config.write_text(_NOSTR_RELAY.format(folder=folder, port=port), encoding="utf-8")
    return [str(RELAYS_PYTHON.parent / "nostr-relay"), "-c", str(config), "serve"]


def _nostr_relay_core(folder: Path, port: int, _: bool) -> list[str]:
    return ["node", str(PEERS / "node/relay.mjs"), f"--port={port}", f"--db={folder / 'core.db'}"]


def _monstr(_: Path, port: int, __: bool) -> list[str]:
    return [str(RELAYS_PYTHON), str(PEERS / "python/monstr_relay.py"), f"--port={port}"]


def _khatru(folder: Path, port: int, auth: bool) -> list[str]:
    return [str(KHATRU), f"--db={folder / 'khatru.db'}", f"--port={port}", *(["--auth"] if auth else [])]


def _khatru_normal(folder: Path, port: int, auth: bool) -> list[str]:
    return [*_khatru(folder, port, auth), "--fast"]


# Every limit that can be lifted is lifted, so that what is measured and tested is the relay and not its defaults.
_NOSTR_RELAY = """\
storage:
  sqlalchemy.url: sqlite+aiosqlite:///{folder}/nostr-relay.db
  validators: [nostr_relay.validators.is_not_too_large, nostr_relay.validators.is_signed,
               nostr_relay.validators.is_recent]
gunicorn: {{bind: "127.0.0.1:{port}", workers: 1}}
purple: {{host: 127.0.0.1, port: {port}, workers: 1, disable_compression: true}}
authentication: {{enabled: false}}
logging: {{version: 1, root: {{level: ERROR}}}}
max_event_size: 65536
subscription_limit: 2000
"""

SORTS: Mapping[str, Sort] = {
    "ours": Sort("", "SQLite, WAL, synchronous=FULL: synced before each OK", _ours, can_auth=True),
    "localrelay": Sort("relays", "in memory", _localrelay, can_auth=True),
    "nostr-relay": Sort("relays", "SQLite, WAL, synchronous=NORMAL: outlives the process, not the power", _nostr_relay),
    "nostr-relay-core": Sort(
        "node", "SQLite, WAL, synchronous=NORMAL: outlives the process, not the power", _nostr_relay_core
    ),
    "monstr": Sort("relays", "in memory", _monstr),
    "khatru": Sort("relays", "SQLite, WAL, synchronous=FULL: synced before each OK", _khatru, can_auth=True),
    "khatru-normal": Sort(
        "relays", "SQLite, WAL, synchronous=NORMAL: outlives the process, not the power", _khatru_normal, can_auth=True
    ),
}


class DidNotStart(RuntimeError):
    """The relay ended, or never listened; the message has the end of its log."""


def free_port() -> int:
    """A port that nobody listens on right now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(slots=True)
class Foreign:
    """A foreign relay that can be killed, frozen and started again at the same address."""

    name: str
    folder: Path
    auth: bool = False
    port: int = 0
    process: asyncio.subprocess.Process | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def sort(self) -> Sort:
        """What it is."""
        return SORTS[self.name]

    @property
    def pid(self) -> int:
        """Its process id.

        Raises:
            DidNotStart: it does not run.
        """
        if self.process is None or self.process.returncode is not None:
            raise DidNotStart(f"{self.name} does not run")
        return self.process.pid

    @property
    def log(self) -> Path:
        """All that it wrote."""
        return self.folder / f"{self.name}.log"

    async def start(self) -> None:
        """Run it and wait until it listens; a first start takes a free port, later ones the same.

        Raises:
            DidNotStart: not installed (`make test-deps`), or it ended, or it did not listen in time.
        """
        first = not self.port
        for left in reversed(range(_TRIES if first else 1)):
            if first:
                self.port = free_port()
            await self._spawn()
            if await self._listens():
                return
            await self.stop()
            if not left:
                tail = self.log.read_text(encoding="utf-8", errors="replace")[-1500:]
                raise DidNotStart(f"{self.name} did not start. It last said: {tail}")

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL for one that does not listen."""
        if self.process is None or self.process.returncode is not None:
            return
        self.thaw()
        self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), _STOP_S)
        except TimeoutError:
            await self.kill()
        self._sweep()

    async def kill(self) -> None:
        """SIGKILL, for it and what it has started."""
        if self.process is not None and self.process.returncode is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()
            self._sweep()
            await self._silent()

    def freeze(self) -> None:
        """SIGSTOP: its sockets stay open and say nothing."""
        os.killpg(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT."""
        os.killpg(self.pid, signal.SIGCONT)

    async def _spawn(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        env = {key: value for key, value in os.environ.items() if not key.startswith("VENDO_")}
        try:
            with self.log.open("ab") as log:
                self.process = await asyncio.create_subprocess_exec(
                    *self.sort.argv(self.folder, self.port, self.auth), cwd=self.folder,
                    env=env | {"HOME": str(self.folder), "PYTHONPATH": str(ROOT)},
                    stdin=asyncio.subprocess.DEVNULL, stdout=log, stderr=log,
                    process_group=0,
                )  # fmt: skip
        except FileNotFoundError as error:
            raise DidNotStart(f"{self.name} is not installed: run `make test-deps`") from error

    async def _listens(self) -> bool:
        assert self.process is not None
        end = asyncio.get_running_loop().time() + _START_S
        while asyncio.get_running_loop().time() < end and self.process.returncode is None:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                await asyncio.sleep(0.05)
                continue
            writer.close()
            return self.process.returncode is None
        return False

    async def _silent(self) -> None:
        """Wait until nobody listens any more: what a killed parent leaves dies a moment later than it."""
        end = asyncio.get_running_loop().time() + _STOP_S
        while asyncio.get_running_loop().time() < end:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", self.port)
            except OSError:
                return
            writer.close()
            await asyncio.sleep(0.02)

    def _sweep(self) -> None:
        """End what is left of its process group: nostr-relay has a child that outlives a killed parent."""
        assert self.process is not None
        try:
            os.killpg(self.process.pid, signal.SIGKILL)
        except ProcessLookupError:
            return


@asynccontextmanager
async def foreign_process(name: str, folder: Path, *, auth: bool = False) -> AsyncIterator[Foreign]:
    """One foreign relay that a test may kill and start again.

    Raises:
        DidNotStart: see `Foreign.start`.
    """
    if auth and not SORTS[name].can_auth:
        raise ValueError(f"{name} has no NIP-42 for letters")
    peer = Foreign(name, folder, auth)
    try:
        await peer.start()
        yield peer
    finally:
        await peer.stop()


@asynccontextmanager
async def foreign_relay(name: str, folder: Path, *, auth: bool = False) -> AsyncIterator[str]:
    """The address of one foreign relay.

    Raises:
        DidNotStart: see `Foreign.start`.
    """
    async with foreign_process(name, folder, auth=auth) as peer:
        yield peer.url
