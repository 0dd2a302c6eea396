"""`vendo wallet` against a control plane: what it says of money, and what it asks for."""

from pathlib import Path

import pytest
import typer

from cli.output import ExitCode
from tests.unit.cli.node_part import running

MINT = "https://mint.example"

OP = "a" * 32
GIVE_UP = "wallet/lightning/give-up"
PAID = {"op_id": OP, "state": "done", "stage": "paid", "amount": 21_000, "fee": 2_000}


@pytest.mark.parametrize(
    ("answer", "code", "said"),
    [
        ({**PAID, "reason": "given_up"}, 0, "counts as paid (23000 msat), though nobody knows"),
        ({**PAID, "reason": ""}, 0, "is paid (23000 msat): its wallet has said so"),
        ({**PAID, "state": "unknown", "stage": "unknown"}, ExitCode.TEMPORARY, "was not given up: it is unknown"),
    ],
)
async def test_a_payment_counts_as_paid_only_if_it_was_given_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], answer: dict[str, object], code: int, said: str
) -> None:
    async with running(tmp_path / "h", {GIVE_UP: answer}) as node:
        assert await node.vendo("wallet", "give-up", OP, "--key", "k") == code
    shown = capsys.readouterr()
    assert said in shown.out + shown.err
    assert ("counts as paid" in shown.out + shown.err) is ("counts as paid" in said)


async def test_what_was_confirmed_in_another_unit_is_what_may_be_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[str] = []
    monkeypatch.setattr(typer, "confirm", lambda text, **_: shown.append(text))
    plan = {"mint": MINT, "unit": "usd", "total": 105, "amount_sat": 1_337}
    paid = {"op_id": OP, "state": "done", "amount": 100, "fee": 2}
    async with running(tmp_path / "h", {"wallet/prepare": plan, "wallet/withdraw": paid}) as node:
        for key in ([], ["--key", "k"]):
            assert await node.vendo("wallet", "withdraw", "lnbc1x", "--unit", "usd", *key) == 0
            agreed = {"mint": MINT, "total": 105}
            assert node.asked[-1][1] == {"invoice": "lnbc1x", "unit": "usd", "agreed": agreed}
        assert await node.vendo("wallet", "withdraw", "lnbc1x", "--unit", "usd", "--yes") == 0
        assert node.asked[-1][1] == {"invoice": "lnbc1x", "unit": "usd"}
    assert shown == [f"Pay 1337 sat for 1.05 usd at most, from {MINT}?"] * 2
