"""Webhooks over real HTTP: what is authentic becomes one event, and nothing else becomes anything."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import orjson
import pytest

from fs.namespace import Access, Mount, Namespace
from fs.service.hooks import hooks_service
from fs.session import Role
from node.agent.inbox.intake import Intake
from node.agent.inbox.overflow import Overflow, Policy
from node.agent.outside.webhook import signature
from node.agent.wake.estate import settle
from node.agent.wake.event import grant
from node.agent.wake.herald import Herald
from node.agent.wake.hook import MAX_CALL
from node.agent.wake.interest import watch
from node.agent.wake.porter import AgentHooks, Porter
from node.http.control import ControlPlane
from node.http.hook import HookDoor
from node.http.token import Grant, Tokens, digest
from node.storage.memory import MemoryDatabase
from relays.key import Keyring
from tests.integration.agent.inbox_part import START, StillClock

TOKEN, AGENT_TOKEN = "operator-token", "agent-token"
WORDS = "abandon " * 11 + "about"
JSON = {"Content-Type": "application/json"}


@dataclass
class House:
    """A control plane with the hooks of two agents."""

    unit: MemoryDatabase = field(default_factory=MemoryDatabase)
    clock: StillClock = field(default_factory=StillClock)
    woken: list[str] = field(default_factory=list)
    overflow: Overflow = field(default_factory=Overflow)
    per_minute: int = 120
    body_s: float = 20
    http: Any = None

    def __post_init__(self) -> None:
        ring = Keyring(WORDS)
        self.secret_of = lambda hook: ring.derive("hook", hook).hex()
        intake = Intake(self.unit, self.clock, self.overflow)
        herald = Herald(self.unit, self.clock, intake)
        porter = Porter(self.unit, self.clock, self.secret_of, herald, intake, self.woken.append, self.per_minute)
        grants = [
            (digest(TOKEN), Grant("operator", Role.OPERATOR)),
            (digest(AGENT_TOKEN), Grant("agent:a", Role.AGENT)),
        ]
        self.door = HookDoor(porter, body_s=self.body_s)
        self.control = ControlPlane(self.namespace, self.nobody, Tokens(grants), self.unit, hooks=self.door)

    async def nobody(self) -> list[dict[str, Any]]:
        return []

    def namespace(self, name: str) -> Namespace:
        hooks = AgentHooks(name, self.unit, self.clock, self.secret_of)
        return Namespace([Mount("/hooks", hooks_service(hooks), Access.ADMIN, "ways in")])

    async def hook(self, scheme: str = "hmac", name: str = "ci", agent: str = "a") -> str:
        body = orjson.dumps({"name": name, "scheme": scheme})
        async with self.http.post(f"/agents/{agent}/hooks/new", data=body, headers=self.operator) as answer:
            assert answer.status == 200
            made = await answer.json()
        return str(made["id"])

    @property
    def operator(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {TOKEN}"}

    def signed(self, hook: str, body: bytes, at: int | None = None, key: str | None = None) -> dict[str, str]:
        text = body if at is None else f"{at}.".encode() + body
        mac = hmac.new((key or self.secret_of(hook)).encode(), text, hashlib.sha256).hexdigest()
        stamp = {} if at is None else {"X-Vendo-Timestamp": str(at)}
        return {"X-Hub-Signature-256": f"sha256={mac}", **stamp}

    async def call(self, hook: str, body: bytes = b'{"ref":"main"}', **headers: str) -> tuple[int, Any]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.http.post(f"/hooks/{hook}", data=body, headers={**JSON, **named}) as answer:
            return answer.status, await answer.json(content_type=None)

    async def good(self, hook: str, body: bytes = b'{"ref":"main"}', **headers: str) -> tuple[int, Any]:
        return await self.call(hook, body, **{**self.signed(hook, body), **headers})

    async def events(self, agent: str = "a") -> list[dict[str, Any]]:
        rows = await self.unit.select("inbox", {"agent": agent}, order=["n"])
        assert all((row["cause"], row["source"]) == ("event", "webhook") for row in rows)
        return [orjson.loads(row["payload"]) for row in rows if row["state"] == "new"]

    async def raw(self, text: bytes) -> bytes:
        """Exactly these bytes on the wire, and the head of the answer; `HOST` stands for the right host."""
        port = int(self.control.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(text.replace(b"HOST", f"127.0.0.1:{port}".encode()))
        await writer.drain()
        async with asyncio.timeout(60):
            answer = await reader.readuntil(b"\r\n\r\n")
        writer.close()
        return answer


@asynccontextmanager
async def house(**parts: Any) -> AsyncIterator[House]:
    made = House(**parts)
    ready, stop = asyncio.Event(), asyncio.Event()
    task = asyncio.create_task(made.control.run(ready, stop))
    await ready.wait()
    try:
        async with aiohttp.ClientSession(made.control.url) as made.http:
            yield made
    finally:
        stop.set()
        await asyncio.wait_for(task, 60)


# --- what a call becomes


async def test_a_signed_call_becomes_an_event_of_the_hooks_agent_and_of_nobody_else() -> None:
    async with house() as one:
        await one.unit.commit(watch("b", "all", START, "*"))
        hook = await one.hook()
        status, answer = await one.good(hook, X_GitHub_Delivery="d-1", X_GitHub_Event="push")
        assert (status, answer) == (202, {"status": "queued"})
        (event,) = await one.events()
        assert event == {
            "type": "webhook.ci",
            "source": "webhook",
            "subject": "ci",
            "data": {
                "hook": hook, "name": "ci", "content_type": "application/json", "delivery": "d-1", "label": "push",
                "body": {"ref": "main"},
            },
        }  # fmt: skip
        assert one.woken == ["a"]
        assert await one.events("b") == [], "an interest in everything is one in one's own"


async def test_an_agent_that_sees_all_is_told_by_its_interests() -> None:
    async with house() as one:
        await one.unit.commit(
            [*watch("b", "pushes", START, "webhook.*", '{"data.body.ref":"main"}'), *grant("b", True)]
        )
        hook = await one.hook()
        await one.good(hook)
        await one.good(hook, b'{"ref":"other"}')
        assert len(await one.events()) == 2
        (event,) = await one.events("b")
        assert event["interests"] == ["pushes"]


@pytest.mark.parametrize(
    ("kind", "body", "read"),
    [
        ("application/json", b'{"a":[1,2.5,null,true,"\\u00e9"]}', {"a": [1, 2.5, None, True, "é"]}),
        ("application/json; charset=utf-8", "\"grüße 🎉\"".encode(), "grüße 🎉"),
        ("application/vnd.github+json", b"[]", []),
        ("application/x-www-form-urlencoded", b"a=1&a=2&b=%C3%A9&c=", {"a": ["1", "2"], "b": "é", "c": ""}),
        ("text/plain", "grüße\n".encode(), "grüße\n"),
        ("text/plain; charset=UTF-8", b"", ""),
        ("application/x-www-form-urlencoded", b"", {}),
    ],
)  # fmt: skip
async def test_json_forms_and_text_are_read_as_what_they_are(kind: str, body: bytes, read: Any) -> None:
    async with house() as one:
        hook = await one.hook()
        status, _ = await one.good(hook, body, Content_Type=kind)
        assert status == 202
        assert [event["data"]["body"] for event in await one.events()] == [read]


async def test_a_bearer_token_opens_a_token_hook() -> None:
    async with house() as one:
        hook = await one.hook("token")
        secret = one.secret_of(hook)
        assert (await one.call(hook, Authorization=f"Bearer {secret}"))[0] == 202
        assert (await one.call(hook, b"{}", Authorization=f"bearer {secret} "))[0] == 202
        for wrong in (f"Bearer {secret[:-1]}", "Bearer ", "Bearer", secret, f"Basic {secret}", f"Bearer {TOKEN}", ""):
            assert (await one.call(hook, b"[]", Authorization=wrong))[0] == 404
        assert (await one.good(hook, b"[]"))[0] == 404, "a signature does not open it"
        assert len(await one.events()) == 2


# --- forged, replayed, hostile


async def test_unknown_hooks_and_wrong_signatures_get_the_same_answer() -> None:
    body = b'{"ref":"main"}'
    async with house() as one:
        hook, other = await one.hook(), await one.hook(name="other")
        good = one.signed(hook, body)["X-Hub-Signature-256"]
        answers = [
            await one.call("0" * 32, body, X_Hub_Signature_256=good),
            await one.call("0" * 32, body, **one.signed("0" * 32, body)),
            await one.call(hook, body),
            await one.call(hook, body, X_Hub_Signature_256=""),
            await one.call(hook, body, X_Hub_Signature_256="sha256="),
            await one.call(hook, body, X_Hub_Signature_256=good[:-1]),
            await one.call(hook, body, X_Hub_Signature_256=good[:-1] + "g"),
            await one.call(hook, body, X_Hub_Signature_256=good + "0"),
            await one.call(hook, body, X_Hub_Signature_256=good.replace("sha256", "sha1")),
            await one.call(hook, body, X_Hub_Signature_256=good.removeprefix("sha256=")),
            await one.call(hook, body, X_Hub_Signature_256="ß" * 71),
            await one.call(hook, body + b" ", X_Hub_Signature_256=good),
            await one.call(other, body, X_Hub_Signature_256=good),
            await one.call(hook, body, **one.signed(hook, body, key="guessed")),
            await one.call(hook, body, **one.signed(hook, body, key=hook)),
            await one.call(hook, body, Authorization=f"Bearer {TOKEN}"),
            await one.call(hook, body, Authorization=f"Bearer {one.secret_of(hook)}"),
            await one.call(hook.upper(), body, X_Hub_Signature_256=good),
            await one.call(hook + "/", body, X_Hub_Signature_256=good),
            await one.call(hook[:-1], body, X_Hub_Signature_256=good),
            await one.call("%00" + hook, body, X_Hub_Signature_256=good),
            await one.call("", body, X_Hub_Signature_256=good),
        ]
        assert {status for status, _ in answers} == {404}
        assert {orjson.dumps(answer) for _, answer in answers} == {orjson.dumps(answers[0][1])}
        assert answers[0][1]["code"] == "hook.unknown"
        assert await one.events() == []
        assert (await one.call(hook, body, X_Hub_Signature_256=good.upper().replace("SHA", "sha")))[0] == 202


async def test_a_delivery_counts_once_by_the_id_that_its_sender_gives_it() -> None:
    async with house() as one:
        hook, twin = await one.hook(), await one.hook(name="twin")
        for header in ("X_GitHub_Delivery", "X_Vendo_Delivery", "Idempotency_Key"):
            assert await one.good(hook, **{header: header}) == (202, {"status": "queued"})
            assert await one.good(hook, **{header: header}) == (200, {"status": "duplicate"})
        one.clock.ms += 90 * 86_400_000
        assert (await one.good(hook, b"{}", X_GitHub_Delivery="X_GitHub_Delivery"))[0] == 200, "also months later"
        assert (await one.good(twin, X_GitHub_Delivery="X_GitHub_Delivery"))[0] == 202, "per hook"
        assert len(await one.events()) == 4
        assert (await one.good(hook, X_GitHub_Delivery="x" * 201))[0] == 400


async def test_without_an_id_the_same_body_counts_once_within_five_minutes() -> None:
    async with house() as one:
        hook = await one.hook()
        assert (await one.good(hook))[0] == 202
        one.clock.ms += 299_000
        assert (await one.good(hook))[0] == 200
        one.clock.ms += 2_000
        assert (await one.good(hook))[0] == 200, "over the edge of a window"
        assert (await one.good(hook, b'{"ref":"x"}'))[0] == 202
        one.clock.ms += 600_000
        assert (await one.good(hook))[0] == 202


@pytest.mark.parametrize("scheme", ["hmac", "hmac-timestamp"])
async def test_a_signed_timestamp_lets_a_call_in_for_five_minutes_and_once(scheme: str) -> None:
    body = b'{"ref":"main"}'
    async with house() as one:
        hook = await one.hook(scheme)
        fresh = one.signed(hook, body, START)
        assert (await one.call(hook, body, **fresh, X_Vendo_Delivery="1"))[0] == 202
        twice = {**fresh, "X-Vendo-Signature": fresh["X-Hub-Signature-256"]}
        assert (await one.call(hook, body, **twice))[0] == 404, "two signatures are none"
        ours = signature(one.secret_of(hook), START, b"ours")
        named = {"X-Vendo-Signature": ours, "X-Vendo-Timestamp": str(START)}
        assert (await one.call(hook, b"ours", **named, Content_Type="text/plain"))[0] == 202, "as a node signs"
        assert (await one.call(hook, body, **fresh, X_Vendo_Delivery="forged"))[0] == 200, "another id on the same call"
        for at in (START - 301, START + 301, 0):
            assert (await one.call(hook, b"{}", **one.signed(hook, b"{}", at)))[0] == 404
        for at in (START - 300, START + 300):
            assert (await one.call(hook, b"{}", **one.signed(hook, b"{}", at), X_Vendo_Delivery=str(at)))[0] == 202
        moved = {**fresh, "X-Vendo-Timestamp": str(START + 1)}
        stripped = {"X-Hub-Signature-256": fresh["X-Hub-Signature-256"]}
        odd = {**fresh, "X-Vendo-Timestamp": f"{START}.0"}
        for forged in (moved, stripped, odd, {**fresh, "X-Vendo-Timestamp": ""}, {**fresh, "X-Vendo-Timestamp": "-1"}):
            assert (await one.call(hook, body, **forged))[0] == 404
        assert (await one.good(hook, b"[]"))[0] == (202 if scheme == "hmac" else 404)


@pytest.mark.parametrize(
    ("kind", "body", "status"),
    [
        ("application/json", b"{", 400),
        ("application/json", b"", 400),
        ("application/json", b"\xff", 400),
        ("application/json", b'"\\ud800"', 400),
        ("application/json", b"NaN", 400),
        ("application/json", b"[" * 65 + b"]" * 65, 400),
        ("application/json", b"[" * 100_000, 400),
        ("application/x-www-form-urlencoded", b"a=%FF", 400),
        ("application/x-www-form-urlencoded", b"a", 400),
        ("application/x-www-form-urlencoded", b"a=1&" * 1_001 + b"a=1", 400),
        ("text/plain", b"\xff\xfe", 400),
        ("text/plain; charset=latin-1", b"x", 415),
        ("text/html", b"<b>", 415),
        ("multipart/form-data; boundary=x", b"--x--", 415),
        ("application/octet-stream", b"x", 415),
        ("application/jsonp", b"x", 415),
        ("", b"{}", 415),
        ("nonsense", b"{}", 415),
        ("application/json", b"x" * (MAX_CALL + 1), 413),
    ],
)
async def test_a_body_that_is_not_what_it_says_is_refused_and_becomes_nothing(
    kind: str, body: bytes, status: int
) -> None:
    async with house() as one:
        hook = await one.hook()
        found, answer = await one.good(hook, body, Content_Type=kind)
        assert found == status
        assert answer["code"] in ("hook.body", "hook.type", "http.too_large")
        assert await one.unit.select("inbox") == []


async def test_only_post_is_taken_and_that_says_nothing_of_the_hook() -> None:
    async with house() as one:
        hook = await one.hook()
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH", "OPTIONS"):
            for name in (hook, "0" * 32):
                async with one.http.request(method, f"/hooks/{name}", data=b"{}") as answer:
                    assert answer.status == 405
        assert await one.unit.select("inbox") == []


async def test_what_is_odd_on_the_wire_is_refused_or_means_what_it_says() -> None:
    body = b'{"a":1}'
    async with house(body_s=2.0) as one:
        hook = await one.hook()
        path = f"POST /hooks/{hook} HTTP/1.1\r\n".encode()
        sign = one.signed(hook, body)["X-Hub-Signature-256"].encode()
        head = b"Host: HOST\r\nContent-Type: application/json\r\nConnection: close\r\n"
        length, signed = b"Content-Length: 7\r\n", b"X-Hub-Signature-256: " + sign + b"\r\n"

        async def status(*lines: bytes, body: bytes = body) -> int:
            return int((await one.raw(b"".join([*lines, b"\r\n", body]))).split(b" ", 2)[1])

        assert await status(path, head, length, signed, signed) == 404, "two signatures are none"
        assert await status(path, head, length, signed, b"X-Hub-Signature-256: sha256=00\r\n") == 404
        stamp = b"X-Vendo-Timestamp: %d\r\n" % START
        assert await status(path, head, length, signed, stamp, stamp) == 404, "two timestamps are no timestamp"
        assert await status(path, head, length, signed, b"Content-Type: text/plain\r\n") == 400, "two types are none"
        assert await status(path, head, signed, body=b"") == 404, "no length is no body"
        assert await status(path, head, length, signed, b"Content-Encoding: gzip\r\n") == 415
        assert await status(path, head.replace(b"HOST", b"evil.example"), length, signed) == 421
        assert await status(path, head.replace(b"Host: HOST\r\n", b""), length, signed) in (400, 421)
        assert await status(path, head, length, signed, b"Origin: https://evil.example\r\n") == 403
        assert await status(path, head, length, signed, b"Host: HOST\r\n") in (400, 421)
        assert await status(path, head, length, length, signed) == 400
        assert await status(path, head, b"Content-Length: 7\r\nTransfer-Encoding: chunked\r\n", signed) == 400
        assert await status(path, head, b"Transfer-Encoding: chunked\r\n", signed, body=b"z\r\n") in (400, 408)
        assert await status(path, head, b"Content-Length: 8\r\n", signed) == 408, "a byte never comes"
        assert await status(path, head, b"Content-Length: %d\r\n" % (MAX_CALL + 1), signed, body=b"") == 413
        long = b"".join(b"8000\r\n" + b"x" * 0x8000 + b"\r\n" for _ in range(9)) + b"0\r\n\r\n"
        assert await status(path, head, b"Transfer-Encoding: chunked\r\n", signed, body=long) == 413
        assert await one.unit.select("inbox") == []
        chunked = b"3\r\n" + body[:3] + b"\r\n4\r\n" + body[3:] + b"\r\n0\r\n\r\n"
        assert await status(path, head, b"Transfer-Encoding: chunked\r\n", signed, body=chunked) == 202
        query = path.replace(b" HTTP", b"?token=x HTTP")
        assert await status(query, head, b"Content-Length: 7\r\n", signed) == 200, "a query changes nothing"
        assert [event["data"]["body"] for event in await one.events()] == [{"a": 1}]


async def test_callers_that_never_end_a_call_hold_up_no_other_and_make_no_noise(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with house(body_s=20) as one:
        hook = await one.hook()
        port = int(one.control.url.rsplit(":", 1)[1])
        lines = (b"Content-Length: 9\r\n\r\na", b"Transfer-Encoding: chunked\r\n\r\n5\r\na")
        writers = []
        for number in range(64):
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            head = f"POST /hooks/{hook} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n".encode()
            writer.write(head + lines[number % 2])
            writers.append(writer)
        async with asyncio.timeout(60):
            while one.door._open < len(writers):
                await asyncio.sleep(0.005)
        assert (await one.good(hook))[0] == 202
        for number, writer in enumerate(writers):
            writer.transport.abort() if number % 3 else writer.close()
        async with asyncio.timeout(60):
            while one.door._open:
                await asyncio.sleep(0.005)
        assert [record for record in caplog.records if record.exc_info or record.levelname == "ERROR"] == []


async def test_where_no_more_calls_are_read_the_sender_is_told_when_to_come_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("node.http.hook._AT_ONCE", 0)
    async with house() as one:
        hook = await one.hook()
        async with one.http.post(f"/hooks/{hook}", data=b"2", headers={**JSON, **one.signed(hook, b"2")}) as answer:
            assert (answer.status, int(answer.headers["Retry-After"]) > 0) == (503, True)
            assert (await answer.json(content_type=None))["code"] == "http.too_many_calls"
        assert (await one.call("x"))[0] == 404, "what can be no hook is not read at all"


async def test_what_can_be_no_hook_is_refused_before_its_body_comes() -> None:
    async with house() as one:
        head = b"POST /hooks/x HTTP/1.1\r\nHost: HOST\r\nContent-Length: 9\r\n\r\na"
        assert (await one.raw(head)).split(b" ", 2)[1] == b"404"


async def test_a_stamped_call_cannot_be_sent_again_with_its_timestamp_in_the_body() -> None:
    async with house() as one:
        hook, body = await one.hook(), b'{"ref":"main"}'
        signed = one.signed(hook, body, at=START)
        old = {"X-Hub-Signature-256": signed["X-Hub-Signature-256"]}
        moved = f"{START}.".encode() + body
        for number in range(2):
            again = {"X-GitHub-Delivery": f"fresh-{number}", "Content-Type": "text/plain", **old}
            assert (await one.call(hook, moved, **again))[0] == 404
        assert (await one.call(hook, body, **signed))[0] == 202
        assert (await one.good(hook, b"1.5 pots", Content_Type="text/plain"))[0] == 202
        assert len(await one.events()) == 2


@pytest.mark.parametrize("event", ["payment.received", "job.finished", "file", "nostr.mention", "identity.signed"])
async def test_a_hook_tells_no_event_that_is_the_node_s_own(event: str) -> None:
    async with house() as one:
        body = orjson.dumps({"name": "ci", "event": event})
        async with one.http.post("/agents/a/hooks/new", data=body, headers=one.operator) as answer:
            assert (answer.status, (await answer.json(content_type=None))["code"]) == (400, "input.invalid")
        assert await one.unit.select("hook") == []


async def test_too_many_calls_are_put_off_and_forged_ones_do_not_count() -> None:
    async with house(per_minute=3) as one:
        hook, other = await one.hook(), await one.hook(name="other")
        for _ in range(10):
            assert (await one.call(hook, **one.signed(hook, b"x", key="guessed")))[0] == 404
        for number in range(3):
            assert (await one.good(hook, b"%d" % number))[0] == 202
        async with one.http.post(f"/hooks/{hook}", data=b"9", headers={**JSON, **one.signed(hook, b"9")}) as answer:
            assert answer.status == 429
            assert int(answer.headers["Retry-After"]) > 0
            assert (await answer.json(content_type=None))["code"] == "hook.too_many"
        assert (await one.good(other))[0] == 202, "each hook has its own rate"
        await one.clock.advance(20)
        assert (await one.good(hook, b"9"))[0] == 202


async def test_a_full_inbox_puts_the_sender_off_or_keeps_the_call_as_its_policy_says() -> None:
    async with house(overflow=Overflow(1, Policy.REJECT_NEW)) as one:
        hook = await one.hook()
        assert (await one.good(hook, b"1"))[0] == 202
        async with one.http.post(f"/hooks/{hook}", data=b"2", headers={**JSON, **one.signed(hook, b"2")}) as answer:
            assert (answer.status, "Retry-After" in answer.headers) == (503, True)
        assert (await one.good(hook, b"1"))[0] == 200, "what came before is still known"
    async with house(overflow=Overflow(1, Policy.DEAD_LETTER)) as one:
        hook = await one.hook()
        assert [(await one.good(hook, b"%d" % number))[0] for number in range(2)] == [202, 202]
        assert [row["state"] for row in await one.unit.select("inbox", order=["n"])] == ["new", "dead"]


# --- the operator's side


async def test_the_secret_is_shown_when_it_is_asked_for_and_nowhere_else() -> None:
    async with house() as one:
        hook = await one.hook()
        seen = b""
        for path in ("hooks/", f"hooks/{hook}", f"hooks/{hook}/", "hooks/README"):
            async with one.http.get(f"/agents/a/{path}", headers=one.operator) as answer:
                seen += await answer.read()
        assert one.secret_of(hook).encode() not in seen
        async with one.http.post(f"/agents/a/hooks/{hook}/secret", headers=one.operator) as answer:
            assert (await answer.json())["secret"] == one.secret_of(hook)
        assert one.secret_of(hook) not in str(await one.unit.select("hook"))


async def test_hooks_are_their_operators_alone() -> None:
    async with house() as one:
        hook = await one.hook()
        mine = {"Authorization": f"Bearer {AGENT_TOKEN}"}
        for method, path in (("GET", ""), ("GET", hook), ("POST", f"{hook}/secret"), ("POST", f"{hook}/delete")):
            async with one.http.request(method, f"/agents/a/hooks/{path}", headers=mine) as answer:
                assert answer.status == 403
        async with one.http.post(f"/agents/b/hooks/{hook}/secret", headers=one.operator) as answer:
            assert answer.status == 404, "a hook is one agent's"
        assert (await one.good(hook))[0] == 202


async def test_a_hook_that_is_deleted_is_known_no_more_and_a_key_makes_one_hook() -> None:
    async with house() as one:
        body = orjson.dumps({"name": "ci", "event": "push.main"})
        ids = set()
        for _ in range(2):
            async with one.http.post(
                "/agents/a/hooks/new", data=body, headers={**one.operator, "Idempotency-Key": "k"}
            ) as made:
                ids.add((await made.json())["id"])
        (hook,) = ids
        other = {**one.operator, "Idempotency-Key": "k"}
        async with one.http.post("/agents/a/hooks/new", data=b'{"name":"x"}', headers=other) as answer:
            assert answer.status == 409
        for wrong in (
            b"{}",
            b'{"name":"A B"}',
            b'{"name":"x","scheme":"none"}',
            b'{"name":"x","event":"*"}',
            b'{"x":1}',
        ):
            async with one.http.post("/agents/a/hooks/new", data=wrong, headers=one.operator) as answer:
                assert answer.status == 400
        assert (await one.good(hook))[0] == 202
        assert (await one.events())[0]["type"] == "push.main"
        async with one.http.post(f"/agents/a/hooks/{hook}/delete", headers=one.operator) as answer:
            assert answer.status == 200
        assert (await one.good(hook, b"{}"))[0] == 404
        async with one.http.get("/agents/a/hooks/", headers=one.operator) as answer:
            assert hook not in await answer.text()


async def test_the_hooks_of_a_deleted_agent_are_closed_with_it() -> None:
    async with house() as one:
        hook = await one.hook()
        await one.unit.commit([*watch("a", "i", START, "*"), *grant("a", True)])
        await one.good(hook)
        await one.unit.commit(settle("a", START))
        assert (await one.good(hook, b"{}"))[0] == 404
        assert [row["state"] for row in await one.unit.select("inbox")] == ["discarded"]
        assert await one.unit.select("interest") == await one.unit.select("meta") == []
