"""A PostgreSQL for tests: one server for the whole run, a database for each test, all of it gone when the run ends.

    url = await fresh_database()               # empty, with vendo's newest schema
    url = await fresh_database(bare=True)      # with nothing in it, not even tables
    with own_server(tmp_path) as server:       # one that may be killed
        server.kill(); server.start()

The server is Debian's, started here with full durability in a temporary folder, behind a socket in that folder; the
cluster that Debian may have made at its installation is never touched. `VENDO_TEST_POSTGRES=postgresql://…` names a
server that is there already: its user must be allowed to create databases. `own_server` needs the programs in any case.
"""

import asyncio
import atexit
import itertools
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import asyncpg

GIVEN = os.environ.get("VENDO_TEST_POSTGRES", "")
_START_S, _STOP_S = 60.0, 20.0
_PORT = 5432  # only names the socket
_CONFIG = """
listen_addresses = ''
unix_socket_directories = '{folder}'
port = {port}
max_connections = 80
shared_buffers = 32MB
max_wal_size = 256MB
log_min_messages = warning
log_min_error_statement = panic
"""


def programs() -> Path | None:
    """The folder with PostgreSQL's own programs, the newest version's; None if there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[-3].split(".")[0]))
    if found:
        return found[-1].parent
    beside = shutil.which("initdb")
    return Path(beside).resolve().parent if beside else None


def is_there() -> bool:
    """Whether tests can have a server."""
    return bool(GIVEN) or programs() is not None


def _someone() -> pwd.struct_passwd | None:
    """Who runs the server when we are root, which it refuses to be run by."""
    if os.getuid() != 0:
        return None
    names = {one.pw_name: one for one in pwd.getpwall()}
    return names.get("postgres") or names["nobody"]


_RELOADED = "reloading configuration files"


class Server:
    """A cluster in a folder, and the server on it. Only what was started here is ever stopped."""

    def __init__(self, folder: Path) -> None:
        """Make the cluster; it is not started yet."""
        found = programs()
        assert found is not None, "PostgreSQL's programs are not installed"
        self._programs, self.folder, self._who = found, folder, _someone()
        self._process: subprocess.Popen[bytes] | None = None
        self._data = folder / "data"
        folder.mkdir(parents=True, exist_ok=True)
        if self._who is not None:
            os.chown(folder, self._who.pw_uid, self._who.pw_gid)
        # a language whose order of letters is not that of the bytes: an order that is left to the database shows
        argv = ["initdb", "--no-sync", "--auth=trust", "--username=vendo", "--encoding=UTF8", "--locale=C.UTF-8"]
        language = ["--locale-provider=icu", "--icu-locale=en-US"] if "icu" in self._help("initdb") else []
        made = subprocess.run(
            [*self._command(*argv, *language), str(self._data)], cwd=folder, capture_output=True, check=False
        )
        assert made.returncode == 0, made.stderr.decode()
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write(_CONFIG.format(folder=folder, port=_PORT))

    def _help(self, program: str) -> str:
        return subprocess.run([self._programs / program, "--help"], capture_output=True, check=True).stdout.decode()

    def _command(self, program: str, *rest: str) -> list[str]:
        argv = [str(self._programs / program), *rest]
        if self._who is None:
            return ["setpriv", "--pdeathsig=INT", *argv]  # it does not outlive us, however we end
        who = [f"--reuid={self._who.pw_uid}", f"--regid={self._who.pw_gid}", "--clear-groups"]
        return ["setpriv", *who, "--pdeathsig=INT", *argv]

    @property
    def pid(self) -> int:
        """The server's own process."""
        assert self._process is not None
        return self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and not stopped."""
        return self._process is not None

    def url(self, name: str = "postgres", *, host: str = "", user: str = "vendo") -> str:
        """Where a database is; `host` is another way to it (`127.0.0.1:1234`), e.g. through a proxy."""
        return f"postgresql://{user}@{host}/{name}" if host else f"postgresql://{user}@/{name}?host={self.folder}"

    @property
    def socket(self) -> Path:
        """What it listens at."""
        return self.folder / f".s.PGSQL.{_PORT}"

    def set(self, text: str) -> None:
        """More settings, from the next start on."""
        with (self._data / "postgresql.conf").open("a", encoding="utf-8") as config:
            config.write(text + "\n")

    def ask_for_passwords(self, user: str) -> None:
        """Let nobody in as this user without a password, from now on."""
        rules = self._data / "pg_hba.conf"
        rules.write_text(f"local all {user} scram-sha-256\n{rules.read_text()}")
        log = self.folder / "log"
        before, until = log.read_text(errors="replace").count(_RELOADED), time.monotonic() + _START_S
        os.kill(self.pid, signal.SIGHUP)
        while log.read_text(errors="replace").count(_RELOADED) == before and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(0.2)

    def start(self, *settings: str) -> None:
        """Start it, and wait until it takes connections. Blocks: it would end with the thread that started it."""
        more = [word for setting in settings for word in ("-c", setting)]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self._data), *more), cwd=self.folder, stdout=log, stderr=log
            )
        until = time.monotonic() + _START_S
        while not self._is_ready():
            words = (self.folder / "log").read_text(errors="replace")[-2_000:]
            assert self._process.poll() is None, f"PostgreSQL ended at once:\n{words}"
            assert time.monotonic() < until, f"PostgreSQL does not start:\n{words}"
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return False
        return len(lines) > 7 and lines[0] == str(self.pid) and lines[7].strip() == "ready"

    def stop(self, how: signal.Signals = signal.SIGINT) -> None:
        """Stop it as an operator does. Blocks."""
        if self._process is None:
            return
        self._process.send_signal(how)
        try:
            self._process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
        self._process = None

    def kill(self) -> None:
        """End it and all of its processes at once (SIGKILL)."""
        assert self._process is not None
        os.kill(self.pid, signal.SIGSTOP)  # so that no child is made that is not on the list
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        self._process.kill()
        for child in children:
            try:
                os.kill(int(child), signal.SIGKILL)
            except ProcessLookupError:  # it noticed by itself
                continue
        self._process.wait()
        until = time.monotonic() + _START_S
        while any(map(_lives, children)) and time.monotonic() < until:  # one that waits for the disk ends after it
            time.sleep(0.01)
        (self._data / "postmaster.pid").unlink(missing_ok=True)
        self._process = None


def _lives(pid: str) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@contextmanager
def own_server(folder: Path, *settings: str) -> Iterator[Server]:
    """A server that is a test's alone, and runs."""
    place = Path(tempfile.mkdtemp(prefix="vendo-pg-"))  # a socket's path is short
    server = Server(place)
    try:
        server.start(*settings)
        yield server
    finally:
        server.stop(signal.SIGQUIT)  # at once: nobody will look at it again
        shutil.copy(place / "log", folder / "postgres.log")
        shutil.rmtree(place, ignore_errors=True)


@cache
def shared_server() -> Server:
    """The one that all tests of this process share; started when it is first needed, stopped when the process ends."""
    place = Path(tempfile.mkdtemp(prefix="vendo-pg-"))
    server = Server(place)

    def end() -> None:
        server.stop(signal.SIGQUIT)
        shutil.rmtree(place, ignore_errors=True)

    atexit.register(end)
    server.start()
    return server


def _place(name: str) -> str:
    if not GIVEN:
        return shared_server().url(name)
    parts = urlsplit(GIVEN)
    return urlunsplit((parts.scheme, parts.netloc, f"/{name}", parts.query, ""))


def _admin() -> str:
    return GIVEN or shared_server().url("postgres")


_TEMPLATE = f"vendo_test_{os.getpid()}_template"
_EMPTY = """DO $$
DECLARE one record; filled boolean;
BEGIN
    PERFORM pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid();
    FOR one IN SELECT tablename AS name FROM pg_tables
        WHERE schemaname = 'public' AND tablename <> 'alembic_version' LOOP
        EXECUTE format('SELECT EXISTS (SELECT FROM %I)', one.name) INTO filled;
        IF filled THEN EXECUTE format('DELETE FROM %I', one.name); END IF;
    END LOOP;
    PERFORM setval(quote_ident(sequencename)::regclass, 1, false) FROM pg_sequences WHERE schemaname = 'public';
END $$"""


@dataclass(slots=True)
class _Made:
    """A database that was made here. `test`: whose it is, as long as that runs; `bare` ones are not used again."""

    name: str
    key: str
    test: str
    bare: bool


_made: list[_Made] = []
_numbers = itertools.count()


def _test() -> str:
    return os.environ.get("PYTEST_CURRENT_TEST", "").rpartition(" ")[0]


async def fresh_database(key: str = "", *, bare: bool = False) -> str:
    """The URL of a database of one's own for the rest of the test, with vendo's newest schema or `bare`, with nothing.

    The same `key` finds it again within the test. Making one takes half a second, so that of a test that has ended is
    emptied and given out again.
    """
    test = _test()
    for one in _made:
        if key and one.key == key and one.test == test and one.bare == bare:
            return _place(one.name)
    old = next((one for one in _made if one.test != test and not one.bare), None)
    if old is not None and not bare:
        old.test, old.key = test, key
        await emptied(_place(old.name))
        return _place(old.name)
    new = _Made(f"vendo_test_{os.getpid()}_{next(_numbers)}", key, test, bare)
    if not bare and not any(one.name == _TEMPLATE for one in _made):
        await _make_template()
    await _execute(_admin(), f'CREATE DATABASE "{new.name}" TEMPLATE "{"template1" if bare else _TEMPLATE}"')
    _made.append(new)
    return _place(new.name)


async def emptied(url: str) -> None:
    """Take all rows out of a database, and put everybody out who is in it."""
    await _execute(url, _EMPTY)


async def drop(url: str) -> None:
    """Give a database's room back before the run ends."""
    gone = next(one for one in _made if _place(one.name) == url)
    await _execute(_admin(), f'DROP DATABASE "{gone.name}" WITH (FORCE)')
    _made.remove(gone)


async def _make_template() -> None:
    from node.storage.migration import migrate_postgres

    await _execute(_admin(), f'CREATE DATABASE "{_TEMPLATE}"')
    _made.append(_Made(_TEMPLATE, "", "", bare=True))
    await migrate_postgres(_place(_TEMPLATE))


async def _execute(url: str, sql: str) -> None:
    link = await asyncpg.connect(url)
    try:
        await link.execute(sql)
    finally:
        await link.close()


async def _forget() -> None:
    for one in _made:
        await _execute(_admin(), f'DROP DATABASE IF EXISTS "{one.name}" WITH (FORCE)')


if GIVEN:
    atexit.register(lambda: asyncio.run(_forget()))
