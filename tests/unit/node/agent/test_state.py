import datetime
import math
from typing import Any

import orjson
import pytest
from pydantic import BaseModel, Field, field_validator

from node.agent.error import ConfigRefused, StateRefused, StateTooLarge, StateUnsound
from node.agent.program import Context, Nothing, Program, Trigger
from node.agent.state import config_text, configured, kept, loaded


class Book(BaseModel):
    title: str = ""
    pages: int = Field(0, ge=0)
    seen: set[str] = set()
    since: datetime.datetime | None = None
    share: float = 0.0
    raw: bytes = b""


class Settings(BaseModel):
    model_config = {"extra": "forbid"}
    word: str = "please"
    times: int = Field(1, ge=1, le=9)


class Reader(Program[Book, Settings]):
    name = "reader"
    version = 3
    state_type, config_type = Book, Settings

    def migrate(self, version: int, state: dict[str, Any]) -> dict[str, Any]:
        if version == 1:
            state, version = {"name": state["n"]}, 2
        if version == 2:
            state = {"title": state["name"]}
        return state

    async def on_trigger(self, ctx: Context[Book, Settings], trigger: Trigger) -> None:
        raise AssertionError("nobody calls it here")


READER = Reader()


def test_a_state_that_was_never_written_is_the_default() -> None:
    assert loaded(READER, 0, "{}") == Book()


def test_a_state_comes_back_as_it_was_left() -> None:
    left = Book(title="ü", pages=3, seen={"a"}, since=datetime.datetime.now(datetime.UTC), share=0.1, raw=b"x")
    text, fresh = kept(READER, left, 10_000)
    assert fresh == left
    assert fresh is not left
    assert loaded(READER, 3, text) == left


def test_what_the_next_tick_sees_shares_nothing_with_what_this_one_had() -> None:
    left = Book(seen={"a"})
    _, fresh = kept(READER, left, 10_000)
    left.seen.add("b")
    assert isinstance(fresh, Book)
    assert fresh.seen == {"a"}


@pytest.mark.parametrize(("version", "old"), [(1, {"n": "x"}), (2, {"name": "x"}), (3, {"title": "x"})])
def test_older_states_go_step_by_step(version: int, old: dict[str, str]) -> None:
    assert loaded(READER, version, orjson.dumps(old).decode()) == Book(title="x")


def test_a_newer_state_and_one_without_a_way_are_refused() -> None:
    with pytest.raises(StateRefused, match="has version 4, its program 'reader' has 3"):
        loaded(READER, 4, "{}")

    class Stubborn(Reader):
        def migrate(self, version: int, state: dict[str, Any]) -> dict[str, Any]:
            return Program.migrate(self, version, state)

    with pytest.raises(StateRefused, match="no way from version 2"):
        loaded(Stubborn(), 2, "{}")


def test_a_state_that_does_not_fit_says_where_and_never_what() -> None:
    with pytest.raises(StateRefused) as raised:
        loaded(READER, 3, '{"pages": "nsec1secret", "title": 7}')
    assert "pages" in raised.value.message
    assert "title" in raised.value.message
    assert "secret" not in raised.value.message


def _broken() -> list[Any]:
    loop: dict[str, Any] = {}
    loop["loop"] = loop

    def left(**changed: Any) -> Book:
        book = Book()
        for name, value in changed.items():
            setattr(book, name, value)
        return book

    return [
        left(title=7), left(pages=-1), left(pages="many"), left(seen=object()), left(since=loop), left(share=math.nan),
        left(title="\ud800"), left(raw=object()), None, {}, "a state",
    ]  # fmt: skip


@pytest.mark.parametrize("left", _broken())
def test_what_cannot_be_kept_is_refused_and_not_bent(left: Any) -> None:
    with pytest.raises(StateUnsound):
        kept(READER, left, 10_000)


def test_a_state_is_bounded_in_bytes_not_in_characters() -> None:
    size = len(kept(READER, Book(), 10_000)[0])
    kept(READER, Book(title="a" * 100), size + 100)
    with pytest.raises(StateTooLarge):
        kept(READER, Book(title="a" * 101), size + 100)
    with pytest.raises(StateTooLarge):
        kept(READER, Book(title="ü" * 51), size + 100)


def test_a_validator_that_changes_its_mind_makes_no_poisoned_state() -> None:
    class Fickle(BaseModel):
        count: int = 0

        @field_validator("count")
        @classmethod
        def _small(cls, value: int) -> int:
            if value > 3:
                raise ValueError("too much")
            return value

    class Counter(Program[Fickle, Nothing]):
        name = "counter"
        state_type, config_type = Fickle, Nothing

        async def on_trigger(self, ctx: Context[Fickle, Nothing], trigger: Trigger) -> None:
            raise AssertionError("nobody calls it here")

    state = Fickle()
    state.count = 4
    with pytest.raises(StateUnsound, match="too much"):
        kept(Counter(), state, 1_000)


def test_settings_are_checked_and_say_where_and_never_what() -> None:
    assert configured(READER, '{"word": "x"}') == Settings(word="x")
    for text in ('{"times": 10}', '{"other": "hidden"}', '{"word": 7}', "[]", "hidden"):
        with pytest.raises(ConfigRefused) as raised:
            configured(READER, text)
        assert "hidden" not in raised.value.message
    with pytest.raises(ConfigRefused):
        config_text({"when": object()})
    assert config_text(None) == "{}"
    assert config_text({"b": 1, "a": 2}) == '{"a":2,"b":1}'
