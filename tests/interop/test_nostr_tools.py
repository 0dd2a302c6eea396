"""Foreign clients work: nostr-tools, as its users would write it, buys a free job and talks to an agent."""

import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from relays.key import Key
from tests.market_part import ECHO_FREE, PATIENT, Market, Spec, market, run

pytestmark = [pytest.mark.needs("node"), pytest.mark.asyncio(loop_scope="module")]
SCRIPTS = Path(__file__).parent / "node"
OWNER = Key.generate()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    folder = tmp_path_factory.mktemp("interop")
    async with market(
        folder,
        {
            "seller": ECHO_FREE,
            "buyer": Spec(replace=PATIENT, owner=OWNER.npub),
        },
        mint=False,
    ) as opened:
        yield opened


async def _script(name: str, secret: Key | None = None, **options: str) -> dict[str, Any]:
    argv = ["node", name, *(f"--{option}={value}" for option, value in options.items())]
    env = dict(os.environ) | ({"DM_SECRET": secret.secret.hex()} if secret else {})
    ran = await run(*argv, cwd=SCRIPTS, env=env, timeout=60)
    assert ran.out, ran.err
    report: dict[str, Any] = json.loads(ran.out)
    assert ran.code == (0 if report["ok"] else 1), (ran.out, ran.err)
    return report


async def test_a_plain_nip_90_customer_gets_a_free_job_done(town: Market) -> None:
    seller = town.rings["seller"].node.pubkey
    report = await _script("customer.mjs", relay=town.relay, provider=seller, text="two plus two, ünïcode ✓")
    assert report["ok"], report
    assert report["result"] == "two plus two, ünïcode ✓"
    assert report["result_kind"] == 6050
    assert report["statuses"][0] == "processing"
    assert report["signed_by"] == seller
    assert report["addressed_to"] == report["customer"]
    assert report["answers"] == report["request"]
    assert report["request_is_quoted"]
    assert not report["forged"]


@pytest.mark.parametrize("scheme", ["nip04", "nip44"])
@pytest.mark.parametrize("inside", ["asked", "all"])
async def test_an_encrypted_job_is_done_and_answered_in_its_own_cipher(town: Market, scheme: str, inside: str) -> None:
    seller = town.rings["seller"].node.pubkey
    text = f"nobody else reads this: {scheme} {inside} ✓"
    report = await _script(
        "private_customer.mjs", relay=town.relay, provider=seller, text=text, scheme=scheme, inside=inside
    )
    assert report["ok"], report
    assert report["result"] == text
    assert report["legacy"] is (scheme == "nip04")
    assert (report["marked"], report["answers"], report["names"], report["leaked"]) == (True, True, 0, False)


@pytest.mark.parametrize("scheme", ["nip44", "nip04", "wrap"])
async def test_two_nodes_deal_in_private_over_a_real_relay(town: Market, scheme: str) -> None:
    seller = town.rings["seller"].node
    text = f"for your eyes only, {scheme}"
    ran = await town.vendo("buyer", "buy", "--kind", "5050", "--input", text, "--to", seller.npub, "--private", scheme)
    assert ran.code == 0, (ran.out, ran.err)
    assert (ran.json["result"], ran.json["seller"], ran.json["private"]) == (text, seller.pubkey, scheme)
    requests = await town.requests("buyer")
    assert all(text not in one.to_json() for one in requests)
    assert (ran.json["request_id"] in {one.id for one in requests}) is (scheme != "wrap")


async def test_a_job_builds_on_an_earlier_one_over_a_real_relay(town: Market) -> None:
    """By the id of the job, by that of its request, and on an event that the relay has."""
    asked = ("buy", "--kind", "5050", "--prefer", "balanced", "--to", town.rings["seller"].node.npub)
    first = (await town.vendo("buyer", *asked, "--input", "once upon a time")).json
    again = await town.vendo("buyer", *asked, "--input", f"job:{first['job_id']}", "--input", "there was a node")
    assert again.code == 0, (again.out, again.err)
    assert again.json["result"] == "once upon a time\n\nthere was a node"
    third = await town.vendo("buyer", *asked, "--input", f"job:{again.json['request_id']}")
    assert third.json["result"] == again.json["result"]
    event = await town.vendo("buyer", *asked, "--input", f"event:{first['result_id']}")
    assert event.json["result"] == "once upon a time"
    nothing = await town.vendo("buyer", *asked, "--input", f"job:{'0' * 32}")
    assert nothing.error_code == "dvm.no_such_job"


async def test_the_agents_owner_asks_by_dm_and_decrypts_the_reply(town: Market) -> None:
    agent = town.rings["buyer"].agent("agent").pubkey
    report = await _script("dm.mjs", OWNER, relay=town.relay, agent=agent, text="ask: hello from nostr-tools")
    assert report["ok"], report
    assert report["reply"].startswith("hello from nostr-tools")
    assert (report["kind"], report["wrap_kind"]) == (14, 1059)
    assert report["from"] == agent
    assert report["addressed_to"] == OWNER.pubkey
    assert report["wrap_signed_by"] not in (agent, OWNER.pubkey), "a wrap is signed by a key used once"
    assert report["backdated_by_s"] >= -5
    assert not report["forged"]
    seller = town.rings["seller"].node
    assert seller.npub in report["reply"], "the reply names who did the work"


async def test_a_stranger_with_nostr_tools_gets_no_reply(town: Market) -> None:
    agent = town.rings["buyer"].agent("agent").pubkey
    before = {one.id for one in await town.requests("buyer")}
    report = await _script("dm.mjs", Key.generate(), relay=town.relay, agent=agent, text="ask: who are you?", wait="12")
    assert not report["ok"]
    assert report["own"] == ["ask: who are you?"], "the relay did carry the messages"
    assert {one.id for one in await town.requests("buyer")} <= before, "older ones may have expired"
