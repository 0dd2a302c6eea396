"""What `vendo sell` sends for the words of people."""

import json

import pytest

from cli.command.sell import _terms
from cli.main import run
from cli.output import ExitCode
from tests.unit.cli.wire_part import answer, listening

OFFER = {
    "kind": 5050, "provider": "echo", "unit": "uusd", "price": 2_000, "per": "1k_chars", "minimum": 1_000,
    "maximum": None, "eta_s": 5, "max_parallel": 8, "state": "selling", "price_msat": None,
}  # fmt: skip


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (("21sat", "job", None, None), {"per": "job", "price_msat": 21_000}),
        (("0", "job", None, None), {"per": "job", "price_msat": 0}),
        (("1500msat", "job", None, "9sat"), {"per": "job", "price_msat": 1_500, "max_msat": 9_000}),
        (
            ("0.002usd", "1k_chars", "0.001usd", None),
            {"per": "1k_chars", "price_usd": "0.002", "min_usd": "0.001"},
        ),
    ],
)
def test_a_price_is_an_amount_with_its_unit(words, body) -> None:
    assert _terms(*words) == body


def test_what_is_sold_is_told_in_words(tmp_path, capsys) -> None:
    with listening(tmp_path, lambda asked: answer(json.dumps(OFFER).encode())):
        assert run(["sell", "price", "5050", "--price", "1sat", "--home", str(tmp_path)]) == ExitCode.OK
    assert capsys.readouterr().out == "5050: selling, $0.002000 per 1k_chars, at least $0.001000\n"


@pytest.mark.parametrize("price", ["21", "1.5sat", "-1sat", "1e3sat", "usd", "0.0000001usd", "1 sat", "٣sat"])
def test_an_amount_that_is_not_plain_asks_nobody(tmp_path, capsys, price) -> None:
    with listening(tmp_path, lambda asked: answer(b"{}")) as asked:
        assert run(["sell", "start", "5050", "--price", price, "--home", str(tmp_path)]) == ExitCode.USAGE
    assert asked == []
    assert "msat" in capsys.readouterr().err or price.startswith("-")


def test_alone_it_lists(tmp_path, capsys) -> None:
    with listening(
        tmp_path, lambda asked: answer(json.dumps([OFFER]).encode() if "/sell" in asked.path else b"[]")
    ) as asked:
        assert run(["sell", "--home", str(tmp_path)]) == ExitCode.OK
    assert "echo" in capsys.readouterr().out
    assert {one.method for one in asked} == {"GET"}
