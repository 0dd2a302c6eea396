"""An Electrum server over a chain: protocol 1.4, JSON lines over TCP, on loopback, in the tests' own process."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

from tests.lightning.chain import COIN, Chain, Refused, Transaction, double_sha

_LONGEST_LINE = 1 << 24
_MOST_HEADERS = 2016
_FEE_RATE = 2000 / COIN  # bitcoin for a thousand bytes
_HEADERS, _SCRIPT = "blockchain.headers.subscribe", "blockchain.scripthash.subscribe"


@dataclass(eq=False, slots=True)
class _Client:
    """One connection, and what it wants to be told."""

    writer: asyncio.StreamWriter
    wants_headers: bool = False
    scripts: set[str] = field(default_factory=set)

    def send(self, message: Any) -> None:
        self.writer.write(json.dumps(message).encode() + b"\n")

    def tell(self, method: str, *params: Any) -> None:
        self.send({"jsonrpc": "2.0", "method": method, "params": params})


class Server:
    """What wallets ask about the chain; they are told of everything that they have subscribed to."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self.port = 0
        self.unknown: list[str] = []  # methods that were asked for and are not there
        self._clients: set[_Client] = set()

    def mine(self, blocks: int, script: bytes | None = None) -> None:
        """More blocks, their subsidy for `script`; wallets hear of the last one."""
        touched = set()
        for _ in range(blocks):
            touched |= self.chain.mine() if script is None else self.chain.mine(script)
        self._tell(touched, new_block=True)

    def _tell(self, touched: set[str], *, new_block: bool) -> None:
        for client in self._clients:
            if new_block and client.wants_headers:
                client.tell(_HEADERS, self._tip())
            for script in sorted(touched & client.scripts):
                client.tell(_SCRIPT, script, self._status(script))

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection to its end."""
        client = _Client(writer)
        self._clients.add(client)
        try:
            while line := await reader.readline():
                asked = json.loads(line)
                answers = [self._answer(client, one) for one in (asked if isinstance(asked, list) else [asked])]
                client.send(answers if isinstance(asked, list) else answers[0])
                await writer.drain()
        except ConnectionError:
            return
        finally:
            self._clients.discard(client)
            writer.close()

    def _answer(self, client: _Client, asked: Mapping[str, Any]) -> dict[str, Any]:
        answer = {"jsonrpc": "2.0", "id": asked.get("id")}
        method = self._methods(client).get(asked["method"])
        if method is None:
            self.unknown.append(asked["method"])
            return answer | {"error": {"code": -32601, "message": f"no method {asked['method']!r}"}}
        try:
            return answer | {"result": method(*asked.get("params", ()))}
        except (Refused, LookupError, ValueError, TypeError) as error:
            return answer | {"error": {"code": 1, "message": f"{type(error).__name__}: {error}"}}

    def _methods(self, client: _Client) -> Mapping[str, Callable[..., Any]]:
        def about_headers() -> Any:
            client.wants_headers = True
            return self._tip()

        def about_script(script: str) -> str | None:
            client.scripts.add(script)
            return self._status(script)

        return {
            "server.version": lambda *_: ["vendo-test 1", "1.4"],
            "server.features": self._features,
            "server.ping": lambda: None,
            "server.banner": lambda: "A chain for tests",
            "server.donation_address": lambda: "",
            "server.peers.subscribe": list,
            "mempool.get_fee_histogram": list,
            "blockchain.estimatefee": lambda *_: _FEE_RATE,
            "blockchain.relayfee": lambda: _FEE_RATE / 2,
            "blockchain.block.header": lambda height, *_: self.chain.headers[height].hex(),
            "blockchain.block.headers": self._some_headers,
            "blockchain.transaction.get": lambda txid, *_: self.chain.transactions[txid].raw.hex(),
            "blockchain.transaction.get_merkle": self._merkle,
            "blockchain.transaction.id_from_pos": lambda height, place, *_: self.chain.blocks[height][place],
            "blockchain.transaction.broadcast": self._broadcast,
            "blockchain.scripthash.get_history": lambda script: [_row(one) for one in self.chain.history(script)],
            "blockchain.scripthash.unsubscribe": lambda script: client.scripts.discard(script) is None,
            _HEADERS: about_headers,
            _SCRIPT: about_script,
        }

    def _features(self) -> dict[str, Any]:
        genesis = double_sha(self.chain.headers[0])[::-1].hex()
        versions = {"protocol_min": "1.4", "protocol_max": "1.4", "server_version": "vendo-test 1"}
        return {"genesis_hash": genesis, "hash_function": "sha256", "hosts": {}, "pruning": None, **versions}

    def _tip(self) -> dict[str, Any]:
        return {"hex": self.chain.headers[-1].hex(), "height": self.chain.height}

    def _some_headers(self, start: int, count: int, *_: Any) -> dict[str, Any]:
        some = self.chain.headers[start : start + min(count, _MOST_HEADERS)]
        return {"hex": b"".join(some).hex(), "count": len(some), "max": _MOST_HEADERS}

    def _merkle(self, txid: str, *_: Any) -> dict[str, Any]:
        height, place, branch = self.chain.proof(txid)
        return {"block_height": height, "pos": place, "merkle": branch}

    def _broadcast(self, raw: str) -> str:
        txid, touched = self.chain.submit(bytes.fromhex(raw))
        self._tell(touched, new_block=False)
        return txid

    def _status(self, script: str) -> str | None:
        rows = "".join(f"{one.id}:{one.height}:" for one in self.chain.history(script))
        return sha256(rows.encode()).hexdigest() if rows else None


def _row(one: Transaction) -> dict[str, Any]:
    waiting = {} if one.height else {"fee": one.fee}
    return {"tx_hash": one.id, "height": one.height, **waiting}


@asynccontextmanager
async def electrum_server() -> AsyncIterator[Server]:
    """A server on a free port, over a chain of one block."""
    server = Server(Chain())
    server.mine(1)
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0, limit=_LONGEST_LINE)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for client in list(server._clients):
            client.writer.close()
        await listener.wait_closed()
