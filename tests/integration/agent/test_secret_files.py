"""/secrets: set and never read, sealed where they lie, put in where they are used, left out of all that is shown."""

import io
import logging
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
import pytest
from pydantic import ValidationError

from core.clock import SystemClock
from core.error import InvalidInput
from core.unit import Insert, Row, Update
from fs.error import AccessDenied, BodyTooLarge, NoSuchFile, Unsupported
from fs.handle import Open, Seen, open_file
from fs.service.secrets import MAX_BYTES, MAX_SECRETS
from node.agent.outside.command import CommandConfig
from node.agent.outside.webhook import WebhookConfig
from node.agent.replay.redactor import HANDLE, Redactor
from node.agent.replay.rerun import replay
from node.agent.wake.estate import settle
from node.line import LineFormatter, hide
from node.secret.error import SecretMissing
from node.secret.reference import faces, no_secrets
from node.storage.chain import unsigned_seal
from node.storage.memory import MemoryDatabase
from tests.integration.agent.keep_part import OTHER_WORDS, Keep
from tests.integration.agent.outside_part import Outskirts, ends, outskirts
from tests.unit_part import ENGINES

VALUE = "sesame-open-0123456789"
PEM = "-----BEGIN PRIVATE KEY-----\nMIGEAgEAMBAGByqGSM49\nAgEGBSuBBAAKBG0wawIB\n-----END PRIVATE KEY-----"


async def facts(keep: Keep, path: str = "/secrets") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = orjson.loads(await keep.read(path))
    return found


async def test_a_secret_is_set_seen_by_name_replaced_and_taken_away_each_in_one_commit(keep: Keep) -> None:
    before = keep.unit.stats()["units"]
    await keep.write("/secrets/openai", VALUE + "\n")
    (fact,) = await facts(keep)
    assert (fact["name"], fact["bytes"]) == ("openai", len(VALUE))
    assert fact["set_at_ms"] > 1_700_000_000_000
    for session in (keep.operator, keep.own):
        assert await keep.names("/secrets", session) == ["openai"]
        stat = (await keep.space.list("/secrets", session))[-1]
        assert (stat.size, stat.readable, stat.writable, stat.removable) == (len(VALUE), False, True, True)
        assert "bytes, set 20" in stat.about
    assert await keep.safe.reveal("a", "secret:openai") == VALUE
    await keep.write("/secrets/openai", "another one")
    assert await keep.safe.reveal("a", "secret:openai") == "another one"
    await keep.space.remove("/secrets/openai", keep.operator)
    assert await facts(keep) == []
    assert keep.unit.stats()["units"] == before + 3
    with pytest.raises(NoSuchFile):
        await keep.space.remove("/secrets/openai", keep.operator)
    with pytest.raises(SecretMissing):
        await keep.safe.reveal("a", "secret:openai")


async def test_nobody_reads_one_and_only_the_operator_sets_one(quick: Keep) -> None:
    await quick.write("/secrets/openai", VALUE)
    before = await quick.rows()
    for session in (quick.operator, quick.own, quick.tick()):
        with pytest.raises(Unsupported):
            await quick.read("/secrets/openai", session)
        with pytest.raises(Unsupported):
            await open_file(Seen(quick.space, session), "/secrets/openai", Open.READ)
        with pytest.raises(Unsupported):
            await anext(quick.space.watch("/secrets/openai", session, 0))
    for session in (quick.own, quick.tick()):
        for doing in (
            quick.write("/secrets/openai", "mine is longer", session),
            quick.write("/secrets/new", "mine is longer", session),
            quick.space.remove("/secrets/openai", session),
            quick.space.rename("/secrets/openai", "/secrets/new", session),
            quick.space.mkdir("/secrets/new", session),
            quick.write("/node/openai", "mine is longer", session),
            quick.space.list("/node", session),
        ):
            with pytest.raises(AccessDenied):
                await doing
        with pytest.raises(NoSuchFile):
            await quick.read("/secrets/new", session)
    with pytest.raises(Unsupported):
        await quick.space.rename("/secrets/openai", "/secrets/new", quick.operator)
    async with await open_file(Seen(quick.space, quick.operator), "/secrets/openai", Open.WRITE):
        pass
    assert await quick.rows() == before


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", InvalidInput), (b"short", InvalidInput), (b"  short     ", InvalidInput), (b"\xff" * 20, InvalidInput),
        (b"with a \0 zero byte", InvalidInput), (b"long-" * 4_000, BodyTooLarge), (b"long-" * 3_277, InvalidInput),
    ],
)  # fmt: skip
async def test_what_is_no_secret_is_refused_in_words_that_show_nothing_of_it(
    quick: Keep, body: bytes, error: type[Exception]
) -> None:
    await quick.write("/secrets/openai", VALUE)
    before = await quick.rows()
    for path in ("/secrets/openai", "/secrets/new"):
        with pytest.raises(error) as caught:
            await quick.write(path, body)
        shown = f"{caught.value}{caught.value.__cause__}"
        assert "short" not in shown.replace("shorter", "")
        assert "long-" not in shown
        assert "zero byte" not in shown.replace("no zero byte", "")
        assert "\\xff" not in shown
    assert await quick.rows() == before


@pytest.mark.parametrize("name", ["UPPER", "-x", "a.b", "a" * 65, "ü", "README", "node", ".."])
async def test_a_secrets_name_is_a_strict_one(quick: Keep, name: str) -> None:
    if name == "node":
        await quick.write("/secrets/node", VALUE)
        assert await quick.names("/secrets") == ["node"]
        return
    with pytest.raises((NoSuchFile, InvalidInput, Unsupported)):
        await quick.write(f"/secrets/{name}", VALUE)
    assert await facts(quick) == []


async def test_a_secret_may_have_lines_and_the_last_line_break_is_not_its_own(quick: Keep) -> None:
    for body, value in ((PEM + "\n", PEM), (VALUE + "\r\n", VALUE), (VALUE + "\n\n", VALUE + "\n")):
        await quick.write("/secrets/s", body)
        assert await quick.safe.reveal("a", "secret:s") == value
    await quick.write("/secrets/s", "x" * MAX_BYTES)


async def test_there_are_only_so_many(quick: Keep) -> None:
    row: Row = {"agent": "a", "sealed": b"", "size": 0, "set_at_ms": 1}
    await quick.unit.commit([Insert("secret", {**row, "name": f"s{number}"}) for number in range(MAX_SECRETS)])
    with pytest.raises(InvalidInput, match="at most"):
        await quick.write("/secrets/more", VALUE)
    await quick.write("/secrets/s5", VALUE)
    await quick.write("/node/more", VALUE)


async def test_an_agent_has_its_own_and_the_nodes_are_named_as_such(quick: Keep) -> None:
    await quick.write("/secrets/one", VALUE)
    await quick.write("/node/two", "the node's own one")
    reveal = quick.safe.reveal
    assert await reveal("a", "secret:one") == VALUE
    assert await reveal("a", "secret:node/two") == "the node's own one"
    assert await reveal("a", "Bearer secret:one") == "Bearer secret:one"
    for agent, text in (("b", "secret:one"), ("a", "secret:two"), ("a", "secret:node/one")):
        with pytest.raises(SecretMissing, match="has no secret"):
            await reveal(agent, text)
    for name in ("", "UPPER", "b/one", "../x", "one\n", "node/", "node//x"):
        with pytest.raises(InvalidInput):
            await reveal("a", f"secret:{name}")
    assert await no_secrets("a", "plain") == "plain"
    with pytest.raises(SecretMissing):
        await no_secrets("a", "secret:one")


async def test_what_is_in_the_database_opens_nothing_without_the_words(tmp_path: Path) -> None:
    base = await ENGINES["sqlite"](tmp_path, unsigned_seal, SystemClock())
    keep = Keep(base)
    await keep.write("/secrets/openai", VALUE)
    await keep.write("/secrets/other", PEM)
    (row,) = await base.select("secret", {"name": "openai"})
    assert VALUE.encode() not in row["sealed"]
    again = Keep(base)
    assert await again.safe.reveal("a", "secret:openai") == VALUE, "after a restart it is there"
    await again.safe.load()
    assert {VALUE, PEM, "MIGEAgEAMBAGByqGSM49"} <= set(again.seen)
    thief = Keep(base, words=OTHER_WORDS)
    with pytest.raises(SecretMissing, match="other words"):
        await thief.safe.reveal("a", "secret:openai")
    await thief.safe.load()
    assert thief.seen == []
    await base.commit([Update("secret", {"name": "other"}, set={"sealed": row["sealed"]})])
    with pytest.raises(SecretMissing):
        await keep.safe.reveal("a", "secret:other")
    await base.aclose()
    for path in tmp_path.iterdir():
        if path.is_file():
            assert VALUE.encode() not in path.read_bytes(), path


async def test_what_an_agent_kept_goes_with_it(quick: Keep) -> None:
    other = Keep(quick.unit, agent="b")
    for one in (quick, other):
        await one.write("/secrets/s", VALUE)
        await one.write("/goals/g", '{"description": "x"}')
        await one.write("/memory/patterns/p", "x")
    await quick.write("/node/s", VALUE)
    await quick.unit.commit(settle("a", 1))
    for table in ("goal", "item", "secret"):
        left = {row["agent"] for row in await quick.unit.select(table)}
        assert left == ({"b", "node"} if table == "secret" else {"b"})


# ---- where they are used


@pytest.mark.parametrize(
    "env",
    [
        {"VENDO_TURN_TOKEN": "x"}, {"A=B": "x"}, {"": "x"}, {"A": "x\0y"}, {"A": 1}, {"A": "secret:"},
        {"A": "secret:Up"}, {"A": "secret:other/one"}, {"A": "x" * 40_000}, {f"A{n}": "x" for n in range(101)},
    ],
)  # fmt: skip
def test_variables_that_cannot_be_are_refused(env: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        CommandConfig.model_validate({"argv": ["true"], "env": env})


@pytest.mark.parametrize(
    "headers",
    [
        {"Host": "x"}, {"content-LENGTH": "1"}, {"X-Vendo-Signature": "x"}, {"A": "x", "a": "y"}, {"A B": "x"},
        {"A:": "x"}, {"": "x"}, {"A": "x\r\nB: y"}, {"A": "\0"}, {"A": "ü"}, {"A": "secret:Up"},
        {"A": "secret:node/x"}, {"A": 1}, {f"A{n}": "x" for n in range(21)},
    ],
)  # fmt: skip
def test_headers_that_cannot_be_are_refused(headers: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WebhookConfig.model_validate({"url": "https://example.com", "headers": headers})


@dataclass
class Street:
    """Agents outside, and the secrets that they use."""

    node: Outskirts
    keep: Keep


@pytest.fixture
async def street(tmp_path: Path) -> AsyncIterator[Street]:
    known, unit = Redactor(), MemoryDatabase()
    keep = Keep(unit, tell=known.learn)
    async with outskirts(tmp_path, unit=unit, reveal=keep.safe.reveal, redactor=known) as (node, _):
        yield Street(node, keep)


def sh(text: str) -> list[str]:
    return ["/bin/sh", "-c", text]


async def test_a_command_is_given_what_its_settings_name_and_nothing_shows_it(street: Street) -> None:
    node = street.node
    await street.keep.write("/secrets/openai", VALUE)
    await street.keep.write("/secrets/pem", PEM)
    await street.keep.write("/node/shared", "the node's own one")
    text = f"""echo "$PLAIN"; echo "key $KEY"; echo "$PEM"
        [ "$KEY" = "$(cat {node.folder}/wanted)" ] && [ "$SHARED" = "$(cat {node.folder}/shared)" ] && echo right"""
    env = {"PLAIN": "plain", "KEY": "secret:openai", "PEM": "secret:pem", "SHARED": "secret:node/shared"}
    (node.folder / "wanted").write_text(VALUE)
    (node.folder / "shared").write_text("the node's own one")
    await node.command_agent(*sh(text), env=env)
    row = await node.ended("initialize")
    assert (row["state"], row["error"]) == ("done", "")
    lines = [one["line"] for one in await node.trace("stdout")]
    assert lines == [
        "plain", f"key {HANDLE}", "-----BEGIN PRIVATE KEY-----", HANDLE, HANDLE, "-----END PRIVATE KEY-----", "right",
    ]  # fmt: skip
    shown = await street.node.everything()
    for secret in (VALUE, "MIGEAgEAMBAGByqGSM49", "the node's own one"):
        assert secret not in shown
    assert "secret:openai" in shown


async def test_what_a_command_says_of_a_secret_stands_in_no_error_state_record_or_recording(street: Street) -> None:
    node = street.node
    await street.keep.write("/secrets/openai", VALUE)
    await node.command_agent(*sh('echo "it is $KEY" >&2; exit 3'), env={"KEY": "secret:openai"})
    row = await node.tried("initialize")
    assert row["error"] == f"command.failed: The command ended with 3. It said: it is {HANDLE}"
    await Keep(node.unit, agent="b").write("/secrets/openai", VALUE)
    said = """printf '{"commit": false, "reason": "%s"}\\n' "$KEY" """
    await node.command_agent(*sh(said), name="b", env={"KEY": "secret:openai"})
    row = await node.tried("initialize", agent="b")
    assert HANDLE in row["error"]
    assert VALUE not in await street.node.everything()


async def test_a_trigger_waits_for_a_secret_that_is_missing_and_uses_up_no_try(street: Street) -> None:
    node = street.node
    await node.command_agent(*sh('[ -n "$KEY" ]'), env={"KEY": "secret:openai"})

    async def waits() -> bool:
        return str((await node.row("initialize"))["error"]).startswith("secret.missing")

    await node.until(waits)
    row = await node.row("initialize")
    assert (row["state"], row["tries"]) == ("new", 0)
    await street.keep.write("/secrets/openai", VALUE)
    assert (await node.ended("initialize"))["tries"] == 0


async def test_a_replay_needs_no_secret(street: Street) -> None:
    node = street.node
    await street.keep.write("/secrets/openai", VALUE)
    await node.command_agent(*sh('echo "key $KEY"'), env={"KEY": "secret:openai"})
    await node.ended("initialize")
    (recording,) = await node.recordings()
    await street.keep.space.remove("/secrets/openai", street.keep.operator)
    assert (await replay(recording, node.command)).result == "same"


async def test_a_webhook_is_sent_the_headers_that_its_settings_name(street: Street) -> None:
    node = street.node
    await street.keep.write("/secrets/key", f"Bearer {VALUE}")
    node.receiver.answer = ends({"commit": True})
    await node.webhook_agent(headers={"Authorization": "secret:key", "X-Team": "tea"})
    call = await node.called()
    assert call.request.headers["Authorization"] == f"Bearer {VALUE}"
    assert call.request.headers["X-Team"] == "tea"
    assert call.is_signed("whsec_of-a-1")
    assert (await node.ended("initialize"))["state"] == "done"
    assert VALUE not in await street.node.everything()


async def test_a_secret_that_is_no_header_is_not_sent(street: Street) -> None:
    node = street.node
    await street.keep.write("/secrets/pem", PEM)
    await node.webhook_agent(headers={"Authorization": "secret:pem"})

    async def waits() -> bool:
        return "cannot be a header" in str((await node.row("initialize"))["error"])

    await node.until(waits)
    assert node.receiver.calls == []
    assert "MIGE" not in await street.node.everything()


def test_the_log_shows_no_secret_that_the_process_has_seen() -> None:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(LineFormatter(["known-before"]))
    root, log = logging.getLogger(), logging.getLogger("tests.secret")
    root.addHandler(handler)
    try:
        hide(faces(PEM))
        hide([VALUE])
        log.warning("known-before, %s and %s", VALUE, "MIGEAgEAMBAGByqGSM49")
    finally:
        root.removeHandler(handler)
    assert "[redacted secret], [redacted secret] and [redacted secret]" in stream.getvalue()


async def test_setting_a_secret_tells_whoever_shows_texts_before_it_is_kept(quick: Keep) -> None:
    await quick.write("/secrets/pem", PEM)
    assert quick.seen == [PEM, "MIGEAgEAMBAGByqGSM49", "AgEGBSuBBAAKBG0wawIB"]


async def test_many_secrets_are_known_and_one_that_begins_another_hides_no_part_of_it(quick: Keep) -> None:
    known = Redactor()
    many = Keep(quick.unit, tell=known.learn)
    for number in range(60):
        await many.write(f"/secrets/s{number}", f"{VALUE}-{number}")
    again = Keep(quick.unit, tell=(fresh := Redactor()).learn)
    await again.safe.load()
    assert (
        fresh.text(f"{VALUE}-7 and {VALUE}-59") == known.text(f"{VALUE}-7 and {VALUE}-59") == f"{HANDLE} and {HANDLE}"
    )
