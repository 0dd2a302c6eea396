"""A body is checked by the model that describes it."""

from typing import Any

import pytest
from pydantic import Field, field_validator

from core.error import InvalidInput
from fs.body import Body, gives_two, of_calling, of_reading, parsed
from relays.error import MalformedEvent


class Wish(Body):
    """What is wanted."""

    name: str = Field(min_length=1)
    count: int = Field(0, ge=0, le=9)
    more: dict[str, Any] = Field(default_factory=dict)

    @field_validator("name")
    @classmethod
    def _check(cls, name: str) -> str:
        if name == "hidden":
            raise ValueError("this name is taken.")
        return name


class Choice(Body):
    """What need not be said."""

    dry: bool = False


def test_a_body_is_read_with_the_fields_that_were_sent() -> None:
    wish = parsed(Wish, b'{"name": "a", "more": {"x": [1]}}')
    assert (wish.name, wish.count, wish.more) == ("a", 0, {"x": [1]})
    assert wish.given() == {"name": "a", "more": {"x": [1]}}


def test_what_is_nested_deeply_is_handed_on_as_it_is() -> None:
    deep: Any = 1
    for _ in range(900):
        deep = [deep]
    body = b'{"name": "a", "more": {"x": ' + b"[" * 900 + b"1" + b"]" * 900 + b"}}"
    assert parsed(Wish, body).given()["more"] == {"x": deep}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "The body is not JSON."),
        (b"[]", "The body is not a JSON object."),
        (b"{}", "The body has no name."),
        (b'{"name": "a", "colour": 1}', "The body has a field that is not known: 'colour'."),
        (b'{"name": 5}', "name: should be a valid string."),
        (b'{"name": "a", "count": true}', "count: should be a valid integer."),
        (b'{"name": "a", "count": 1.0}', "count: should be a valid integer."),
        (b'{"name": "a", "count": "1"}', "count: should be a valid integer."),
        (b'{"name": "a", "count": 10}', "count: should be less than or equal to 9."),
        (b'{"name": "a", "count": 99999999999999999999999}', "count: should be a valid integer."),
        (b'{"name": "hidden"}', "name: this name is taken."),
        (b'{"name": "a", "x\\ny": 1}', "The body has a field that is not known: \"'x\\\\ny'\"."),
    ],
)
def test_what_is_wrong_is_said_in_a_line_without_the_value(body: bytes, said: str) -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(Wish, body)
    assert refused.value.message == said


def test_an_empty_body_is_an_empty_object_where_no_field_is_needed() -> None:
    assert parsed(Choice, b" \n").dry is False
    with pytest.raises(InvalidInput):
        parsed(Choice, b"[]")


def test_a_refusal_may_be_of_a_kind_of_its_own() -> None:
    with pytest.raises(MalformedEvent):
        parsed(Wish, b'{"name": 5}', MalformedEvent)


def test_a_value_that_was_refused_stands_in_no_trace() -> None:
    with pytest.raises(InvalidInput) as refused:
        parsed(Wish, b'{"name": "a", "count": "hunter2"}')
    assert "hunter2" not in str(refused.value) + str(refused.value.__cause__)


def test_a_file_can_give_two_things() -> None:
    both = gives_two(Wish, Choice)
    assert (of_reading(both), of_calling(both)) == (Wish, Choice)
    assert (of_reading(Wish), of_calling(Wish)) == (Wish, Wish)
    assert of_reading(None) is None
