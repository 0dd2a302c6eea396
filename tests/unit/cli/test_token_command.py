"""`vendo token` against a control plane."""

import json
from pathlib import Path

import pytest

from cli.output import ExitCode
from core.error import NotFound
from tests.unit.cli.node_part import running

ROW = {
    "id": "5c0a3d1e9b7f2468", "role": "agent", "agent": "scout", "label": "dashboard", "created_at": 1_790_000_000,
    "expires_at": None, "expired": False,
}  # fmt: skip
NEW, ALL = "tokens/new", "tokens"


async def test_a_new_token_is_what_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(tmp_path / "h", {NEW: {**ROW, "token": "vendo_token_x"}}) as node:
        words = ["token", "new", "--agent", "scout", "--label", "dashboard", "--days", "2", "--key", "k"]
        assert await node.vendo(*words) == 0
        assert node.asked == [
            (NEW, {"role": "agent", "agent": "scout", "label": "dashboard", "expires_in_s": 172_800}, "k")
        ]
        shown = capsys.readouterr()
        assert shown.out == "vendo_token_x\n"
        assert f"vendo token revoke {ROW['id']}" in shown.err
        assert await node.vendo("token", "new", "--operator", "--json") == 0
        assert json.loads(capsys.readouterr().out)["token"] == "vendo_token_x"
        assert node.asked[-1][1] == {"role": "operator", "agent": "", "label": ""}


@pytest.mark.parametrize("words", [[], ["--agent", "scout", "--operator"]])
async def test_it_is_for_an_agent_or_for_the_operator(tmp_path: Path, words: list[str]) -> None:
    async with running(tmp_path / "h", {NEW: ROW}) as node:
        assert await node.vendo("token", "new", *words) == ExitCode.USAGE
        assert node.asked == []


async def test_tokens_are_listed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(tmp_path / "h", {ALL: [ROW]}) as node:
        assert await node.vendo("token", "list") == 0
        assert "2026-09-21 14:13" in capsys.readouterr().out
        assert await node.vendo("token", "list", "--json") == 0
        assert json.loads(capsys.readouterr().out) == [ROW]


async def test_no_tokens_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(tmp_path / "h", {ALL: []}) as node:
        assert await node.vendo("token", "list") == 0
        assert "no tokens" in capsys.readouterr().err


async def test_one_that_is_not_there_cannot_be_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    async with running(tmp_path / "h", {ALL: NotFound("x")}) as node:
        assert await node.vendo("token", "revoke", "nothing") != 0
        assert "vendo:" in capsys.readouterr().err
