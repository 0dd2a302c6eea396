"""/tokens: what the operator asks for becomes a token, and nothing else does."""

from pathlib import Path
from typing import Any

import orjson
import pytest

from core.error import InvalidInput, KeyReused, NotFound
from fs.error import AccessDenied, KeyRequired, NoSuchFile
from fs.namespace import Access, Mount, Namespace
from fs.secret import Secret
from fs.service.tokens import MadeToken, tokens_service
from fs.session import Role, Session
from node.http.token import digest
from node.http.token_file import FILE, TokenFile
from tests.integration.agent.inbox_part import StillClock

OPERATOR = Session("operator", Role.OPERATOR, "k")
SCOUT = {"role": "agent", "agent": "scout", "label": "dashboard"}


def made(home: Path) -> tuple[TokenFile, Namespace]:
    async def is_agent(name: str) -> bool:
        return name == "scout"

    tokens = TokenFile(home / FILE, StillClock(), lambda token_id: token_id.encode() * 2)
    return tokens, Namespace([Mount("/tokens", tokens_service(tokens, is_agent), Access.ADMIN)])


async def call(tree: Namespace, value: Any, session: Session = OPERATOR) -> Any:
    body = value if isinstance(value, bytes) else orjson.dumps(value)
    return orjson.loads(bytes(await tree.call("/tokens/new", body, session)))


async def test_a_token_is_made_listed_and_revoked(tmp_path: Path) -> None:
    tokens, tree = made(tmp_path)
    one = await call(tree, {**SCOUT, "expires_in_s": 60})
    MadeToken.model_validate(one)
    assert tokens.known(digest(one["token"]))
    shown = orjson.loads(await tree.read("/tokens", OPERATOR))
    assert shown == [{name: value for name, value in one.items() if name != "token"}]
    assert orjson.loads(await tree.read(f"/tokens/{one['id']}", OPERATOR)) == shown[0]
    assert {entry.name for entry in await tree.list("/tokens", OPERATOR)} == {"README", "new", one["id"]}
    await tree.remove(f"/tokens/{one['id']}", OPERATOR)
    assert tokens.known(digest(one["token"])) is None
    with pytest.raises(NoSuchFile):
        await tree.read(f"/tokens/{one['id']}", OPERATOR)
    with pytest.raises(NoSuchFile):
        await tree.remove(f"/tokens/{one['id']}", OPERATOR)


async def test_the_answer_is_a_secret_as_a_whole(tmp_path: Path) -> None:
    _, tree = made(tmp_path)
    answer = await tree.call("/tokens/new", orjson.dumps(SCOUT), OPERATOR)
    assert isinstance(answer, Secret)
    assert "vendo_token_" not in repr(answer)


async def test_a_key_makes_one_token(tmp_path: Path) -> None:
    _, tree = made(tmp_path)
    assert (await call(tree, SCOUT)) == (await call(tree, SCOUT))
    with pytest.raises(KeyReused):
        await call(tree, {"role": "operator"})
    with pytest.raises(KeyRequired):
        await call(tree, SCOUT, OPERATOR.with_key(None))


WRONG: list[Any] = [
    b"", b"{", b"[]", b"null", b"\xff", b'{"role": NaN}', b"[" * 10_000, {}, {"role": "public"}, {"role": "agent"},
    {"role": "operator", "agent": "scout"}, {"role": "agent", "agent": ""}, {"role": "agent", "agent": "../a"},
    {**SCOUT, "more": 1}, {**SCOUT, "label": "x" * 101}, {**SCOUT, "label": "two\nlines"}, {**SCOUT, "label": 1},
    {**SCOUT, "expires_in_s": 0}, {**SCOUT, "expires_in_s": "60"}, {**SCOUT, "expires_in_s": 1.5},
    {**SCOUT, "expires_in_s": 10**18}, b'{"role": "agent", "agent": "scout", "expires_in_s": 100000000000000000000000}',
]  # fmt: skip


@pytest.mark.parametrize("body", WRONG)
async def test_what_is_no_wish_for_a_token_makes_none(tmp_path: Path, body: Any) -> None:
    tokens, tree = made(tmp_path)
    with pytest.raises(InvalidInput):
        await call(tree, body)
    assert tokens.rows() == []


async def test_there_is_no_token_for_an_agent_that_is_not_there(tmp_path: Path) -> None:
    tokens, tree = made(tmp_path)
    with pytest.raises(NotFound):
        await call(tree, {"role": "agent", "agent": "nobody"})
    assert tokens.rows() == []


async def test_nobody_but_the_operator_sees_them(tmp_path: Path) -> None:
    _, tree = made(tmp_path)
    one = await call(tree, SCOUT)
    agent = Session("agent:scout", Role.AGENT, "k")
    for asked in (
        tree.read("/tokens", agent), tree.read(f"/tokens/{one['id']}", agent),
        tree.remove(f"/tokens/{one['id']}", agent),
        tree.call("/tokens/new", orjson.dumps(SCOUT), agent),
    ):  # fmt: skip
        with pytest.raises(AccessDenied):
            await asked
