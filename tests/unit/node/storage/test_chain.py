"""Places in a chain: taken in order, given back with their unit, in time that never runs backwards."""

from core.unit import Append, Row
from node.storage.chain import Chain, unsigned_seal
from tests.gate_part import SetClock

ENTRY = Append("r", "begin", "e", "{}")


def chain(clock: SetClock, newest: Row | None = None) -> Chain:
    return Chain(unsigned_seal, clock, lambda run: newest)


def test_places_that_were_given_back_are_taken_again() -> None:
    made = chain(SetClock())
    first = made.append(ENTRY)
    made.keep()
    lost = [made.append(ENTRY), made.append(Append("other", "begin", "e", "{}")), made.append(ENTRY)]
    made.give_back()
    again = made.append(ENTRY)
    assert [row["seq"] for row in lost] == [1, 0, 2]
    assert (again["seq"], again["prev"]) == (1, first["id"])


def test_a_chain_goes_on_behind_what_is_in_the_database() -> None:
    before = chain(SetClock(2_000)).append(ENTRY)
    row = chain(SetClock(1_000), before).append(ENTRY)
    assert (row["seq"], row["prev"]) == (1, before["id"])
    assert '"created_at":2000' in row["raw"]


def test_after_a_doubt_the_database_is_asked_again() -> None:
    asked: list[str] = []

    def newest(run: str) -> None:
        asked.append(run)

    made = Chain(unsigned_seal, SetClock(), newest)
    made.append(ENTRY)
    made.append(ENTRY)
    assert asked == ["r"]
    made.forget()
    assert made.append(ENTRY)["seq"] == 0
    assert asked == ["r", "r"]
