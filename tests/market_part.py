"""A small real market for tests: a relay, a mint and nodes, each a process of its own, on this machine alone.

    async with market(tmp_path, {"seller": SELLER, "buyer": Spec(owner=person.pubkey)}) as town:
        await town.fund("buyer", 500)
        ran = await town.vendo("buyer", "buy", "--kind", "5001", "--input", "…")

Everything is started with the functions of the demo, and is gone when the block is left.
"""

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from cli.demo.process import Child, family, free_port, start_mint, start_node, start_relay
from cli.demo.wire import stored
from core.error import Unavailable
from node import home
from relays.event import Event
from relays.key import Key, Keyring
from relays.kind import GIFT_WRAP, HANDLER, is_request

ECHO_FREE = '\n[[sell]]\nkind = 5050\nprice_msat = 0\nprovider = "echo"\nmax_parallel = 64\n'
# The window closes as soon as all known sellers have answered, however slow the machine is.
PATIENT = {"quote_window_ms = 1500": "quote_window_ms = 20000"}
SUMMARY_21 = '\n[[sell]]\nkind = 5001\nprice_msat = 21000\nprovider = "summarizer"\n'
_READY_S, _COMMAND_S = 60.0, 120.0


@dataclass(frozen=True, slots=True)
class Spec:
    """How one node is set up: text after its config.toml, changes in it, and who may send its agent DMs."""

    config: str = ""
    replace: Mapping[str, str] = field(default_factory=dict)
    owner: str | None = None
    relays: Sequence[str] | None = None
    mints: Sequence[str] | None = None
    start: bool = True


@dataclass(frozen=True, slots=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The one JSON value on its standard output."""
        return json.loads(self.out)

    @property
    def error_code(self) -> str:
        """The stable code of the error that it reports with `--json`."""
        return str(self.json["error"]["code"])


async def run(
    *argv: str, timeout: float = _COMMAND_S, cwd: Path | None = None, env: Mapping[str, str] | None = None
) -> Ran:
    """Run a program to its end; one that takes too long is killed and fails the test."""
    process = await asyncio.create_subprocess_exec(
        *argv, cwd=cwd, env=env, stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    try:
        out, err = await asyncio.wait_for(process.communicate(), timeout)
    except TimeoutError:
        process.kill()
        await process.wait()
        raise AssertionError(f"{' '.join(argv)[:300]} did not end within {timeout} s") from None
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def vendo(*argv: str, timeout: float = _COMMAND_S) -> Ran:
    """The `vendo` command as its own process."""
    return await run(sys.executable, "-m", "cli.main", *argv, timeout=timeout)


@dataclass(slots=True)
class Market:
    """What runs, and how to talk to it."""

    folder: Path
    http: aiohttp.ClientSession
    children: list[Child]
    relay: str
    mint: str = ""
    relay_child: Child | None = None
    mint_child: Child | None = None
    homes: dict[str, Path] = field(default_factory=dict)
    rings: dict[str, Keyring] = field(default_factory=dict)
    nodes: dict[str, Child] = field(default_factory=dict)
    program: Sequence[str] = ("-m", "cli.main")  # what is run as `vendo up`

    def make(self, name: str, spec: Spec) -> Path:
        """A home for a node that is not started yet."""
        relays = [self.relay] if spec.relays is None else spec.relays
        mints = [self.mint] if spec.mints is None and self.mint else list(spec.mints or ())
        path = self.folder / name
        home.create(path, relays=relays, mints=mints, port=0, owner=spec.owner or Key.generate().npub, name=name)
        file = path / "config.toml"
        text = file.read_text(encoding="utf-8")
        for old, new in spec.replace.items():
            assert old in text, f"{old!r} is not in config.toml"
            text = text.replace(old, new)
        file.write_text(text + spec.config, encoding="utf-8")
        self.homes[name], self.rings[name] = path, home.open_keyring(path)
        return path

    async def up(self, name: str) -> Child:
        """Start a node and wait for its line."""
        child = await start_node(name, self.folder, self.homes[name], self.program)
        self.children.append(child)
        self.nodes[name] = child
        return child

    async def down(self, name: str) -> int:
        """SIGTERM; the exit code."""
        child = self.nodes.pop(name)
        await child.stop()
        self.children.remove(child)
        assert child.process.returncode is not None
        return child.process.returncode

    def log(self, name: str) -> str:
        """All that a process wrote to standard error."""
        return (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")

    async def vendo(self, name: str, *argv: str, timeout: float = _COMMAND_S) -> Ran:
        """A command against one node, answering in JSON."""
        return await vendo(*argv, "--home", str(self.homes[name]), "--json", timeout=timeout)

    async def get(self, name: str, path: str) -> Any:
        """Read a file of a node's tree as its operator."""
        async with self.http.get(self.url(name, path), headers=self.headers(name)) as answer:
            answer.raise_for_status()
            return await answer.json(content_type=None)

    async def call(self, name: str, path: str, body: Any, key: str) -> tuple[int, Any]:
        """POST to a file of a node's tree; the status and the answer."""
        headers = self.headers(name) | {"Idempotency-Key": key}
        async with self.http.post(self.url(name, path), json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    def url(self, name: str, path: str) -> str:
        """The address of a file of a node's tree."""
        return f"{self.nodes[name].said['control']}/agents/{path.lstrip('/')}"

    def headers(self, name: str) -> dict[str, str]:
        """What the operator sends along."""
        token = home.read_token(self.homes[name])
        return {"Authorization": f"Bearer {token}", "Accept": "application/json"}

    async def balance(self, name: str) -> dict[str, int]:
        """Free, reserved and locked satoshi over all mints."""
        answer = await self.get(name, "node/wallet/balance")
        rows = answer["balances"] if isinstance(answer, dict) else answer
        return {state: sum(row[state] for row in rows) for state in ("live", "reserved", "locked")}

    async def fund(self, name: str, sat: int) -> None:
        """A deposit; the test mint pays its invoices itself."""
        before = await self.balance(name)
        status, answer = await self.call(name, "node/wallet/deposit", {"sat": sat}, f"fund-{before['live']}-{sat}")
        assert status < 300, answer
        # Not the balance: the node pays to try a mint as soon as it holds something there.
        await until(lambda: self._is_done(name, answer["op_id"]), "the deposit to arrive")

    async def _is_done(self, name: str, op_id: str) -> bool:
        return bool((await self.get(name, f"node/wallet/operations/{op_id}"))["state"] == "done")

    async def events(self) -> list[Event]:
        """Every event on the relay, verified."""
        return await stored(self.http, self.relay)

    async def requests(self, name: str | None = None) -> list[Event]:
        """Job requests on the relay, of one node or of all."""
        author = self.rings[name].node.pubkey if name else None
        return [one for one in await self.events() if is_request(one.kind) and author in (None, one.pubkey)]

    async def wraps_to(self, pubkey: str) -> list[Event]:
        """Sealed messages for one key."""
        return [one for one in await self.events() if one.kind == GIFT_WRAP and one.value("p") == pubkey]


async def until(holds: Callable[[], Any], what: str, timeout: float = _READY_S) -> Any:
    """Ask again and again until it holds; what it answered then."""
    end, is_over = asyncio.get_running_loop().time() + timeout, False
    while not is_over:
        is_over = asyncio.get_running_loop().time() >= end  # who stood still meanwhile asks once more
        if answer := await holds():
            return answer
        await asyncio.sleep(0.05)
    raise AssertionError(f"waited {timeout} s for {what}")


def dead_address(scheme: str) -> str:
    """An address where nobody listens."""
    return f"{scheme}://127.0.0.1:{free_port()}"


@asynccontextmanager
async def market(
    folder: Path,
    nodes: Mapping[str, Spec | str] | None = None,
    *,
    mint: bool = True,
    program: Sequence[str] = ("-m", "cli.main"),
) -> AsyncIterator[Market]:
    """Start everything; nodes that sell have announced themselves when this is entered."""
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as http, family() as children:
        relay = await start_relay(folder)
        children.append(relay)
        town = Market(folder, http, children, str(relay.said["url"]), relay_child=relay, program=program)
        if mint:
            town.mint_child = await start_mint(folder, http)
            children.append(town.mint_child)
            town.mint = str(town.mint_child.said["url"])
        specs = {name: spec if isinstance(spec, Spec) else Spec(spec) for name, spec in (nodes or {}).items()}
        for name, spec in specs.items():
            town.make(name, spec)
        ups = [town.up(name) for name, spec in specs.items() if spec.start]
        for result in await asyncio.gather(*ups, return_exceptions=True):  # all, so that none is left running
            if isinstance(result, BaseException):
                raise result
        await _announced(town, [name for name, spec in specs.items() if spec.start and "[[sell]]" in spec.config])
        yield town


async def _announced(town: Market, sellers: Sequence[str]) -> None:
    keys = {town.rings[name].node.pubkey for name in sellers}

    async def all_there() -> bool:
        return keys <= {one.pubkey for one in await town.events() if one.kind == HANDLER}

    if keys:
        try:
            await until(all_there, "the sellers' announcements")
        except AssertionError as error:
            said = "\n".join(town.log(name)[-800:] for name in sellers)
            raise Unavailable(f"{error}. They last said: {said}") from error
