import asyncio
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from core.error import InvalidInput
from dvm.acceptance import check_result
from dvm.error import BadResult
from dvm.nonce import leading_zero_bits, parse_unsigned
from dvm.provider.pow import ProofOfWork
from dvm.request import ComputeRequest, Datum

EVENT = {"pubkey": "ab" * 32, "created_at": 1_700_000_000, "kind": 1, "tags": [["t", "demo"]], "content": 'so "0000" ü'}


def ask(bits: int | str = 12, event: object = EVENT) -> ComputeRequest:
    return ComputeRequest(5970, (Datum(json.dumps(event)),), (("pow", str(bits)),))


@pytest.fixture
def miner():
    with ThreadPoolExecutor(2) as executor:
        yield ProofOfWork(executor, max_bits=20, start=lambda: 7)


@pytest.mark.parametrize("bits", [0, 1, 8, 11, 16])
async def test_the_mined_event_has_the_bits_and_passes_the_buyers_check(miner: ProofOfWork, bits: int) -> None:
    answer = await miner.run(ask(bits))
    check_result(ask(bits), answer.content)
    mined = json.loads(answer.content)
    assert leading_zero_bits(mined["id"]) >= bits
    assert mined["tags"][-1][0::2] == ["nonce", str(bits)]
    assert mined["content"] == EVENT["content"]


async def test_an_earlier_nonce_is_replaced(miner: ProofOfWork) -> None:
    event = {**EVENT, "tags": [["nonce", "5", "1"], ["t", "demo"]]}
    mined = json.loads((await miner.run(ask(8, event))).content)
    assert [tag[0] for tag in mined["tags"]] == ["t", "nonce"]


async def test_content_that_looks_like_a_nonce_is_left_alone(miner: ProofOfWork) -> None:
    event = {**EVENT, "content": '["nonce","0000000000000000","8"]]'}
    answer = await miner.run(ask(8, event))
    check_result(ask(8, event), answer.content)


@pytest.mark.parametrize("bits", [21, 300, "-1", "many", ""])
def test_bits_over_the_limit_or_that_make_no_sense_are_refused(miner: ProofOfWork, bits: int | str) -> None:
    with pytest.raises(InvalidInput):
        miner.check(ask(bits))


@pytest.mark.parametrize(
    "event",
    [[], "x", {**EVENT, "kind": "1"}, {**EVENT, "pubkey": "AB" * 32}, {**EVENT, "tags": [[1]]}, {"content": ""}],
)
def test_what_is_not_an_unsigned_event_is_refused(miner: ProofOfWork, event: object) -> None:
    with pytest.raises(InvalidInput):
        miner.check(ask(8, event))


async def test_mining_stops_soon_when_it_is_cancelled() -> None:
    with ThreadPoolExecutor(1) as executor:
        miner = ProofOfWork(executor, max_bits=60, workers=1)
        task = asyncio.create_task(miner.run(ask(60)))
        await asyncio.sleep(0.05)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        # the one slice that was running ends, and no other begins
        await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(executor, lambda: None), 5)


async def _mined(miner: ProofOfWork) -> dict:
    return json.loads((await miner.run(ask(8))).content)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda e: {**e, "content": "other"},
        lambda e: {**e, "kind": 2},
        lambda e: {**e, "pubkey": "cd" * 32},
        lambda e: {**e, "tags": e["tags"][1:]},
        lambda e: {**e, "tags": [*e["tags"][:-1], ["nonce", "1", "8"]]},
        lambda e: {**e, "tags": [*e["tags"][:-1], [*e["tags"][-1][:2], "4"]]},
        lambda e: {**e, "tags": e["tags"][:-1]},
        lambda e: {**e, "id": "0" * 64},
        lambda e: {**e, "created_at": e["created_at"] - 1},
        lambda e: {},
    ],
)
async def test_the_buyer_refuses_a_mined_event_that_is_not_what_was_asked(miner: ProofOfWork, spoil) -> None:
    spoiled = spoil(await _mined(miner))
    if "id" in spoiled and spoiled["id"] != "0" * 64:
        spoiled["id"] = parse_unsigned(json.dumps(spoiled)).id
    with pytest.raises(BadResult):
        check_result(ask(8), json.dumps(spoiled))


def test_too_few_bits_are_refused() -> None:
    event = parse_unsigned(json.dumps(EVENT)).with_nonce("1", 20)
    assert leading_zero_bits(event.id) < 20
    with pytest.raises(BadResult):
        check_result(ask(20), event.to_json())
