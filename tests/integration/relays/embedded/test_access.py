"""Who may connect, write and how often, over real sockets."""

import asyncio
import json
import time
from dataclasses import replace

import aiohttp
import pytest

from relays.embedded.access import Access
from relays.embedded.information import Description
from relays.embedded.limit import Limits
from relays.embedded.rate import Rate, Rates
from relays.embedded.toll import PaymentRefused
from relays.event import Draft
from tests.integration.relays.embedded.relay_part import SetClock, running
from tests.integration.relays.hostile_part import until
from tests.unit.relays.embedded.event_part import ALICE, BOB, NOW, note

ALL = ()  # nobody is exempt


class Paid(dict):
    """A toll whose payments a test makes by hand."""

    mints = ("https://mint.example.com",)

    @property
    def paid(self):
        return self

    async def pay(self, pubkey, token):
        raise AssertionError("nobody pays here")


async def test_writers_need_one_of_the_ways(tmp_path):
    mined = mine(ALICE, 8)
    access = Access(write_by=("key", "pow", "payment"), keys=frozenset({BOB.pubkey}), pow_bits=8)
    toll = Paid()
    async with running(tmp_path / "relay.db", clock=SetClock(NOW), access=access, toll=toll) as relay:
        wire = await relay.connect()
        assert (await wire.publish(note(content="nothing")))[1].startswith("restricted:")
        assert await wire.publish(note(BOB)) == (True, "")
        assert await wire.publish(note(kind=1059, with_tags=[("p", BOB.pubkey)])) == (True, "")
        assert await wire.publish(mined) == (True, "")
        toll[ALICE.pubkey] = NOW + 10
        assert await wire.publish(note(content="paid")) == (True, "")
        toll[ALICE.pubkey] = NOW
        assert not (await wire.publish(note(content="too late")))[0]
        async with relay.http.get(relay.url.replace("ws", "http", 1)) as answer:
            limitation = json.loads(await answer.read())["limitation"]
        assert limitation["restricted_writes"] is True
        assert limitation["payment_required"] is False


def mine(key, bits, aim=None):
    for number in range(1 << 20):
        event = key.sign(Draft(1, "", (("nonce", str(number), str(bits if aim is None else aim)),), NOW))
        if int(event.id, 16) >> (256 - bits) == 0:
            return event
    raise AssertionError


async def test_work_counts_only_if_it_was_aimed_at(tmp_path):
    lucky, short = mine(ALICE, 6, aim=2), mine(ALICE, 3)
    access = Access(write_by=("pow",), pow_bits=6)
    async with running(tmp_path / "relay.db", clock=SetClock(NOW), access=access) as relay:
        wire = await relay.connect()
        assert "commits to 2" in (await wire.publish(lucky))[1]
        assert (await wire.publish(short))[1].startswith("pow:")
        assert await wire.publish(mine(ALICE, 6)) == (True, "")
        async with relay.http.get(relay.url.replace("ws", "http", 1)) as answer:
            assert json.loads(await answer.read())["limitation"]["min_pow_difficulty"] == 6


async def test_kinds_and_keys_can_be_kept_out(tmp_path):
    access = Access(denied_keys=frozenset({BOB.pubkey}), kinds=((0, 1), (5_000, 5_999)), denied_kinds=((5_100, 5_200),))
    async with running(tmp_path / "relay.db", clock=SetClock(NOW), access=access) as relay:
        wire = await relay.connect()
        verdicts = [(await wire.publish(note(kind=kind)))[0] for kind in (0, 1, 2, 5_000, 5_100, 5_200, 5_999, 6_000)]
        assert verdicts == [True, True, False, True, False, False, True, False]
        assert (await wire.publish(note(BOB)))[1].startswith("blocked:")


async def test_reading_and_writing_can_ask_for_a_key(tmp_path):
    access = Access(read_by="key", keys=frozenset({ALICE.pubkey}), auth_to_write=True)
    async with running(tmp_path / "relay.db", access=access) as relay:
        wire = await relay.connect()
        assert (await wire.publish(note()))[1].startswith("auth-required:")
        await wire.say("REQ", "a", {})
        assert (await wire.hear())[2].startswith("auth-required:")
        for key, word in ((BOB, "restricted:"), (ALICE, "")):
            tags = (("relay", relay.url), ("challenge", wire.challenge))
            await wire.say("AUTH", key.sign(Draft(22_242, "", tags, int(time.time()))).to_dict())
            assert (await wire.hear())[2] is True
            await wire.say("REQ", "a", {"limit": 0})
            assert (await wire.hear())[-1].startswith(word or "a")
            await wire.say("CLOSE", "a")
        assert await wire.publish(note()) == (True, "")
        async with relay.http.get(relay.url.replace("ws", "http", 1)) as answer:
            assert json.loads(await answer.read())["limitation"]["auth_required"] is True


async def test_networks_can_be_kept_out_and_a_proxy_is_believed_only_if_it_is_ours(tmp_path):
    denied = Access(denied_addresses=("203.0.113.0/24", "2001:db8::/32"), proxies=("127.0.0.0/8",))
    async with running(tmp_path / "relay.db", access=denied) as relay:
        for address, status in (
            ("203.0.113.7", 403),
            ("198.51.100.1, 203.0.113.7, 127.0.0.9", 403),
            ("2001:db8::1", 403),
            ("203.0.113.7, 198.51.100.1", 101),
            ("junk", 101),
            ("", 101),
        ):
            assert await knock(relay, address) == status, address
    async with running(tmp_path / "relay.db", access=Access(denied_addresses=("203.0.113.0/24",))) as relay:
        assert await knock(relay, "203.0.113.7") == 101, "anybody can write that header"
    async with running(tmp_path / "relay.db", access=Access(addresses=("10.0.0.0/8",))) as relay:
        assert await knock(relay, "10.0.0.1") == 403


async def knock(relay, forwarded):
    try:
        async with relay.http.ws_connect(relay.url, headers={"X-Forwarded-For": forwarded}):
            return 101
    except aiohttp.WSServerHandshakeError as refused:
        return refused.status


async def test_rates_hold_and_refill(tmp_path):
    rates = Rates(events=Rate(60, 10), requests=Rate(60, 5), auths=Rate(6, 3), exempt=ALL)
    async with running(tmp_path / "relay.db", rates=rates) as relay:
        wire = await relay.connect()
        for number in range(60):
            await wire.offer(note(content=str(number)))
        heard = [await wire.hear() for _ in range(60)]
        refused = [one[3] for one in heard if not one[2]]
        assert 10 <= 60 - len(refused) < 50
        assert all(reason.startswith("rate-limited:") for reason in refused)
        await asyncio.sleep(1.1)  # one more
        assert await wire.publish(note(content="again")) == (True, "")
        for number in range(40):
            await wire.say("REQ", f"r{number}", {"limit": 0})
        closed = [one[2] for one in [await wire.hear() for _ in range(40)] if one[0] == "CLOSED"]
        assert 5 <= 40 - len(closed) < 35
        assert all(reason.startswith("rate-limited:") for reason in closed)
        answers = []
        for _ in range(8):
            await wire.say("AUTH", note(kind=22_242).to_dict())
            answers.append((await wire.hear())[3].partition(":")[0])
        assert answers.count("rate-limited") >= 4
        other = await relay.connect()
        await other.say("AUTH", note(kind=22_242).to_dict())
        assert (await other.hear())[3].startswith("rate-limited:"), "an address is counted, not a connection"


async def test_too_many_bytes_are_read_more_slowly_and_none_is_lost(tmp_path):
    rates = Rates(bytes=Rate(60 * 200_000, 100_000), events=Rate(), events_per_key=Rate(), exempt=ALL)
    async with running(tmp_path / "relay.db", rates=rates) as relay:
        wire = await relay.connect()
        events = [note(content="x" * 10_000 + str(number)) for number in range(30)]  # 0.3 MB
        began = time.monotonic()
        for event in events:
            await wire.offer(event)
        for _ in events:
            assert (await wire.hear())[2] is True
        assert time.monotonic() - began > 0.7  # 0.1 MB at once, the rest at 0.2 MB a second


async def test_connections_of_one_address_are_bounded(tmp_path):
    async with running(tmp_path / "relay.db", rates=Rates(connections=3, exempt=ALL)) as relay:
        wires = [await relay.connect() for _ in range(3)]
        assert await knock(relay, "") == 429
        await wires[0].ws.close()
        await until(lambda: relay.relay.health()["connections"] == 2)
        assert await knock(relay, "") == 101


async def test_idle_sockets_of_one_address_are_bounded_and_a_good_client_gets_in(tmp_path):
    rates = Rates(connections=0, exempt=ALL)
    async with running(tmp_path / "relay.db", Limits(handshake_s=6.0), rates=rates) as relay:
        host, port = relay.url.removeprefix("ws://").split(":")
        began = time.monotonic()
        sockets = [await asyncio.open_connection(host, int(port)) for _ in range(100)]
        refused = 0
        for reader, _ in sockets:
            try:
                refused += await asyncio.wait_for(reader.read(), 0.005) == b""
            except ConnectionResetError:
                refused += 1
            except TimeoutError:
                continue
        assert refused == 36
        await asyncio.sleep(max(0.0, 6.5 - (time.monotonic() - began)))
        assert await knock(relay, "") == 101
        for _, writer in sockets:
            writer.close()


async def test_nip_11_shows_what_holds(tmp_path):
    rates = Rates(events=Rate(77, 7), connections=9)
    description = Description(contact="mailto:me@example.com", public_url="wss://relay.example.com")
    async with running(tmp_path / "relay.db", Limits(filters=3), rates=rates, description=description) as relay:
        async with relay.http.get(relay.url.replace("ws", "http", 1)) as answer:
            document = json.loads(await answer.read())
        assert document["limitation"]["max_filters"] == 3
        assert document["limitation"]["max_listed_keys"] == 20_000
        assert document["rates"]["events_per_minute"] == 77
        assert document["rates"]["connections_per_address"] == 9
        assert document["contact"] == "mailto:me@example.com"
        assert {1, 9, 11, 13, 17, 40, 42, 45, 50, 62, 65, 70, 77} <= set(document["supported_nips"])
        assert "fees" not in document
        html = {"Accept": "text/html"}
        async with relay.http.get(relay.url.replace("ws", "http", 1), headers=html) as answer:
            assert "wss://relay.example.com" in await answer.text()


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_nothing_is_sold_where_nothing_costs(tmp_path, accept):
    async with running(tmp_path / "relay.db") as relay:
        url = relay.url.replace("ws", "http", 1) + "/pay"
        async with relay.http.post(url, json={}, headers={"Accept": accept}) as answer:
            assert answer.status == 404


async def test_forged_events_do_not_use_up_what_their_alleged_author_may_write(tmp_path):
    rates = Rates(events_per_key=Rate(60, 3), exempt=ALL)
    async with running(tmp_path / "relay.db", clock=SetClock(NOW), rates=rates) as relay:
        liar, wire = await relay.connect(), await relay.connect()
        for number in range(10):
            genuine = note(content=str(number))
            forged = replace(genuine, sig="0" * 128)
            assert (await liar.publish(forged))[1].startswith("invalid:")
        assert [(await wire.publish(note(content=f"good {number}")))[0] for number in range(3)] == [True] * 3
        assert (await wire.publish(note(content="too many")))[1].startswith("rate-limited:")


class Asked(Paid):
    """Counts who comes to pay."""

    def __init__(self):
        self.asked = []

    async def pay(self, pubkey, token):
        self.asked.append(token)
        raise PaymentRefused("spent")


async def test_tries_to_pay_are_bounded_for_a_whole_ipv6_network_and_denied_addresses_make_none(tmp_path):
    toll = Asked()
    access = Access(write_by=("payment",), proxies=("127.0.0.0/8",), denied_addresses=("2001:db8:6::/48",))
    async with running(
        tmp_path / "relay.db", access=access, toll=toll, rates=Rates(auths=Rate(60, 20), exempt=ALL)
    ) as relay:
        url = relay.url.replace("ws", "http", 1) + "/pay"

        async def status(client, token="cashuBx"):
            body = {"pubkey": ALICE.npub, "token": token}
            async with relay.http.post(url, json=body, headers={"X-Forwarded-For": client}) as answer:
                return answer.status

        assert await status("2001:db8:6::1") == 403
        assert toll.asked == []
        assert await status("198.51.100.1", "cashuB" + "x" * 70_000) == 400
        assert await status("198.51.100.2", "cashuB\x01\x02") == 400
        assert toll.asked == [], "what cannot be a token reaches nobody"
        assert [await status(f"2001:db8:1:2::{number}") for number in range(1, 5)] == [403, 403, 429, 429]
        assert len(toll.asked) == 2
