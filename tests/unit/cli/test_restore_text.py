"""What a restore tells people of mints that did not say all: which unit, and what was found all the same."""

from cli.command.wallet import _found

MINT = "https://mint.example"


def _one(unit: str = "sat", amount: int = 0, problem: str = "") -> dict[str, object]:
    found = {"mint": MINT, "unit": unit, "amount": amount, "coins": amount, "keysets": 1}
    return {**found, "listed": True, "problem": problem}


def _lines(*restored: dict[str, object]) -> list[str]:
    return _found({"restored": list(restored), "pending": [], "memos": 1})


def test_a_unit_that_was_not_searched_is_named():
    lines = _lines(_one("sat", 3), _one("usd", problem="wallet.unit"))
    assert lines == [f"{MINT}: 3 sat in 3 coins were found.", f"{MINT} (usd): wallet.unit; it is asked again."]


def test_what_was_found_is_told_also_where_a_mint_contradicts_itself():
    lines = _lines(_one("sat", 3, "mint.lied"))
    assert lines == [f"{MINT}: mint.lied; it is asked again.", f"{MINT}: 3 sat in 3 coins were found."]
