"""Who may ask the control plane, with what, how often, and from where."""

import asyncio
import hashlib
import json
import ssl
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from core.error import StoreUncertain
from core.unit import Insert
from node.gate.ledger import ledger_seal
from node.http.bind import listeners
from node.http.once import KEPT_S
from node.http.rate import Rate, Rates
from node.http.setting import HttpSection
from node.storage.database import open_database
from relays.key import Key
from tests.integration.agent.inbox_part import StillClock
from tests.integration.http.access_part import AGENT, NO_RATES, OPERATOR, STRANGER, Guarded, guarded
from tests.integration.http.plane_part import AGENT_TOKEN, TOKEN
from tests.market_part import free_port
from tests.unit.node.http.nip98_part import header, signed
from tests.unit.node.http.test_bind import certificate

BEARER = {"Authorization": f"Bearer {TOKEN}"}
AGENTS = {"Authorization": f"Bearer {AGENT_TOKEN}"}
GOAL = b'{"description": "x"}'
UNAUTHORIZED = (401, "http.unauthorized")
LIMITED = (429, "http.rate_limited")


async def told(http: aiohttp.ClientSession, path: str, method: str = "GET", **more: Any) -> tuple[int, str]:
    """The status, and the code of the problem if it is one."""
    async with http.request(method, path, **more) as answer:
        body = await answer.read()
        code = json.loads(body)["code"] if answer.content_type == "application/problem+json" else ""
        return answer.status, code


async def by_key(
    made: Guarded, http: aiohttp.ClientSession, key: Key, path: str, method: str = "GET", body: bytes | None = None,
    **more: Any,
) -> tuple[int, str]:  # fmt: skip
    headers = {"Authorization": header(made.sign(key, path, method, body, **more))}
    return await told(http, path, method, data=body, headers=headers)


# ---- the public


async def test_without_a_header_only_what_is_public_can_be_looked_at() -> None:
    async with guarded() as (_, http):
        async with http.get("/agents/a/window/open") as answer:
            assert (answer.status, await answer.text()) == (200, "hello\n")
        for method, path in (
            ("GET", "/agents"), ("GET", "/agents/a"), ("GET", "/agents/a/goals"), ("GET", "/agents/a/README"),
            ("GET", "/agents/a/mounts"), ("GET", "/agents/nobody/window/open"), ("GET", "/agents/node/tokens"),
            ("GET", "/metrics"), ("GET", "/agents/a/window/none"), ("POST", "/agents/a/window/bell"),
            ("PUT", "/agents/a/goals/x"), ("DELETE", "/agents/a/goals/x"), ("POST", "/agents/a/inbox"),
            ("DELETE", "/agents/a"), ("POST", "/agents"), ("GET", "/agents/a/inbox?watch=1"), ("GET", "/nothing"),
        ):  # fmt: skip
            assert await told(http, path, method) == UNAUTHORIZED, (method, path)
        assert await told(http, "/healthz") == (200, "")


@pytest.mark.parametrize(
    ("method", "path", "more"),
    [
        ("GET", "", {}),
        ("GET", "/", {}),
        ("GET", "/mounts/", {}),
        ("GET", "/goals?watch=maybe", {}),
        ("GET", "/inbox?watch=1", {}),
        ("PUT", "/", {"data": b"x"}),
        ("PUT", "/window/open", {"data": b"x"}),
        ("POST", "/", {}),
        ("POST", "/window/bell", {"data": b"x"}),
        ("POST", "/x", {"data": b"x", "headers": {"Content-Encoding": "gzip"}}),
        ("MKCOL", "/", {}),
        ("MOVE", "/window/open", {}),
        ("DELETE", "/goals/x", {"data": b"x"}),
        ("DELETE", "", {}),
        ("PATCH", "/goals", {}),
    ],
)
async def test_the_public_cannot_tell_which_agents_there_are(method: str, path: str, more: dict[str, Any]) -> None:
    async with guarded() as (_, http):
        for agent in ("a", "nobody"):
            assert await told(http, f"/agents/{agent}{path}", method, **more) == UNAUTHORIZED, agent
            shown = agent == "a" and path.startswith("/window/")
            assert (await http.head(f"/agents/{agent}{path}")).status == (200 if shown else 401)


async def test_a_body_that_trickles_in_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    from node.http import guard

    monkeypatch.setattr(guard, "_PIECE_S", 0.3)

    async def slow() -> Any:
        for _ in range(100):
            yield b" "
            await asyncio.sleep(0.05)

    async with guarded() as (_, http), http.post("/agents/a/odd/echo", data=slow(), headers=AGENTS) as answer:
        assert (answer.status, (await answer.json(content_type=None))["code"]) == (408, "http.too_slow")
        answer.close()


async def test_a_wrong_header_is_never_the_public() -> None:
    async with guarded() as (made, http):
        stale = header(made.sign(OPERATOR, "/agents/a/window/open", at=made.clock.now() - 100))
        for text in ("", "Bearer", "Bearer ", "Bearer wrong", "Basic b3A6", TOKEN, "Nostr", "Nostr e30=", stale):
            assert await told(http, "/agents/a/window/open", headers={"Authorization": text}) == UNAUTHORIZED, text
        assert await told(http, "/agents/a/window/open", headers=BEARER) == (200, "")
        assert await told(http, "/agents/a/window/open", headers=AGENTS) == (200, "")


# ---- tokens that are given out


async def test_a_token_that_is_made_opens_until_it_is_revoked() -> None:
    async with guarded() as (_, http):
        wish = {"role": "agent", "agent": "a", "label": "dashboard"}
        async with http.post("/agents/node/tokens/new", json=wish, headers=BEARER) as answer:
            assert answer.status == 200
            made = json.loads(await answer.read())
        theirs = {"Authorization": f"Bearer {made['token']}"}
        assert await told(http, "/agents/a/goals", headers=theirs) == (200, "")
        assert await told(http, "/agents/b/goals", headers=theirs) == (403, "http.other_agent")
        assert await told(http, "/agents/a/admin/binary", headers=theirs) == (403, "fs.access_denied")
        assert await told(http, "/agents/node/tokens", headers=theirs) == (403, "http.other_agent")
        async with http.get("/agents/node/tokens", headers=BEARER) as answer:
            assert [row["id"] for row in await answer.json()] == [made["id"]]
            assert made["token"] not in await answer.text()
        assert await told(http, f"/agents/node/tokens/{made['id']}", "DELETE", headers=BEARER) == (204, "")
        assert await told(http, "/agents/a/goals", headers=theirs) == UNAUTHORIZED


async def test_a_stream_ends_when_the_token_that_opened_it_is_revoked() -> None:
    async with guarded() as (made, http):
        one = await made.given_out.add("agent", "a", "", None, "k")
        theirs = {"Authorization": f"Bearer {one['token']}"}
        watching = [("/agents/a/logs/trace", theirs), ("/agents/a/logs/trace", AGENTS)]
        async with (
            http.get(watching[0][0], headers=watching[0][1]) as ended,
            http.get(watching[1][0], headers=watching[1][1]) as stays,
        ):
            assert await ended.content.readline() == b"retry: 1000\n"
            await made.given_out.remove(one["id"])
            assert b'{"reason":"revoked"}' in await asyncio.wait_for(ended.content.read(), 60)
            await made.log("on")
            async with asyncio.timeout(60):
                while b"on" not in await stays.content.readline():
                    pass


async def test_an_agents_token_cannot_take_all_streams(monkeypatch: pytest.MonkeyPatch) -> None:
    from node.http import file

    monkeypatch.setattr(file, "_OF_AGENT", 2)
    path = "/agents/a/logs/trace"
    async with guarded() as (_, http):
        first, second = [await http.get(path, headers=AGENTS) for _ in range(2)]
        assert await told(http, path, headers=AGENTS) == (503, "http.too_many_streams")
        async with http.get(path, headers=BEARER) as answer:
            assert answer.status == 200
        first.close()
        async with asyncio.timeout(60):
            while (await told_stream(http, path))[0] == 503:
                await asyncio.sleep(0.05)
        second.close()


async def told_stream(http: aiohttp.ClientSession, path: str) -> tuple[int, str]:
    """The status of a stream that is let go at once."""
    async with http.get(path, headers=AGENTS) as answer:
        return answer.status, ""


async def test_a_token_that_has_expired_opens_nothing() -> None:
    async with guarded() as (plane, http):
        wish = {"role": "operator", "expires_in_s": 60}
        async with http.post("/agents/node/tokens/new", json=wish, headers=BEARER) as answer:
            theirs = {"Authorization": f"Bearer {json.loads(await answer.read())['token']}"}
        assert await told(http, "/agents/node/tokens", headers=theirs) == (200, "")
        await plane.clock.advance(60)
        assert await told(http, "/agents/node/tokens", headers=theirs) == UNAUTHORIZED


# ---- keys that sign


async def test_a_key_opens_what_the_settings_say() -> None:
    async with guarded() as (made, http):
        assert await by_key(made, http, OPERATOR, "/agents/node/tokens") == (200, "")
        assert await by_key(made, http, OPERATOR, "/agents/a/admin/binary") == (200, "")
        assert await by_key(made, http, AGENT, "/agents/a/goals/") == (200, "")
        assert await by_key(made, http, AGENT, "/agents/a/goals/", "HEAD") == (200, "")
        assert await by_key(made, http, AGENT, "/agents/b/goals/") == (403, "http.other_agent")
        assert await by_key(made, http, AGENT, "/agents/a/admin/binary") == (403, "fs.access_denied")
        assert await by_key(made, http, STRANGER, "/agents/a/goals/") == UNAUTHORIZED
        assert await by_key(made, http, AGENT, "/agents/a/goals/?watch=0") == (200, "")


async def test_what_is_signed_is_what_is_written() -> None:
    async with guarded() as (made, http):
        assert await by_key(made, http, AGENT, "/agents/a/goals/x", "PUT", GOAL) == (204, "")
        async with http.get("/agents/a/goals/x", headers=BEARER) as answer:
            assert (await answer.json())["description"] == "x"
        text = header(made.sign(AGENT, "/agents/a/goals/x", "PUT", GOAL))
        other = {"data": b'{"description": "y"}', "headers": {"Authorization": text}}
        assert await told(http, "/agents/a/goals/x", "PUT", **other) == UNAUTHORIZED
        assert await by_key(made, http, AGENT, "/agents/a/goals/x", "PUT", GOAL, without=["payload"]) == UNAUTHORIZED
        async with http.get("/agents/a/goals/x", headers=BEARER) as answer:
            assert (await answer.json())["description"] == "x"


@pytest.mark.parametrize("size", [1, 65_536, 65_537, 1 << 20])
async def test_a_signed_body_arrives_whole(size: int) -> None:
    body = bytes(number % 251 for number in range(size))
    async with guarded() as (made, http):
        headers = {"Authorization": header(made.sign(AGENT, "/agents/a/odd/echo", "POST", body))}
        async with http.post("/agents/a/odd/echo", data=body, headers=headers) as answer:
            assert (answer.status, hashlib.sha256(await answer.read()).digest()) == (200, hashlib.sha256(body).digest())


async def test_a_signed_body_may_come_in_pieces_and_is_bounded() -> None:
    async def pieces(count: int):
        for _ in range(count):
            yield b"x" * 65_536

    async with guarded() as (made, http):
        for count, expected in ((3, (200, "")), (17, (413, "http.too_large"))):
            body = b"x" * 65_536 * count
            headers = {"Authorization": header(made.sign(AGENT, "/agents/a/odd/echo", "POST", body))}
            assert await told(http, "/agents/a/odd/echo", "POST", data=pieces(count), headers=headers) == expected


async def test_an_event_counts_once_also_for_two_at_the_same_time() -> None:
    async with guarded() as (made, http):
        headers = {"Authorization": header(made.sign(AGENT, "/agents/a/odd/echo", "POST", b"x"))}
        both = [told(http, "/agents/a/odd/echo", "POST", data=b"x", headers=headers) for _ in range(8)]
        assert sorted(await asyncio.gather(*both)) == [(200, "")] + [UNAUTHORIZED] * 7
        assert len(made.keys) == 1


async def test_an_event_counts_once_for_all_processes_on_one_database_and_over_a_restart(tmp_path: Path) -> None:
    path, clock = "/agents/a/odd/echo", StillClock()
    event = signed(AGENT, "https://node.example" + path, "POST", b"x", at=clock.now() + 60)  # its clock is ahead
    headers = {"Authorization": header(event)}
    for expected in ((200, ""), UNAUTHORIZED):
        unit = await open_database(tmp_path / "vendo.db", seal=ledger_seal(OPERATOR), clock=clock)
        known = {"unit": unit, "clock": clock, "names": ("node.example",)}
        async with guarded(**known) as (_, http), guarded(**known) as (_, beside):
            assert await told(http, path, "POST", data=b"x", headers=headers) == expected
            assert await told(beside, path, "POST", data=b"x", headers=headers) == UNAUTHORIZED
        await unit.aclose()
        clock.ms += 90_000


async def test_what_was_used_is_kept_for_an_hour_and_no_longer() -> None:
    async with guarded() as (made, http):
        path = "/agents/a/odd/echo"
        await made.unit.commit([Insert("seen", {"event_id": "another part's", "at": 0})])
        for _ in range(3):
            assert (await by_key(made, http, AGENT, path, "POST", b"x"))[0] == 200
            made.clock.ms += 1_000
        assert await made.unit.count("seen") == 4
        made.clock.ms += (KEPT_S - 100) * 1_000
        assert (await by_key(made, http, AGENT, path, "POST", b"x"))[0] == 200
        assert await made.unit.count("seen") == 5
        made.clock.ms += 400_000
        assert (await by_key(made, http, AGENT, path, "POST", b"x"))[0] == 200
        assert await made.unit.count("seen") == 3, "the last two, and what is not ours"


async def test_a_signature_whose_use_cannot_be_stored_does_nothing() -> None:
    async with guarded() as (made, http):

        async def commit(writes: object) -> None:
            raise StoreUncertain

        made.unit.commit = commit
        headers = {"Authorization": header(made.sign(AGENT, "/agents/a/odd/echo", "POST", b"x"))}
        status, _ = await told(http, "/agents/a/odd/echo", "POST", data=b"x", headers=headers)
        assert status == StoreUncertain.status
        assert made.keys == []


async def test_a_stream_is_opened_by_a_signature() -> None:
    async with guarded() as (made, http):
        path = "/agents/a/odd/short?watch=1&after=0"
        async with http.get(path, headers={"Authorization": header(made.sign(AGENT, path))}) as answer:
            assert answer.content_type == "text/event-stream"
            assert "line 3" in await answer.text()


async def test_every_refusal_of_a_signature_says_the_same_and_what_the_clock_says() -> None:
    async with guarded() as (made, http):
        path, said = "/agents/a/goals/", set()
        for key, more in (
            (STRANGER, {}), (AGENT, {"at": made.clock.now() - 61}), (AGENT, {"kind": 1}), (AGENT, {"method": "PUT"}),
            (AGENT, {"url": "http://127.0.0.1:1/agents/a/goals/"}),
        ):  # fmt: skip
            async with http.get(path, headers={"Authorization": header(made.sign(key, path, **more))}) as answer:
                assert answer.status == 401
                said.add(await answer.text())
        assert len(said) == 1
        assert str(made.clock.now()) in said.pop()


# ---- rates


async def test_each_caller_has_a_rate_and_retry_after_says_when_to_come_again() -> None:
    rates = Rates(Rate(), Rate(0.5, 3), Rate(), Rate())
    async with guarded(rates=rates) as (made, http):
        for _ in range(3):
            assert await told(http, "/agents/a/goals/", headers=AGENTS) == (200, "")
        async with http.get("/agents/a/goals/", headers=AGENTS) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (429, "2")
            problem = await answer.json()
        assert problem["code"] == "http.rate_limited"
        assert problem["unchanged"] == "Nothing was changed."
        assert await by_key(made, http, AGENT, "/agents/a/goals/") == LIMITED, "its key is the same caller"
        assert await told(http, "/agents/a/goals/", headers=BEARER) == (200, ""), "the operator is another one"
        await made.clock.advance(2.01)
        assert await told(http, "/agents/a/goals/", headers=AGENTS) == (200, "")
        assert await told(http, "/agents/a/goals/", headers=AGENTS) == LIMITED


async def test_the_operator_is_limited_where_the_settings_say_so() -> None:
    async with guarded(rates=Rates(Rate(1, 2), Rate(), Rate(), Rate())) as (_, http):
        answers = [await told(http, "/agents/a/goals/", headers=BEARER) for _ in range(3)]
        assert answers == [(200, ""), (200, ""), LIMITED]


async def test_what_a_limited_request_wanted_is_not_done() -> None:
    async with guarded(rates=Rates(Rate(), Rate(1, 1), Rate(), Rate())) as (made, http):
        for expected in ((200, ""), LIMITED, LIMITED):
            assert await told(http, "/agents/a/odd/echo", "POST", data=b"x", headers=AGENTS) == expected
        assert len(made.keys) == 1


async def test_the_public_is_limited_and_others_are_not() -> None:
    async with guarded(rates=Rates(Rate(), Rate(), Rate(1, 2), Rate())) as (_, http):
        answers = [await told(http, "/agents/a/window/open") for _ in range(3)]
        assert answers == [(200, ""), (200, ""), LIMITED]
        assert await told(http, "/agents/a/goals/") == LIMITED
        assert await told(http, "/agents/a/window/open", headers=AGENTS) == (200, "")
        assert await told(http, "/healthz") == (200, "")


async def test_wrong_tokens_are_limited_and_the_right_one_is_not() -> None:
    async with guarded(rates=Rates(Rate(), Rate(), Rate(), Rate(1, 3))) as (made, http):
        wrong = {"Authorization": "Bearer wrong"}
        answers = [await told(http, "/agents", headers=wrong) for _ in range(4)]
        assert answers == [UNAUTHORIZED] * 3 + [LIMITED]
        assert await told(http, "/agents", headers=BEARER) == (200, ""), "nobody can lock the operator out"
        assert await by_key(made, http, OPERATOR, "/agents/a/goals/") == LIMITED, "no signature is checked meanwhile"
        await made.clock.advance(1.01)
        assert await by_key(made, http, OPERATOR, "/agents/a/goals/") == (200, "")


async def test_behind_a_proxy_each_address_is_limited_by_itself() -> None:
    rates = Rates(Rate(), Rate(), Rate(1, 1), Rate())
    async with guarded(rates=rates, names=("node.example",), behind_proxy=True) as (_, http):
        for address, expected in (
            ("203.0.113.1", (200, "")), ("203.0.113.1", LIMITED), ("203.0.113.2", (200, "")),
            ("203.0.113.9, 203.0.113.2", LIMITED),  # what stands before was the client's own
            ("203.0.113.2, 203.0.113.3", (200, "")), ("2001:db8::1", (200, "")), ("2001:db8::2", LIMITED),
            ("no address", (200, "")), ("another", LIMITED), ("", LIMITED),
        ):  # fmt: skip
            headers = {"X-Forwarded-For": address, "Host": "node.example"}
            assert await told(http, "/agents/a/window/open", headers=headers) == expected, address


async def test_without_a_proxy_nobody_says_for_whom_it_asks() -> None:
    async with guarded(rates=Rates(Rate(), Rate(), Rate(1, 1), Rate())) as (_, http):
        answers = [
            await told(http, "/agents/a/window/open", headers={"X-Forwarded-For": f"203.0.113.{number}"})
            for number in range(2)
        ]
        assert answers == [(200, ""), LIMITED]


# ---- from where


async def test_behind_a_proxy_the_names_of_the_settings_are_ours_and_no_others() -> None:
    async with guarded(names=("node.example", "a.example:8443"), behind_proxy=True) as (made, http):
        for host, expected in (
            ("node.example", 200), ("NODE.example", 200), ("node.example:443", 200), ("a.example:8443", 200),
            (f"127.0.0.1:{made.port}", 200), ("a.example", 421), ("node.example:80", 421), ("node.example:8443", 421),
            ("evil.example", 421), ("node.example.evil.example", 421), ("127.0.0.1", 421),
        ):  # fmt: skip
            assert (await told(http, "/agents", headers={**BEARER, "Host": host}))[0] == expected, host
        for host, origin, expected in (
            ("node.example", "https://node.example", 200), ("a.example:8443", "https://a.example:8443", 200),
            (f"127.0.0.1:{made.port}", "https://node.example", 200), (f"127.0.0.1:{made.port}", made.control.url, 200),
            ("node.example", "http://node.example", 403), ("node.example", "https://a.example:8443", 403),
            ("node.example", made.control.url, 403), ("node.example", "null", 403),
        ):  # fmt: skip
            headers = {**BEARER, "Host": host, "Origin": origin}
            assert (await told(http, "/agents", headers=headers))[0] == expected, (host, origin)


async def test_a_signature_for_one_of_our_names_counts_and_for_another_s_does_not() -> None:
    path = "/agents/a/goals/"
    async with guarded(names=("node.example", "a.example:8443"), behind_proxy=True) as (made, http):
        for base, expected in (
            ("https://node.example", 200), ("https://node.example:443", 200), ("https://a.example:8443", 200),
            (made.control.url, 200), (f"http://localhost:{made.port}", 200), ("http://node.example", 401),
            ("https://a.example", 401), (f"https://127.0.0.1:{made.port}", 401), ("https://evil.example", 401),
            ("", 401),
        ):  # fmt: skip
            assert (await by_key(made, http, AGENT, path, url=base + path))[0] == expected, base


async def test_with_a_certificate_it_listens_once_more(tmp_path: Path) -> None:
    certificate(tmp_path)
    port = free_port()
    section = HttpSection(names=(f"node.example:{port}",), tls_cert="c.pem", tls_key="k.pem")
    _, beside = listeners(section, "127.0.0.1", port, tmp_path)
    trusted = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
    async with guarded(names=section.names, beside=[beside]) as (made, http):
        assert made.port != port
        assert await told(http, "/agents", headers=BEARER) == (200, "")
        url, host = f"https://127.0.0.1:{port}/agents", {"Host": f"node.example:{port}"}
        more = {"ssl": trusted, "server_hostname": "node.example"}
        assert await told(http, url, headers={**BEARER, **host}, **more) == (200, "")
        assert await told(http, url, headers=host, **more) == UNAUTHORIZED
        ours = {**BEARER, "Host": f"127.0.0.1:{port}"}
        assert await told(http, url, headers=ours, **more) == (421, "http.wrong_host")
        with pytest.raises(aiohttp.ClientError):
            await told(http, url.replace("https", "http"), headers={**BEARER, **host})


# ---- without a token


async def test_where_no_token_is_needed_whoever_asks_here_is_the_operator() -> None:
    async with guarded(insecure=True) as (made, http):
        assert await told(http, "/agents/a/inbox", "POST", data=b"hello") == (200, "")
        assert made.woken == ["a"]
        assert await told(http, "/agents/a/goals/", headers={"Sec-Fetch-Site": "same-origin"}) == (200, "")
        assert await told(http, "/agents/a/goals/", headers={"Sec-Fetch-Site": "none"}) == (200, "")
        assert await told(http, "/agents/a/goals/", headers=AGENTS) == (200, "")
        assert await told(http, "/agents/b/goals/", headers=AGENTS) == (403, "http.other_agent")


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"Authorization": "Bearer wrong"}, UNAUTHORIZED),
        ({"Host": "evil.example"}, (421, "http.wrong_host")),
        ({"Origin": "http://evil.example"}, (403, "http.foreign_origin")),
        ({"Origin": "null"}, (403, "http.foreign_origin")),
        ({"Sec-Fetch-Site": "cross-site"}, (403, "http.foreign_origin")),
        ({"Sec-Fetch-Site": "same-site"}, (403, "http.foreign_origin")),
        ({"Sec-Fetch-Site": "Cross-Site"}, (403, "http.foreign_origin")),
        ({"X-Forwarded-For": "203.0.113.1"}, (403, "http.foreign_origin")),
        ({"Forwarded": "for=203.0.113.1"}, (403, "http.foreign_origin")),
        ({"Via": "1.1 proxy"}, (403, "http.foreign_origin")),
    ],
)
async def test_where_no_token_is_needed_web_pages_and_proxies_are_kept_out(
    headers: dict[str, str], expected: tuple[int, str]
) -> None:
    async with guarded(insecure=True, rates=NO_RATES) as (made, http):
        assert await told(http, "/agents/a/inbox", "POST", data=b"hello", headers=headers) == expected
        assert await told(http, "/agents/a/goals/", headers=headers) == expected
        assert not made.woken
