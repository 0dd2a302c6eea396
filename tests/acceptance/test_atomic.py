"""Sealed results between whole nodes, over a real relay and a real mint with its default fees (ADR 25)."""

import json
from hashlib import sha256

import pytest

from relays.kind import GIFT_WRAP
from relays.nip90 import read_answer
from tests.market_part import PATIENT, Market, Spec, market, until

ATOMIC = {"atomic = false": "atomic = true", **PATIENT}
ECHO_21 = '\n[[sell]]\nkind = 5050\nprice_msat = 21000\nprovider = "echo"\n'


async def proven(town: Market, name: str) -> bool:
    return all(one["proven"] for one in await town.get(name, "node/wallet/mints"))


async def bought(town: Market, text: str, *more: str) -> dict:
    ran = await town.vendo("buyer", "buy", "--kind", "5050", "--input", text, *more)
    assert ran.code == 0, ran
    job_id = ran.json["job_id"]

    async def closed() -> dict | None:
        shown = await town.get("buyer", f"node/compute/jobs/{job_id}/status")
        return shown if shown["closed"] else None

    return await until(closed, "the job to close")


@pytest.mark.parametrize("mode", ["A", "B"])
async def test_two_nodes_try_their_mint_and_then_swap_money_for_the_key_of_the_result(tmp_path, mode: str) -> None:
    orders = {"order_max_msat = 0": f"order_max_msat = {30_000 if mode == 'A' else 0}"}
    specs = {"buyer": Spec(replace=ATOMIC), "seller": Spec(ECHO_21, replace=ATOMIC | orders)}
    async with market(tmp_path, specs) as town:
        for name in specs:
            assert not await proven(town, name), "nothing is proven without money"
            await town.fund(name, 200)
            await until(lambda name=name: proven(town, name), f"the mint to be tried by {name}")
        before = await town.balance("buyer"), await town.balance("seller")
        assert all(200 - 6 <= one["live"] < 200 for one in before)
        shown = await bought(town, "a text that nobody else may read")
        assert (shown["method"], shown["mode"], shown["money"]) == ("atomic", mode, "claimed"), shown
        assert shown["result"] == "a text that nobody else may read"
        after = await town.balance("buyer"), await town.balance("seller")
        assert after[1]["live"] - before[1]["live"] == 21
        assert before[0]["live"] - after[0]["live"] == shown["cost_msat"] // 1000
        await is_sealed(town, shown)
        assert (await town.get("buyer", "node/wallet/audit"))["clean"]
        assert (await town.get("seller", "node/wallet/audit"))["clean"]


async def is_sealed(town: Market, shown: dict) -> None:
    """What the relay and the mint show: a text that is no text, and the preimage of what it was sealed under."""
    (result,) = [one for one in await town.events() if one.kind == 6050]
    answer = read_answer(result)
    assert answer.seal is not None
    assert "nobody else" not in answer.content
    async with town.http.post(f"{shown['mint']}/v1/checkstate", json={"Ys": shown["ys"]}) as reply:
        states = (await reply.json())["states"]
    preimages = {json.loads(one["witness"])["preimage"] for one in states}
    assert {sha256(bytes.fromhex(one)).hexdigest() for one in preimages} == {answer.seal.hash}
    assert len([one for one in await town.events() if one.kind == GIFT_WRAP]) >= 2
