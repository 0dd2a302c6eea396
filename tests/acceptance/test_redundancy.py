"""One job from three sellers, of whom one lies: whole nodes over a real relay and a real mint."""

import asyncio
import time

import pytest

from relays.event import Event
from relays.kind import is_request
from relays.nip90 import read_request, result_draft
from tests.acceptance.test_reputation import Thief
from tests.market_part import PATIENT, Market, Spec, market, until

pytestmark = pytest.mark.timeout(240)
ECHO_21 = '\n[[sell]]\nkind = 5050\nprice_msat = 21000\nprovider = "echo"\n'
COMPARED = {"deterministic = [5400, 5901]": "deterministic = [5050]", **PATIENT}
WORDS = ("buy", "--kind", "5050", "--redundancy", "2/3", "--max-msat", "150000", "--timeout", "60")


class Liar(Thief):
    """Takes the money, and delivers something else than what is right."""

    async def asked(self, kind: int) -> Event:
        async def found() -> Event | None:
            mine = (one for one in await self.town.events() if one.kind == kind and is_request(one.kind))
            return next((one for one in mine if self.key.pubkey in one.values("p")), None)

        event = await until(found, "the request to the liar")
        assert isinstance(event, Event)
        return event

    async def lie(self, kind: int, text: str) -> None:
        request = read_request(await self.rob(kind))
        await self.send(self.key.sign(result_draft(request=request, content=text, created_at=int(time.time()))))


async def _known(town: Market, count: int) -> bool:
    found = await town.get("buyer", "node/compute/providers")
    return sum(5050 in one["kinds"] and one.get("source") != "builtin" for one in found) >= count


async def test_two_honest_sellers_outvote_one_that_lies_and_all_of_it_is_paid_from_one_reservation(tmp_path) -> None:
    nodes = {"one": Spec(ECHO_21), "two": Spec(ECHO_21), "buyer": Spec(replace=COMPARED)}
    async with market(tmp_path, nodes) as town:
        await town.fund("buyer", 500)
        refused = await town.vendo("buyer", *WORDS, "--input", "too early")
        assert refused.error_code == "dvm.too_few_sellers"
        liar = Liar(town)
        await liar.announce(5050, "buyer")
        await until(lambda: _known(town, 3), "all sellers to be known")
        lying = asyncio.create_task(liar.lie(5050, "a lie"))
        ran = await town.vendo("buyer", *WORDS, "--input", "the truth", "--key", "once")
        assert ran.code == 0, ran
        await lying
        job_id = ran.json["job_id"]
        assert ran.json["result"] == "the truth"

        async def closed() -> dict | None:
            shown = await town.get("buyer", f"node/compute/jobs/{job_id}/status")
            return shown if shown["closed"] else None

        shown = await until(closed, "all money to be final")
        attempts = {one["seller"]: one for one in shown["redundancy"]["attempts"]}
        honest = {town.rings[name].node.pubkey for name in ("one", "two")}
        assert {seller: one["agrees"] for seller, one in attempts.items()} == {
            **dict.fromkeys(honest, True),
            liar.key.pubkey: False,
        }
        assert shown["paid_msat"] == 3 * 21_000
        assert shown["cost_msat"] == sum(one["cost_msat"] for one in attempts.values()) <= shown["reserved_msat"]
        spent = 500 - (await town.balance("buyer"))["live"]
        assert spent * 1_000 == shown["cost_msat"], "what left the wallet is what is booked"
        for name in ("one", "two"):
            assert (await town.balance(name))["live"] == 21
        assert (await town.get("buyer", "node/wallet/audit"))["clean"]
        again = await town.vendo("buyer", *WORDS, "--input", "the truth", "--key", "once")
        assert (again.json["job_id"], again.json["result"]) == (job_id, "the truth")
        assert 500 - (await town.balance("buyer"))["live"] == spent
        listed = await town.vendo("buyer", "jobs")
        assert [one["job_id"] for one in listed.json] == [job_id]
