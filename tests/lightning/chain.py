"""A chain of blocks by the rules of regtest, in memory, as far as a light wallet can look into one.

Proof of work, merkle roots, which output is spent and how old a coinbase is are kept to; scripts and signatures are not
checked. Ids are hex as people write them, with their bytes turned round; a script is named by its hash as Electrum's
protocol 1.4 has it.
"""

import os
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import sha256

COIN = 100_000_000
MATURITY = 100  # blocks after which a coinbase may be spent
_SUBSIDY_SAT = 50 * COIN
_BITS = 0x207FFFFF
_TARGET = 0x7FFFFF << (8 * (0x20 - 3))
_NOBODY = b"\x51"  # OP_TRUE
_GENESIS = bytes.fromhex(
    "01000000"
    + "00" * 32
    + "3ba3edfd7a7b12b27ac72c3e67768f617fc81bc3888a51323a9fb8aa4b1e5e4a"
    + "dae5494dffff7f2002000000"
)


class Refused(Exception):
    """The transaction is none, or spends what it may not."""


def double_sha(data: bytes) -> bytes:
    """Bitcoin's hash, in the order of its bytes."""
    return sha256(sha256(data).digest()).digest()


def script_hash(script: bytes) -> str:
    """How Electrum's protocol names an output's script."""
    return sha256(script).digest()[::-1].hex()


def size(count: int) -> bytes:
    """A length as transactions write it (CompactSize)."""
    return bytes([count]) if count < 0xFD else b"\xfd" + struct.pack("<H", count)


@dataclass(frozen=True, slots=True)
class Output:
    """What can be spent, once."""

    script: bytes
    sat: int


@dataclass(slots=True)
class Transaction:
    """One transaction. `height` is 0 until a block holds it."""

    raw: bytes
    id: str
    spends: tuple[tuple[str, int], ...]
    outputs: tuple[Output, ...]
    height: int = 0
    fee: int = 0


class _Reader:
    def __init__(self, data: bytes) -> None:
        self._data, self.at = data, 0

    def take(self, count: int) -> bytes:
        end = self.at + count
        if count < 0 or end > len(self._data):
            raise Refused("the transaction ends too early")
        piece, self.at = self._data[self.at : end], end
        return piece

    def number(self, count: int) -> int:
        return int.from_bytes(self.take(count), "little")

    def size(self) -> int:
        first = self.number(1)
        return first if first < 0xFD else self.number({0xFD: 2, 0xFE: 4, 0xFF: 8}[first])

    def peek(self, count: int) -> bytes:
        return self._data[self.at : self.at + count]


def parse(raw: bytes) -> Transaction:
    """Read a transaction, with or without witnesses (BIP 144); its id covers none of them.

    Raises:
        Refused: it is none.
    """
    reader = _Reader(raw)
    version = reader.take(4)
    has_witness = reader.peek(2) == b"\0\1"
    if has_witness:
        reader.take(2)
    body = reader.at
    spends = []
    for _ in range(reader.size()):
        spends.append((reader.take(32)[::-1].hex(), reader.number(4)))
        reader.take(reader.size() + 4)
    outputs = []
    for _ in range(reader.size()):
        sat = reader.number(8)
        outputs.append(Output(reader.take(reader.size()), sat))
    middle = raw[body : reader.at]
    for _ in spends if has_witness else ():
        for _ in range(reader.size()):
            reader.take(reader.size())
    locktime = reader.take(4)
    if reader.at != len(raw) or not outputs or len(set(spends)) != len(spends) or not spends:
        raise Refused("this is not a transaction")
    return Transaction(raw, double_sha(version + middle + locktime)[::-1].hex(), tuple(spends), tuple(outputs))


def _levels(leaves: Sequence[bytes]) -> list[list[bytes]]:
    """A merkle tree from its leaves to its root; the last of an odd level counts twice."""
    levels = [list(leaves)]
    while len(levels[-1]) > 1:
        row = levels[-1]
        if len(row) % 2:
            row.append(row[-1])
        levels.append([double_sha(row[at] + row[at + 1]) for at in range(0, len(row), 2)])
    return levels


def _leaves(ids: Sequence[str]) -> list[bytes]:
    return [bytes.fromhex(one)[::-1] for one in ids]


@dataclass(slots=True)
class Chain:
    """Headers, what each block holds, what waits for one, and what each script has to do with it."""

    headers: list[bytes] = field(default_factory=lambda: [_GENESIS])
    blocks: list[list[str]] = field(default_factory=lambda: [[]])
    waiting: list[str] = field(default_factory=list)
    transactions: dict[str, Transaction] = field(default_factory=dict)
    spent: dict[tuple[str, int], str] = field(default_factory=dict)
    _about: dict[str, list[str]] = field(default_factory=dict)
    # A node holds its chain for stale, and fails payments, if the newest block is hours old.
    _time: int = field(default_factory=lambda: int(time.time()) - 600)

    @property
    def height(self) -> int:
        """Of the newest block; the first one has none."""
        return len(self.headers) - 1

    def submit(self, raw: bytes) -> tuple[str, set[str]]:
        """Let a transaction wait for the next block; its id and the scripts that it touches.

        Raises:
            Refused: it is none, or spends what is unknown, spent or too young, or more than there is.
        """
        new = parse(raw)
        if new.id in self.transactions:
            return new.id, set()
        new.fee = sum(self._spendable(*one).sat for one in new.spends) - sum(one.sat for one in new.outputs)
        if new.fee < 0:
            raise Refused("it spends more than it has")
        self.waiting.append(new.id)
        return new.id, self._enter(new)

    def mine(self, script: bytes = _NOBODY) -> set[str]:
        """Add a block with all that waits, its subsidy paid to `script`; the scripts that it touches."""
        height = self.height + 1
        coinbase = self._coinbase(height, script)
        touched = self._enter(coinbase)
        ids = [coinbase.id, *self.waiting]
        for one in ids:
            self.transactions[one].height = height
            touched |= self._scripts(self.transactions[one])
        self.waiting = []
        self.blocks.append(ids)
        self._time += 1
        self.headers.append(self._header(_levels(_leaves(ids))[-1][0]))
        return touched

    def proof(self, txid: str) -> tuple[int, int, list[str]]:
        """Height, place in the block, and the branch to the root its header has.

        Raises:
            LookupError: no block holds it.
        """
        height = self.transactions[txid].height
        place = at = self.blocks[height].index(txid)
        branch = []
        for row in _levels(_leaves(self.blocks[height]))[:-1]:
            branch.append(row[at ^ 1][::-1].hex())
            at //= 2
        return height, place, branch

    def history(self, script: str) -> list[Transaction]:
        """All transactions about a script: those in blocks first, in their order."""
        found = [self.transactions[one] for one in self._about.get(script, ())]
        return sorted(found, key=lambda one: (one.height == 0, one.height, one.id))

    def _spendable(self, txid: str, place: int) -> Output:
        source = self.transactions.get(txid)
        if source is None or place >= len(source.outputs):
            raise Refused("it spends what nobody has")
        if (txid, place) in self.spent:
            raise Refused("it spends what is spent")
        is_coinbase = source.height > 0 and self.blocks[source.height][0] == txid
        if is_coinbase and self.height + 1 - source.height < MATURITY:
            raise Refused("it spends a coinbase that is too young")
        return source.outputs[place]

    def _scripts(self, one: Transaction) -> set[str]:
        sources = [self.transactions[txid].outputs[place] for txid, place in one.spends if txid in self.transactions]
        return {script_hash(output.script) for output in (*sources, *one.outputs)}

    def _enter(self, new: Transaction) -> set[str]:
        self.transactions[new.id] = new
        for spent in new.spends:
            self.spent[spent] = new.id
        touched = self._scripts(new)
        for script in touched:
            self._about.setdefault(script, []).append(new.id)
        return touched

    def _coinbase(self, height: int, script: bytes) -> Transaction:
        number = height.to_bytes(height.bit_length() // 8 + 1, "little")  # BIP 34
        mark = size(len(number)) + number + b"\x04" + os.urandom(4)
        raw = struct.pack("<i", 1) + b"\1" + bytes(32) + b"\xff" * 4 + size(len(mark)) + mark + b"\xff" * 4
        raw += b"\1" + struct.pack("<q", _SUBSIDY_SAT) + size(len(script)) + script + bytes(4)
        return parse(raw)

    def _header(self, root: bytes) -> bytes:
        start = struct.pack("<i", 0x20000000) + double_sha(self.headers[-1]) + root
        for nonce in range(1 << 32):
            header = start + struct.pack("<III", self._time, _BITS, nonce)
            if int.from_bytes(double_sha(header), "little") <= _TARGET:
                return header
        raise AssertionError("no nonce makes a block")
