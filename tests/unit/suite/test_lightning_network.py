"""tests/lightning: the chain keeps to the rules that it claims to keep, and no process outlives the tests."""

import asyncio
import os
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.lightning.chain import MATURITY, Chain, Refused, double_sha, parse, script_hash, size
from tests.lightning.process import DidNotStart, Process

ROOT = Path(__file__).parents[3]
SCRIPT = b"\x00\x14" + bytes(20)
SAT = 5_000_000_000
# The signed transaction of BIP 143's first example, and its id.
SIGNED = bytes.fromhex(
    "01000000000102fff7f7881a8099afa6940d42d1e7f6362bec38171ea3edf433541db4e4ad969f00000000494830450221008b9d1dc26ba6a9"
    "cb62127b02742fa9d754cd3bebf337f7a55d114c8e5cdd30be022040529b194ba3f9281a99f2b1c0a19c0489bc22ede944ccf4ecbab4cc618e"
    "f3ed01eeffffffef51e1b804cc89d182d279655c3aa89e815b1b309fe287d9b2b55d57b90ec68a0100000000ffffffff02202cb20600000000"
    "1976a9148280b37df378db99f66f85c95a783a76ac7a6d5988ac9093510d000000001976a9143bde42dbee7e4dbe6a21b2d50ce2f0167faa8"
    "15988ac000247304402203609e17b84f6a7d30c80bfa610b5b4542f32a8a0d5447a12fb1366d7f01cc44a0220573a954c4518331561406f903"
    "00e8f3358f51928d43c212a8caed02de67eebee0121025476c2e83188368da1ff3e292e7acafcdb3566bb0ad253f62fc70f07aeee635711000000"
)
ITS_ID = "e8151a2af31c368a35053ddd4bdb285a8595c769a3ad83e0fa02314a602d4609"


def spend(txid: str, place: int = 0, sat: int = SAT - 1000, twice: bool = False) -> bytes:
    source = bytes.fromhex(txid)[::-1] + struct.pack("<I", place) + size(0) + b"\xff" * 4
    sources = source * 2 if twice else source
    output = struct.pack("<Q", sat) + size(len(SCRIPT)) + SCRIPT
    return struct.pack("<i", 2) + size(2 if twice else 1) + sources + size(1) + output + bytes(4)


@pytest.fixture
def funded() -> tuple[Chain, str]:
    chain = Chain()
    chain.mine(SCRIPT)
    for _ in range(MATURITY - 1):
        chain.mine()
    return chain, chain.blocks[1][0]


def test_the_first_block_is_that_of_regtest():
    known = "0f9188f13cb7b2c71f2a335e3a4fc328bf5beb436012afca590b1a11466e2206"
    assert double_sha(Chain().headers[0])[::-1].hex() == known


def test_each_header_names_the_one_before_it_and_has_work(funded):
    chain, _ = funded
    for before, header in zip(chain.headers, chain.headers[1:], strict=False):
        assert header[4:36] == double_sha(before)
        assert double_sha(header)[31] < 0x80


def test_what_is_spent_waits_and_then_has_a_proof(funded):
    chain, coin = funded
    spent, touched = chain.submit(spend(coin))
    assert touched == {script_hash(SCRIPT)}
    assert [(one.id, one.height, one.fee) for one in chain.history(script_hash(SCRIPT))] == [
        (coin, 1, 0),
        (spent, 0, 1000),
    ]
    after, _ = chain.submit(spend(spent, sat=SAT - 2000))
    chain.mine()
    for txid in (spent, after):
        height, place, branch = chain.proof(txid)
        node = bytes.fromhex(txid)[::-1]
        for step in branch:
            other = bytes.fromhex(step)[::-1]
            node = double_sha(other + node) if place % 2 else double_sha(node + other)
            place //= 2
        assert node == chain.headers[height][36:68]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sat": SAT + 1}, "more than it has"),
        ({"place": 1}, "nobody has"),
        ({"twice": True}, "not a transaction"),
    ],
)
def test_what_is_wrong_is_refused(funded, change, why):
    chain, coin = funded
    with pytest.raises(Refused, match=why):
        chain.submit(spend(coin, **change))
    assert chain.waiting == []


def test_a_coin_is_spent_once(funded):
    chain, coin = funded
    first, _ = chain.submit(spend(coin))
    assert chain.submit(spend(coin)) == (first, set())
    with pytest.raises(Refused, match="is spent"):
        chain.submit(spend(coin, sat=SAT - 2000))


def test_a_young_coinbase_is_not_spent():
    chain = Chain()
    chain.mine(SCRIPT)
    for _ in range(MATURITY - 2):
        chain.mine()
    with pytest.raises(Refused, match="too young"):
        chain.submit(spend(chain.blocks[1][0]))


def test_an_id_covers_no_witness():
    found = parse(SIGNED)
    assert found.id == ITS_ID
    assert len(found.spends) == len(found.outputs) == 2
    assert found.outputs[0].sat == 112_340_000


@pytest.mark.parametrize("raw", [b"", b"\0" * 10, SIGNED[:-1], SIGNED + b"\0"])
def test_what_is_no_transaction_is_refused(raw):
    with pytest.raises(Refused):
        parse(raw)


PARENT = """
import asyncio, sys
from pathlib import Path
from tests.lightning.process import Process

async def main():
    child = Process("child", Path(sys.argv[1]), Path(sys.argv[1]) / "log")
    await child.start(["sh", "-c", "echo $$; exec sleep 600"], {"PATH": "/usr/bin:/bin"})
    await asyncio.sleep(600)

asyncio.run(main())
"""


def _is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.needs("lightning")
def test_a_process_ends_with_the_tests_that_are_killed(tmp_path):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], cwd=ROOT)
    log, end = tmp_path / "log", time.monotonic() + 60
    while not (log.exists() and log.read_text().endswith("\n")) and time.monotonic() < end:
        time.sleep(0.05)
    child = int(log.read_text())
    assert _is_alive(child)
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    while _is_alive(child) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _is_alive(child)


@pytest.mark.needs("lightning")
async def test_a_process_that_does_not_start_says_what_it_said(tmp_path):
    process = Process("loud", tmp_path, tmp_path / "log")
    await process.start(["sh", "-c", "echo no port is free; exit 3"], {"PATH": os.defpath})

    async def never() -> bool:
        await asyncio.sleep(0)
        return False

    with pytest.raises(DidNotStart, match=r"(?s)loud ended with 3.*no port is free"):
        await process.ready(never)
