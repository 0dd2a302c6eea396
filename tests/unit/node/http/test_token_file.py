"""Tokens that are given out: made, found, expired, revoked, and never written down."""

import asyncio
import hashlib
import json
import stat
from pathlib import Path

import pytest

from core.error import KeyReused, NotFound
from fs.session import Role
from node.http.error import TokensDamaged
from node.http.token import digest
from node.http.token_file import FILE, MAX_TOKENS, PREFIX, SHOWN_S, TokenFile
from tests.integration.agent.inbox_part import StillClock


def secret(token_id: str) -> bytes:
    return hashlib.sha256(b"seed" + token_id.encode()).digest()


def opened(home: Path, clock: StillClock) -> TokenFile:
    return TokenFile(home / FILE, clock, secret)


async def test_a_token_is_shown_once_and_kept_as_a_digest(tmp_path: Path) -> None:
    tokens = opened(tmp_path, StillClock())
    made = await tokens.add("agent", "scout", "dashboard", None, "k")
    token = made["token"]
    assert token.startswith(PREFIX)
    assert len(token) > 50
    grant = tokens.known(digest(token))
    assert grant is not None
    assert (grant.caller, grant.role) == ("agent:scout", Role.AGENT)
    text = (tmp_path / FILE).read_text()
    assert token not in text
    assert token.removeprefix(PREFIX) not in text
    assert digest(token) in text
    assert stat.S_IMODE((tmp_path / FILE).stat().st_mode) == 0o600
    (row,) = tokens.rows()
    assert row == {key: value for key, value in made.items() if key != "token"}
    assert "digest" not in row


async def test_an_operator_s_token_is_the_operator(tmp_path: Path) -> None:
    tokens = opened(tmp_path, StillClock())
    made = await tokens.add("operator", "", "", None, "k")
    grant = tokens.known(digest(made["token"]))
    assert grant is not None
    assert (grant.caller, grant.role) == ("operator", Role.OPERATOR)
    assert tokens.known(digest(made["token"] + "x")) is None


async def test_the_same_key_makes_one_token_and_shows_it_for_a_while(tmp_path: Path) -> None:
    clock = StillClock()
    tokens = opened(tmp_path, clock)
    asked = ("agent", "scout", "", 86_400, "k")
    first = await tokens.add(*asked)
    assert (await opened(tmp_path, clock).add(*asked))["token"] == first["token"], "also after a restart"
    await clock.advance(SHOWN_S + 1)
    assert (await tokens.add(*asked))["token"] is None
    assert len(tokens.rows()) == 1
    with pytest.raises(KeyReused):
        await tokens.add("agent", "other", "", 86_400, "k")
    with pytest.raises(KeyReused):
        await tokens.add("agent", "scout", "", None, "k")
    second = await tokens.add("agent", "scout", "", 86_400, "another")
    assert second["token"] not in (None, first["token"])


async def test_a_token_that_was_revoked_opens_nothing_and_its_key_makes_another(tmp_path: Path) -> None:
    tokens = opened(tmp_path, StillClock())
    made = await tokens.add("operator", "", "", None, "k")
    await tokens.remove(made["id"])
    assert tokens.known(digest(made["token"])) is None
    assert tokens.rows() == []
    with pytest.raises(NotFound):
        await tokens.remove(made["id"])
    again = await tokens.add("operator", "", "", None, "k")
    assert again["token"] != made["token"]


async def test_a_token_expires(tmp_path: Path) -> None:
    clock = StillClock()
    tokens = opened(tmp_path, clock)
    made = await tokens.add("operator", "", "", 60, "k")
    assert made["expires_at"] == made["created_at"] + 60
    await clock.advance(59)
    assert tokens.known(digest(made["token"])) is not None
    await clock.advance(1)
    assert tokens.known(digest(made["token"])) is None
    assert [row["expired"] for row in tokens.rows()] == [True]


async def test_what_another_process_changes_counts_within_a_second(tmp_path: Path) -> None:
    clock = StillClock()
    one, two = opened(tmp_path, clock), opened(tmp_path, clock)
    assert one.known("0" * 64) is None
    made = await two.add("operator", "", "", None, "k")
    await clock.advance(1.0)
    assert one.known(digest(made["token"])) is not None
    await two.remove(made["id"])
    await clock.advance(1.0)
    assert one.known(digest(made["token"])) is None
    await one.add("operator", "", "", None, "k2")
    await two.add("operator", "", "", None, "k3")
    assert len(one.rows()) == len(two.rows()) == 2, "nobody writes over what the other one wrote"


async def test_the_file_may_be_taken_away(tmp_path: Path) -> None:
    clock = StillClock()
    tokens = opened(tmp_path, clock)
    made = await tokens.add("operator", "", "", None, "k")
    (tmp_path / FILE).unlink()
    await clock.advance(1.0)
    assert tokens.known(digest(made["token"])) is None
    assert tokens.rows() == []


DAMAGED = [
    "", "{", "[]", "null", '{"version": 2, "tokens": []}', '{"version": 1}', '{"version": 1, "tokens": [{}]}',
    '{"version": 1, "tokens": [], "more": 1}',
]  # fmt: skip


@pytest.mark.parametrize("text", DAMAGED)
async def test_a_file_that_is_damaged_opens_nothing_and_stays_as_it_is(tmp_path: Path, text: str) -> None:
    clock = StillClock()
    tokens = opened(tmp_path, clock)
    made = await tokens.add("operator", "", "", None, "k")
    whole = (tmp_path / FILE).read_text()
    (tmp_path / FILE).write_text(text)
    await clock.advance(1.0)
    assert tokens.known(digest(made["token"])) is None
    for change in (lambda: tokens.add("operator", "", "", None, "k2"), lambda: tokens.remove(made["id"])):
        with pytest.raises(TokensDamaged):
            await change()
    with pytest.raises(TokensDamaged):
        tokens.rows()
    assert (tmp_path / FILE).read_text() == text
    (tmp_path / FILE).write_text(whole)
    await clock.advance(1.0)
    assert tokens.known(digest(made["token"])) is not None


@pytest.mark.parametrize("change", [{"caller": "public"}, {"caller": "agent:"}, {"caller": "agent:A"}, {"digest": "x"}])
async def test_a_row_that_nobody_could_have_made_is_damage(tmp_path: Path, change: dict[str, str]) -> None:
    tokens = opened(tmp_path, StillClock())
    await tokens.add("operator", "", "", None, "k")
    value = json.loads((tmp_path / FILE).read_text())
    value["tokens"][0] |= change
    (tmp_path / FILE).write_text(json.dumps(value))
    with pytest.raises(TokensDamaged):
        tokens.rows()


async def test_a_file_that_others_can_read_opens_nothing(tmp_path: Path) -> None:
    clock = StillClock()
    tokens = opened(tmp_path, clock)
    made = await tokens.add("operator", "", "", None, "k")
    (tmp_path / FILE).chmod(0o640)
    await clock.advance(1.0)
    assert tokens.known(digest(made["token"])) is None
    (tmp_path / FILE).chmod(0o600)
    await clock.advance(1.0)
    assert tokens.known(digest(made["token"])) is not None


async def test_tokens_that_are_made_at_the_same_time_are_all_kept(tmp_path: Path) -> None:
    tokens = opened(tmp_path, StillClock())
    made = await asyncio.gather(*(tokens.add("operator", "", "", None, f"k{number % 5}") for number in range(20)))
    assert len({one["token"] for one in made}) == len(tokens.rows()) == 5


async def test_a_node_without_a_home_keeps_them_in_memory() -> None:
    tokens = TokenFile(None, StillClock(), secret)
    made = await tokens.add("operator", "", "", None, "k")
    assert tokens.known(digest(made["token"])) is not None
    await tokens.remove(made["id"])
    assert tokens.known(digest(made["token"])) is None


async def test_there_is_a_bound_and_what_has_expired_makes_room() -> None:
    clock = StillClock()
    tokens = TokenFile(None, clock, secret)
    for number in range(MAX_TOKENS):
        await tokens.add("operator", "", "", 60, f"k{number}")
    with pytest.raises(Exception, match="tokens"):
        await tokens.add("operator", "", "", None, "one more")
    await clock.advance(60)
    await tokens.add("operator", "", "", None, "one more")
    assert len(tokens.rows()) == 1
