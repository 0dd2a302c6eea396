import pytest

from core.error import InvalidInput
from node.agent.wake.interest import check_type, names_for, read_pattern, watch

EVENT = {
    "type": "payment.received",
    "source": "wallet",
    "subject": "op1",
    "data": {"amount": 21, "unit": "sat", "deep": {"er": [1]}, "on": True, "none": None},
}


@pytest.mark.parametrize(
    ("pattern", "matches"),
    [
        ("{}", True),
        ('{"source": "wallet"}', True),
        ('{"source": "market"}', False),
        ('{"source": ["market", "wallet"]}', True),
        ('{"subject": {"prefix": "op"}}', True),
        ('{"subject": {"prefix": ""}}', True),
        ('{"subject": {"prefix": "opx"}}', False),
        ('{"data.amount": 21}', True),
        ('{"data.amount": 21.0}', True),
        ('{"data.amount": "21"}', False),
        ('{"data.amount": {"min": 21}}', True),
        ('{"data.amount": {"min": 22}}', False),
        ('{"data.amount": {"max": 20.9}}', False),
        ('{"data.amount": {"min": 1, "max": 100}}', True),
        ('{"data.unit": {"min": 1}}', False),
        ('{"data.amount": {"prefix": "2"}}', False),
        ('{"data.on": true}', True),
        ('{"data.on": 1}', False),
        ('{"data.on": {"min": 0}}', False),
        ('{"data.none": null}', True),
        ('{"data.absent": null}', False),
        ('{"data.deep.er": 1}', False),
        ('{"data.deep.er.x": 1}', False),
        ('{"type": "payment.received", "data.unit": ["msat", "sat"], "data.amount": {"min": 1}}', True),
        ('{"type": "payment.received", "data.unit": "msat"}', False),
    ],
)
def test_all_fields_of_a_pattern_must_be_so(pattern: str, matches: bool) -> None:
    assert read_pattern(pattern).matches(EVENT) is matches


@pytest.mark.parametrize(
    "pattern",
    [
        "", "[]", "1", '"x"', "{", '{"amount": 1}', '{"data": {"a": 1}}', '{"data.": 1}', '{"data..a": 1}', '{"": 1}',
        '{"source.x": 1}', '{"id": 1}', '{"source": {}}', '{"source": []}', '{"source": [[1]]}', '{"source": [{}]}',
        '{"source": {"regex": ".*"}}', '{"source": {"prefix": 1}}', '{"source": {"prefix": "a", "min": 1}}',
        '{"source": {"min": "1"}}', '{"source": {"min": true}}', '{"source": {"min": 1, "step": 2}}',
        '{"data.' + ".".join("abcdefghi") + '": 1}', "{" + ",".join(f'"data.x{n}": 1' for n in range(17)) + "}",
        '{"source": [' + ",".join("1" * 65) + "]}", '{"source": "' + "x" * 5_000 + '"}', '{"source": NaN}',
        "[" * 100_000,
    ],
)  # fmt: skip
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidInput):
        read_pattern(pattern)


def test_an_event_is_heard_by_its_type_its_beginnings_and_the_star() -> None:
    assert names_for("a.b.c") == ("a.b.c", "a.b.*", "a.*", "*")
    assert names_for("a") == ("a", "*")


@pytest.mark.parametrize(
    "event", ["", "A", "a.", ".a", "a..b", "a.*.b", "*.a", "a*", "a b", "a/b", "é", "x" * 101, "**"]
)
def test_an_interest_names_a_type_or_a_beginning(event: str) -> None:
    with pytest.raises(InvalidInput):
        watch("a", "i", 1, event)


def test_an_event_has_a_plain_type() -> None:
    assert check_type("webhook.github-push") == "webhook.github-push"
    for event in ("*", "a.*", "", "A", "x" * 101):
        with pytest.raises(InvalidInput):
            check_type(event)
