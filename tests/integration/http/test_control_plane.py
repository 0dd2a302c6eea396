import asyncio

import pytest

from core.error import Unavailable
from node.http import control
from node.http.control import ControlPlane
from node.http.token import Tokens
from node.storage.memory import MemoryDatabase
from tests.integration.http.plane_part import AGENT_TOKEN, TOKEN, plane


async def test_files_are_read_listed_replaced_and_called() -> None:
    async with plane() as (made, http):
        async with http.get("/agents/a/identity/pubkey") as answer:
            assert (answer.status, await answer.text()) == (200, "ab" * 32 + "\n")
            assert answer.content_type == "text/plain"
        async with http.put("/agents/a/goals/first", data=b'{"description":"x"}') as answer:
            assert answer.status == 204
        async with http.get("/agents/a/goals/first") as answer:
            goal = await answer.json()
            assert (goal["id"], goal["description"], goal["status"]) == ("first", "x", "active")
        async with http.get("/agents/a/goals/") as answer:
            assert {entry["name"] for entry in await answer.json()} >= {"README", "first"}
        async with http.post("/agents/a/inbox", json={"text": "hello"}) as answer:
            assert (await answer.json())["status"] == "queued"
            assert answer.headers["Idempotency-Key"]
        assert made.woken == ["a"]
        async with http.get("/agents/b/goals/first") as answer:
            assert answer.status == 404
        async with http.get("/agents/a/odd/binary") as answer:
            assert answer.content_type == "application/octet-stream"


async def test_a_directory_is_listed_as_text_for_people() -> None:
    async with plane() as (_, http):
        async with http.get("/agents/a", headers={"Accept": "text/plain"}) as answer:
            assert (await answer.text()).split() == [
                "README", "admin/", "goals/", "identity/", "inbox/", "logs/", "mounts", "odd/",
            ]  # fmt: skip
        async with http.get("/agents/a/inbox/") as answer:
            assert {entry["name"] for entry in await answer.json()} >= {"README", "new", "deadletter", "count"}
        async with http.get("/agents/a/inbox") as answer:
            assert await answer.json() == []
        async with http.get("/agents/a/README") as answer:
            assert "inbox/: what waits" in await answer.text()


async def test_head_tells_what_a_file_is() -> None:
    async with plane() as (_, http):
        async with http.head("/agents/a/goals/x") as answer:
            assert answer.status == 404
        await http.put("/agents/a/goals/x", data=b'{"description":"x"}')
        async with http.head("/agents/a/goals/x") as answer:
            assert (answer.status, answer.headers["Allow"]) == (200, "HEAD, GET, PUT, DELETE")
        async with http.head("/agents/a/logs/trace") as answer:
            assert answer.headers["X-File-Type"] == "stream"
        async with http.head("/agents/a/inbox") as answer:
            assert answer.headers["X-File-Type"] == "directory"
        async with http.head("/agents/a/nothing") as answer:
            assert answer.status == 404


async def test_a_message_with_the_same_key_is_queued_once_and_another_text_is_refused() -> None:
    async with plane() as (made, http):
        answers = []
        for _ in range(2):
            async with http.post("/agents/a/inbox", json={"text": "x"}, headers={"Idempotency-Key": "k"}) as answer:
                answers.append((await answer.json())["envelope_id"])
        assert answers[0] == answers[1]
        assert len(await made.unit.select("inbox", {"agent": "a"})) == 1
        async with http.post("/agents/a/inbox", json={"text": "y"}, headers={"Idempotency-Key": "k"}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (409, "gate.key_reused")
        bodies = [http.post("/agents/a/inbox", data=b"hi", headers={"Idempotency-Key": "race"}) for _ in range(8)]
        assert {answer.status for answer in await asyncio.gather(*bodies)} == {200}
        assert len(await made.unit.select("inbox", {"agent": "a"})) == 2


@pytest.mark.parametrize(
    "body", [b"", b"   ", b"\xff", b"{", b'{"text":""}', b'{"text":1}', b'{"text":"a","more":1}', b"{}"]
)
async def test_a_message_that_is_none_changes_nothing(body: bytes) -> None:
    async with plane() as (made, http):
        async with http.post("/agents/a/inbox", data=body) as answer:
            assert answer.status == 400
            assert answer.content_type == "application/problem+json"
            problem = await answer.json()
        assert problem["code"] == "input.invalid"
        assert problem["unchanged"] == "Nothing was changed."
        assert problem["detail"]
        assert problem["remedy"]
        assert not await made.unit.select("inbox")


async def test_without_the_token_nothing_is_answered() -> None:
    async with plane() as (_, http):
        for value in ("", "Bearer", "Bearer ", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", TOKEN):
            async with http.get("/agents", headers={"Authorization": value}) as answer:
                assert (answer.status, (await answer.json())["code"]) == (401, "http.unauthorized"), value
                assert answer.headers["WWW-Authenticate"] == "Bearer"
        async with http.get("/healthz", headers={"Authorization": ""}) as answer:
            assert answer.status == 200


async def test_an_agents_token_opens_that_agents_files_and_no_admin() -> None:
    async with plane() as (_, http):
        headers = {"Authorization": f"bearer {AGENT_TOKEN}"}
        async with http.get("/agents", headers=headers) as answer:
            assert await answer.json() == [{"name": "a"}]
        async with http.get("/agents/a/identity/npub", headers=headers) as answer:
            assert answer.status == 200
        for path, code in (
            ("/agents/b/identity/npub", "http.other_agent"),
            ("/agents/a/admin/echo", "fs.access_denied"),
        ):
            async with http.get(path, headers=headers) as answer:
                assert (answer.status, (await answer.json())["code"]) == (403, code)
        async with http.post("/agents/a/inbox", data=b"x", headers=headers) as answer:
            assert answer.status == 403


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:1", "localhost.evil.example:{port}", ""])
async def test_a_foreign_host_is_refused_even_with_the_token(host: str) -> None:
    async with plane() as (made, http):
        port = made.control.url.rsplit(":", 1)[1]
        for path in ("/agents", "/healthz"):
            async with http.get(path, headers={"Host": host.format(port=port)}) as answer:
                assert (answer.status, (await answer.json())["code"]) == (421, "http.wrong_host")
        async with http.get("/healthz", headers={"Host": f"LOCALHOST:{port}"}) as answer:
            assert answer.status == 200


@pytest.mark.parametrize("origin", ["http://evil.example", "null", "http://127.0.0.1", "https://127.0.0.1:{port}", ""])
async def test_a_web_page_of_another_origin_is_refused(origin: str) -> None:
    async with plane() as (made, http):
        port = made.control.url.rsplit(":", 1)[1]
        async with http.post("/agents/a/inbox", data=b"x", headers={"Origin": origin.format(port=port)}) as answer:
            assert (answer.status, (await answer.json())["code"]) == (403, "http.foreign_origin")
        assert not await made.unit.select("inbox")
        async with http.get("/agents", headers={"Origin": made.control.url}) as answer:
            assert answer.status == 200


HOSTILE_TARGETS = [
    (b"/agents/a/../b/identity/pubkey", 400),
    (b"/agents/a/%2e%2e/b/identity/pubkey", 400),
    (b"/agents/a/%252e%252e/x", 400),
    (b"/agents/a%2Fidentity", 400),
    (b"/agents//a", 400),
    (b"/agents/a/x%00", 400),
    (b"/agents/a/x%0d%0aSet-Cookie:x", 400),
    (b"/agents/a/..%5c..%5cb", 400),
    (b"/agents/a/%ff", 400),
    (b"/agents/a/" + b"a" * 2_000, 400),
    (b"/agents/nobody/status", 404),
    (b"/agents/node/ctl/pause", 404),
    (b"/", 404),
    (b"/other", 404),
    (b"/agents/a/goals/UPPER", 404),
    (b"/agents/a/inbox/nothing", 404),
    (b"/healthz/", 404),
]


@pytest.mark.parametrize(("target", "status"), HOSTILE_TARGETS)
async def test_a_hostile_target_is_refused(target: bytes, status: int) -> None:
    async with plane() as (made, _):
        host = made.control.url.removeprefix("http://").encode()
        head = b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n"
        got, answer = await made.raw(head + b"Authorization: Bearer " + TOKEN.encode() + b"\r\n\r\n")
        assert got == status, answer
        assert b"application/problem+json" in answer


async def test_two_hosts_or_two_tokens_are_refused() -> None:
    async with plane() as (made, _):
        host = made.control.url.removeprefix("http://").encode()
        auth = b"Authorization: Bearer " + TOKEN.encode() + b"\r\n"
        twice = b"GET /agents HTTP/1.1\r\nHost: " + host + b"\r\nHost: evil\r\nConnection: close\r\n" + auth + b"\r\n"
        assert (await made.raw(twice))[0] in (400, 421)
        two = b"GET /agents HTTP/1.1\r\nHost: " + host + b"\r\nConnection: close\r\n" + auth + auth + b"\r\n"
        assert (await made.raw(two))[0] in (400, 401)


async def test_other_methods_are_refused() -> None:
    async with plane() as (_, http):
        for method in ("PATCH", "OPTIONS", "TRACE", "PROPFIND"):
            async with http.request(method, "/agents/a/goals/x") as answer:
                assert answer.status == 405, method


async def test_a_body_over_the_limit_is_refused_however_it_comes() -> None:
    async def chunks():
        for _ in range(40):
            yield b"x" * 65_536

    async with plane() as (made, http):
        async with http.post("/agents/a/odd/echo", data=b"x" * (1 << 20)) as answer:
            assert answer.status == 200
        for data in (b"x" * ((1 << 20) + 1), chunks()):
            async with http.post("/agents/a/odd/echo", data=data) as answer:
                assert (answer.status, (await answer.json())["code"]) == (413, "http.too_large")
        async with http.post("/agents/a/odd/echo", data=b"x", headers={"Content-Encoding": "gzip"}) as answer:
            assert answer.status in (400, 415)
        assert len(made.keys) == 1


async def test_an_unknown_failure_says_nothing_of_its_inside() -> None:
    async with plane() as (_, http), http.get("/agents/a/odd/crash") as answer:
        text = await answer.text()
        assert (answer.status, (await answer.json())["code"]) == (500, "http.internal")
        assert "secret" not in text
        assert "RuntimeError" not in text


async def test_the_key_of_a_call_is_the_callers_or_a_fresh_one_that_is_returned() -> None:
    async with plane() as (made, http):
        async with http.post("/agents/a/odd/echo", data=b"x", headers={"Idempotency-Key": "mine"}) as answer:
            assert answer.headers["Idempotency-Key"] == "mine"
        async with http.post("/agents/a/odd/echo", data=b"x") as answer:
            fresh = answer.headers["Idempotency-Key"]
        assert made.keys == ["mine", fresh]
        assert len(fresh) == 32
        async with http.post("/agents/a/goals", data=b"x") as answer:
            assert answer.status == 405
            assert answer.headers["Idempotency-Key"], "also with an error: the caller may have to ask again"


async def test_ready_says_why_not() -> None:
    async def good() -> None:
        return None

    async def bad() -> str:
        return "no relay is connected"

    async def worse() -> None:
        raise Unavailable("The mint does not answer.")

    checks = {"database": good}
    async with plane(checks=checks) as (_, http):
        async with http.get("/readyz", headers={"Authorization": ""}) as answer:
            assert (answer.status, await answer.json()) == (200, {"ready": True, "reasons": {}})
        checks |= {"relays": bad, "mint": worse}
        async with http.get("/readyz") as answer:
            assert answer.status == 503
            assert (await answer.json())["reasons"] == {
                "relays": "no relay is connected",
                "mint": "unavailable: The mint does not answer.",
            }


def test_it_listens_on_loopback_only() -> None:
    async def none() -> list[dict[str, str]]:
        return []

    for host in ("0.0.0.0", "::", "192.168.1.1", "localhost.example"):
        with pytest.raises(ValueError):
            ControlPlane(lambda name: pytest.fail(name), none, Tokens([]), MemoryDatabase(), host=host)


async def test_a_token_of_strange_bytes_is_no_token() -> None:
    async with plane() as (made, _):
        host = made.control.url.removeprefix("http://").encode()
        head = b"GET /agents HTTP/1.1\r\nConnection: close\r\nHost: " + host
        status, answer = await made.raw(head + b"\r\nAuthorization: Bearer \xff\xfe\r\n\r\n")
        assert status == 401
        assert b"http.unauthorized" in answer


async def test_a_request_that_never_ends_is_cut_off_and_a_stream_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(control, "IDLE_S", 2.0)
    async with plane() as (made, http), http.get("/agents/a/logs/trace?watch=1") as stream:
        port = int(made.control.url.rsplit(":", 1)[1])
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /healthz HTTP/1.1\r\nX-Slow: ")
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()
        await asyncio.sleep(2.5)
        await made.log("still here")
        async with asyncio.timeout(60):
            async for line in stream.content:
                if b"still here" in line:
                    break


async def test_a_compressed_body_is_refused_before_it_is_unpacked(caplog: pytest.LogCaptureFixture) -> None:
    async with plane() as (_, http):
        headers = {"Content-Encoding": "gzip"}
        async with http.put("/agents/a/goals/x", data=b"this is no gzip", headers=headers) as answer:
            assert answer.status == 415
    assert "Traceback" not in caplog.text
