"""Hostile paths, hosts, origins, bodies, tokens and signatures: each is refused with its code, and changes nothing."""

import asyncio
from dataclasses import replace
from typing import Any

import aiohttp
import pytest

from tests.integration.http.access_part import AGENT, OPERATOR, STRANGER, Guarded, guarded
from tests.integration.http.hostile_part import (
    AGENTS,
    GOAL,
    Case,
    X,
    answer,
    by,
    flipped,
    resigned,
    snapshot,
    with_pubkey,
    written,
)
from tests.integration.http.plane_part import AGENT_TOKEN, TOKEN
from tests.unit.node.http.nip98_part import header

BAD_PATH, NO_FILE, NOT_FOUND = (400, "fs.bad_path"), (404, "fs.not_found"), (404, "not_found")
NO_ROUTE, METHOD = (404, "http.no_such_route"), (405, "http.method")
WRONG_HOST, FOREIGN = (421, "http.wrong_host"), (403, "http.foreign_origin")
NOBODY, OTHER = (401, "http.unauthorized"), (403, "http.other_agent")
INVALID, BAD, UNPARSED, LOST = (400, "input.invalid"), (400, "http.bad_request"), (400, "http.bad_request"), (0, "")
BEARER = f"Bearer {TOKEN}"


def path(name: str, target: str | bytes, expected: tuple[int, str] = BAD_PATH, **more: Any) -> Case:
    return Case(f"path: {name}", *expected, target=target, **more)


def host(name: str, value: str | None, *more: bytes) -> Case:
    return Case(f"host: {name}", *WRONG_HOST, host=value, more=tuple((b"Host", one) for one in more))


def origin(name: str, *values: bytes, more: tuple[tuple[bytes, bytes], ...] = ()) -> Case:
    return Case(f"origin: {name}", *FOREIGN, more=(*((b"Origin", value) for value in values), *more))


def token(name: str, auth: str | bytes | None, expected: tuple[int, str] = NOBODY, **more: Any) -> Case:
    return Case(f"token: {name}", *expected, auth=auth, **more)


def body(name: str, raw: bytes, expected: tuple[int, str] = INVALID, **more: Any) -> Case:
    return Case(f"body: {name}", *expected, body=raw, **more)


def chunked(name: str, raw: bytes, expected: tuple[int, str], **more: Any) -> Case:
    return body(name, raw, expected, length="", more=((b"Transfer-Encoding", b"chunked"),), **more)


def signature(name: str, auth: Any, expected: tuple[int, str] = NOBODY, **more: Any) -> Case:
    return Case(f"signature: {name}", *expected, auth=auth, **more)


PATHS = [
    path("dots", "/agents/a/goals/../goals/x"),
    path("dots at the end", "/agents/a/goals/x/.."),
    path("dots out of the tree", "/agents/b/../a/goals/x"),
    path("one dot", "/agents/a/./goals/x"),
    path("dots in escapes", "/agents/a/goals/%2e%2e/goals/x"),
    path("dots half in escapes", "/agents/a/goals/.%2E/goals/x"),
    path("a slash in an escape", "/agents/a/goals%2fx"),
    path("a slash in an escape after dots", "/agents/a/goals/..%2Fx"),
    path("an escape in an escape", "/agents/a/goals/%252e%252e/x"),
    path("a percent sign in an escape", "/agents/a/goals/%25"),
    path("a zero byte", "/agents/a/goals/x%00"),
    path("a zero byte and an extension", "/agents/a/goals/x%00.json"),
    path("overlong dots", "/agents/a/goals/%c0%ae%c0%ae/x"),
    path("an overlong slash", "/agents/a/goals%c0%afx"),
    path("an overlong zero", "/agents/a/goals/x%c0%80"),
    path("no UTF-8", "/agents/a/goals/%ff"),
    path("half a character", "/agents/a/goals/%e2%82"),
    path("a surrogate", "/agents/a/goals/%ed%a0%80"),
    path("bytes as they are", b"/agents/a/goals/\xff", UNPARSED),
    path("a backslash", "/agents/a/goals\\x"),
    path("backslashes and dots", "/agents/a/goals/..\\..\\x"),
    path("a backslash in an escape", "/agents/a/goals/..%5c..%5cx"),
    path("an empty name", "/agents/a//goals/x"),
    path("an empty name first", "//agents/a/goals/x"),
    path("two slashes at the end", "/agents/a/goals/x//"),
    path("2,000 characters", "/agents/a/goals/" + "x" * 2_000),
    path("2,000 names", "/agents/a" + "/x" * 2_000),
    path("a name of 256", "/agents/a/goals/" + "x" * 256),
    path("not composed", "/agents/a/goals/e%CC%81"),
    path("a mark from right to left", "/agents/a/goals/x%E2%80%8F"),
    path("an override from right to left", "/agents/a/goals/%E2%80%AEx"),
    path("no width", "/agents/a/goals/x%E2%80%8B"),
    path("a line break", "/agents/a/goals/x%0d%0aSet-Cookie:%20a=b"),
    path("a delete", "/agents/a/goals/%7f"),
    path("a line separator", "/agents/a/goals/%E2%80%A8"),
    path("white space first", "/agents/a/goals/%20x"),
    path("white space last", "/agents/a/goals/x%20"),
    path("a broken escape", "/agents/a/goals/%zz"),
    path("half an escape", "/agents/a/goals/x%4"),
    path("the whole address", "http://{host}/agents/a/goals/x"),
    path("the whole address of another", "http://evil.example/agents/a/goals/x"),
    path("a file of the machine", "file:///etc/passwd", UNPARSED),
    path("a fragment", "/agents/a/goals/x#y"),
    path("no slash first", "agents/a/goals/x", UNPARSED),
    path("an agent that is not there", "/agents/nobody/goals/x", NOT_FOUND),
    path("an agent in capitals", "/agents/A/goals/x", NOT_FOUND),
    path("the operator as an agent", "/agents/operator/goals/x", NOT_FOUND),
    path("the first name in capitals", "/AGENTS/a/goals/x", NO_ROUTE),
    path("a service whose name only begins so", "/agents/a/goalsx/x", NO_FILE),
    path("PATCH", X, METHOD, method="PATCH"),
    path("TRACE", X, METHOD, method="TRACE"),
    path("OPTIONS", X, METHOD, method="OPTIONS"),
    path("PROPPATCH", X, METHOD, method="PROPPATCH"),
    path("a method of its own", X, UNPARSED, method="EVIL"),
    path("a cursor that is none", "/agents/a/logs/trace?watch=1&after=-1", BAD, method="GET", body=b""),
    path("a wish that is none", "/agents/a/logs/trace?watch=2", BAD, method="GET", body=b""),
]

HOSTS = [
    Case("host: none", *UNPARSED, host=None),
    host("empty", ""),
    host("without its port", "127.0.0.1"),
    host("another port", "127.0.0.1:1"),
    host("a name that was rebound", "evil.example"),
    host("a name that was rebound, with the port", "evil.example:{port}"),
    host("a name that begins like ours", "localhost.evil.example:{port}"),
    host("a name that ends like ours", "evil-localhost:{port}"),
    host("a dot at the end", "localhost.:{port}"),
    host("a number", "2130706433:{port}"),
    host("short", "127.1:{port}"),
    host("everything", "0.0.0.0:{port}"),
    host("IPv6 without brackets", "::1:{port}"),
    host("somebody at us", "evil@127.0.0.1:{port}"),
    host("two in one", "{host}, evil.example"),
    host("with a path", "{host}/x"),
]

ORIGINS = [
    origin("null", b"null"),
    origin("another's", b"http://evil.example"),
    origin("another's with our port", b"http://evil.example:{port}"),
    origin("without the port", b"http://127.0.0.1"),
    origin("another port", b"http://127.0.0.1:1"),
    origin("https", b"https://{host}"),
    origin("another of our names", b"http://localhost:{port}"),
    origin("with a path", b"http://{host}/"),
    origin("empty", b""),
    origin("ours and another's", b"http://{host}", b"http://evil.example"),
    origin("ours and another's in one", b"http://{host} http://evil.example"),
    origin("an extension's", b"chrome-extension://abcdefghijklmnop"),
]

TOKENS = [
    token("none", None),
    token("empty", ""),
    token("only a scheme", "Bearer"),
    token("empty after its scheme", "Bearer "),
    token("without its scheme", TOKEN),
    token("wrong", "Bearer wrong"),
    token("wrong, and the scheme written small", "bearer wrong"),
    token("one character more", f"Bearer {TOKEN}x"),
    token("one character less", f"Bearer {TOKEN[:-1]}"),
    token("in capitals", f"Bearer {TOKEN.upper()}"),
    token("another scheme", f"Basic {TOKEN}"),
    token("two of them in one", f"Bearer {TOKEN}, Bearer {TOKEN}"),
    token("of another node", "Bearer vendo_token_" + "A" * 43),
    token("no text", b"Bearer \xff\xfe"),
    token("beside it an empty one", BEARER, more=((b"Authorization", b""),)),
    token("twice", BEARER, more=((b"Authorization", BEARER.encode()),)),
    token("two different", BEARER, more=((b"authorization", AGENTS.encode()),)),
    token("in the address", None, target=f"{X}?access_token={TOKEN}&token={TOKEN}"),
    token("in a cookie", None, more=((b"Cookie", b"token=" + TOKEN.encode()),)),
    token("for a proxy", None, more=((b"Proxy-Authorization", BEARER.encode()),)),
    token("in the name of the operator", None, more=((b"X-Vendo-For", b"operator"),)),
    token("in the name of the operator with an agent's", AGENTS, OTHER, target="/agents/b/goals/x",
          more=((b"X-Vendo-For", b"operator"),)),
    token("an agent's for another agent", AGENTS, OTHER, target="/agents/b/goals/x"),
    token("an agent's for the operator's tree", AGENTS, OTHER, method="POST", target="/agents/node/tokens/new",
          body=b'{"role": "operator"}'),
    token("an agent's where only the operator may", AGENTS, (403, "fs.access_denied"), method="POST",
          target="/agents/a/admin/echo"),
    token("an agent's, to delete itself", AGENTS, OTHER, method="DELETE", target="/agents/a", body=b""),
    token("nobody's, to delete an agent", None, method="DELETE", target="/agents/a", body=b""),
    token("nobody's, where everybody may look", None, method="POST", target="/agents/a/window/bell"),
    token("too long", "Bearer " + "A" * 9_000, UNPARSED),
    token("with a line break", b"Bearer a\nX-Vendo-For: operator", UNPARSED),
    token("with a zero byte", b"Bearer a\x00b", UNPARSED),
    Case("header: too long", *UNPARSED, more=((b"X-Long", b"A" * 70_000),)),
    Case("header: a name with a space", *UNPARSED, more=((b"X Long", b"A"),)),
    Case("header: folded", *UNPARSED, more=((b"X-Folded", b"a\r\n b"),)),
    Case("key: too long", 400, "fs.key_required", method="POST", target="/agents/a/inbox", body=b"hello",
         more=((b"Idempotency-Key", b"k" * 201),)),
    Case("key: no text", 400, "fs.key_required", method="POST", target="/agents/a/inbox", body=b"hello",
         more=((b"Idempotency-Key", b"\xff"),)),
    Case("destination: none", *BAD, method="MOVE", target="/agents/a/goals/kept", body=b""),
    Case("destination: another agent", *BAD, method="MOVE", target="/agents/a/goals/kept", body=b"",
         more=((b"Destination", b"/agents/b/goals/x"),)),
    Case("destination: elsewhere", *BAD, method="MOVE", target="/agents/a/goals/kept", body=b"",
         more=((b"Destination", b"http://evil.example/agents/a/goals/x"),)),
    Case("destination: dots", *BAD_PATH, method="MOVE", target="/agents/a/goals/kept", body=b"",
         more=((b"Destination", b"/agents/a/../b/goals/x"),)),
]  # fmt: skip

DEEP = b'{"description":' + b"[" * 10_000 + b"]" * 10_000 + b"}"
BODIES = [
    body("empty", b""),
    body("no JSON", b"{"),
    body("half", GOAL[:-1]),
    body("more behind it", GOAL + b"x"),
    body("two objects", GOAL + GOAL),
    body("a list", b"[]"),
    body("a list of objects", b"[" + GOAL + b"]"),
    body("a word", b'"x"'),
    body("null", b"null"),
    body("a field twice, the last one wrong", b'{"description":"x","description":""}'),
    body("a field that nobody knows", b'{"description":"x","__class__":"y"}'),
    body("NaN", b'{"description":"x","priority":NaN}'),
    body("Infinity", b'{"description":"x","priority":Infinity}'),
    body("a number beyond all bounds", b'{"description":"x","priority":' + b"9" * 400 + b"}"),
    body("a number of 65 bits", b'{"description":"x","priority":36893488147419103232}'),
    body("a number as text", b'{"description":"x","priority":"1"}'),
    body("a fraction", b'{"description":"x","priority":1.5}'),
    body("10,000 levels", DEEP),
    body("10,000 levels that never end", b"[" * 10_000),
    body("no UTF-8", b'{"description":"\xff"}'),
    body("half a surrogate", b'{"description":"\\ud800"}'),
    body("a byte order mark", b"\xef\xbb\xbf" + GOAL),
    body("UTF-16", GOAL.decode().encode("utf-16")),
    body("compressed", GOAL, (415, "http.encoded"), more=((b"Content-Encoding", b"gzip"),)),
    body("compressed twice", GOAL, (415, "http.encoded"), more=((b"Content-Encoding", b"gzip, br"),)),
    body("too long", b'{"description":"' + b"x" * 70_000 + b'"}', (413, "fs.too_large")),
    body("shorter than it says", GOAL, LOST, length="100", hang_up=True),
    body("longer than it says", GOAL, UNPARSED, length="5"),
    body("a length below zero", GOAL, UNPARSED, length="-1"),
    body("a length that is no number", GOAL, UNPARSED, length="0x10"),
    body("two lengths", GOAL, UNPARSED, more=((b"Content-Length", b"3"),)),
    body("a length and chunks", b"0\r\n\r\n", UNPARSED, more=((b"Transfer-Encoding", b"chunked"),)),
    chunked("chunks that end early", b"13\r\n" + GOAL + b"\r\n", LOST, hang_up=True),
    chunked("a chunk that ends early", b"ff\r\n" + GOAL, LOST, hang_up=True),
    chunked("chunks that are too long", b"12000\r\n" + b"x" * 0x12000 + b"\r\n0\r\n\r\n", (413, "fs.too_large")),
    chunked("a chunk without a size", b"zz\r\n" + GOAL + b"\r\n0\r\n\r\n", UNPARSED),
    body("another encoding", GOAL, UNPARSED, length="", more=((b"Transfer-Encoding", b"gzip"),)),
]

SIGNATURES = [
    signature("a stranger's", by(STRANGER)),
    signature("a stranger's in the operator's name", by(STRANGER, change=with_pubkey)),
    signature("another's under the event", by(change=resigned)),
    signature("a wrong digit in it", by(change=flipped("sig"))),
    signature("a wrong digit in the id", by(change=flipped("id"))),
    signature("a wrong digit in the key", by(change=flipped("pubkey"))),
    signature("a date that was changed", by(at=-61, change=lambda one: one | {"created_at": one["created_at"] + 61})),
    signature("stale", by(at=-61)),
    signature("of the future", by(at=61)),
    signature("of a note", by(kind=1)),
    signature("of a kind beside it", by(kind=27_236)),
    signature("for another path", by(target="/agents/a/goals/y")),
    signature("for another agent", by(target="/agents/b/goals/x")),
    signature("for another host", by(url=f"http://evil.example{X}")),
    signature("for another port", by(url=f"http://127.0.0.1:1{X}")),
    signature("for another scheme", by(url="https://{host}" + X)),
    signature("for the path alone", by(url=X)),
    signature("for an address without its query", by(), target=f"{X}?a=b"),
    signature("for another query", by(target=f"{X}?a=b"), target=f"{X}?a=c"),
    signature("for a query that is not there", by(target=f"{X}?a=b")),
    signature("for the same path in escapes", by(target="/agents/a/goals/%78")),
    signature("for another method", by(method="POST")),
    signature("for a method written small", by(method="put")),
    signature("for another body", by(body=b'{"description":"y"}')),
    signature("for no body", by(body=None)),
    signature("for an empty body", by(body=b"")),
    signature("for a body in capitals", by(body=None, more=[("payload", "A" * 64)])),
    signature("without an address", by(without=["u"])),
    signature("without a method", by(without=["method"])),
    signature("with two addresses", by(more=[("u", "http://evil.example/")])),
    signature("with two methods", by(more=[("method", "GET")])),
    signature("with two bodies", by(more=[("payload", "0" * 64)])),
    signature("with an address of two parts", by(without=["u"], more=[("u", "http://{host}", X)])),
    signature("no base64", "Nostr !!!!"),
    signature("base64 that is cut off", "Nostr e30"),
    signature("no JSON", "Nostr AAAA"),
    signature("no event", "Nostr e30="),
    signature("nothing", "Nostr "),
    signature("too long", "Nostr " + "A" * 8_100),
    signature("much too long", "Nostr " + "A" * 9_000, UNPARSED),
    signature("as a token", lambda made: by()(made).replace("Nostr", "Bearer")),
    signature("beside a token", by(), more=((b"Authorization", BEARER.encode()),)),
    signature("an agent's for another agent", by(AGENT, target="/agents/b/goals/x"), OTHER, target="/agents/b/goals/x"),
    signature("an agent's where only the operator may", by(AGENT, "/agents/a/admin/echo", "POST"),
              (403, "fs.access_denied"), method="POST", target="/agents/a/admin/echo"),
    signature("good, for a foreign page", by(), FOREIGN, more=((b"Origin", b"http://evil.example"),)),
    signature("good, under a foreign name", by(), WRONG_HOST, host="evil.example"),
    signature("good, with a compressed body", by(), (415, "http.encoded"), more=((b"Content-Encoding", b"br"),)),
    signature("good, with a path that is not", by(target="/agents/a/goals/%2e%2e"), BAD_PATH,
              target="/agents/a/goals/%2e%2e"),
]  # fmt: skip

CASES = [*PATHS, *HOSTS, *ORIGINS, *TOKENS, *BODIES, *SIGNATURES]


def test_the_table_is_long_enough_and_says_each_thing_once() -> None:
    assert len(CASES) >= 60
    assert len({case.name for case in CASES}) == len(CASES)
    assert all(len(part) >= 12 for part in (PATHS, HOSTS, ORIGINS, TOKENS, BODIES, SIGNATURES))


async def _prepared(made: Guarded, http: aiohttp.ClientSession) -> None:
    headers = {"Authorization": BEARER}
    async with http.put("/agents/a/goals/kept", data=GOAL, headers=headers) as told:
        assert told.status == 204
    async with http.post("/agents/a/inbox", data=b"hello", headers=headers) as told:
        assert told.status == 200


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
async def test_it_is_refused_with_its_code_and_changes_nothing(case: Case) -> None:
    async with guarded() as (made, http):
        await _prepared(made, http)
        before = await snapshot(made)
        assert await answer(made, written(case, made), hang_up=case.hang_up) == (case.status, case.code)
        await asyncio.sleep(0)
        after = await snapshot(made)
        if case.status != 401:
            after["seen"] = before["seen"]  # a signature that is right is used up, whatever it is for
        assert after == before


async def test_what_the_table_changes_is_what_is_refused() -> None:
    """The request that every case is made of, and its signed form, are good ones."""
    for auth in (BEARER, by(), by(AGENT), by(STRANGER)):
        async with guarded() as (made, http):
            await _prepared(made, http)
            before = await snapshot(made)
            got = await answer(made, written(Case("good", 204, auth=auth), made), hang_up=False)
            is_known = auth is not None and got[0] != 401
            assert got == ((204, "") if is_known else NOBODY)
            assert (await snapshot(made) != before) is is_known


async def test_an_event_that_was_seen_on_its_way_opens_nothing() -> None:
    async with guarded() as (made, http):
        await _prepared(made, http)
        text = header(made.sign(OPERATOR, "/agents/a/odd/echo", "POST", GOAL))
        case = Case("seen", 200, method="POST", target="/agents/a/odd/echo", auth=text)
        assert await answer(made, written(case, made), hang_up=False) == (200, "")
        before = await snapshot(made)
        changes: list[dict[str, Any]] = [{}, {"target": X, "method": "PUT"}, {"body": b"{}"}]
        for more in changes:
            again = replace(case, **more)
            assert await answer(made, written(again, made), hang_up=False) == NOBODY
        await made.clock.advance(30)
        assert await answer(made, written(case, made), hang_up=False) == NOBODY
        assert await snapshot(made) == before


async def test_a_token_that_was_revoked_is_one_that_nobody_knows() -> None:
    async with guarded() as (made, http):
        await _prepared(made, http)
        given = await made.given_out.add("operator", "", "", None, "k")
        await made.given_out.remove(given["id"])
        before = await snapshot(made)
        case = Case("revoked", *NOBODY, auth=f"Bearer {given['token']}")
        assert await answer(made, written(case, made), hang_up=False) == NOBODY
        assert await snapshot(made) == before
        assert AGENT_TOKEN not in str(before)
