"""An agent's state and settings between their types and their rows. Pure.

State is kept as JSON with the version of its form. What a tick leaves is read again before it is kept: so it fits its
type, what the next tick starts with is what the row says, and no object that a tick has touched is seen by another.
Types may have validators of their own: this runs an agent's code, behind the same guard as its hooks. It is on the way
of every tick, so it calls pydantic's validators and serializers without the methods around them.
"""

from typing import Any

import orjson
from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError

from node.agent.error import ConfigRefused, StateRefused, StateTooLarge, StateUnsound
from node.agent.program import AnyProgram

NONE = 0
"""The version of a state that was never written."""


def _where(error: ValidationError) -> str:
    """What is wrong, without the values: they may be secret."""
    listed = error.errors(include_url=False, include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, one['loc'])) or 'it'}: {one['msg']}" for one in listed[:5])[:500]


def loaded(program: AnyProgram, version: int, text: str) -> BaseModel:
    """The state in a row, migrated if it was written by an older program; the default where there is none.

    Raises:
        StateRefused: it is newer, there is no way from its version, or it does not fit the type.
    """
    try:
        if version == NONE:
            return _made(program)
        if version > program.version:
            raise StateRefused(f"The state has version {version}, its program {program.name!r} has {program.version}.")
        if version < program.version:
            text = orjson.dumps(program.migrate(version, orjson.loads(text))).decode()
        fresh: BaseModel = program.state_type.__pydantic_validator__.validate_json(text)
    except ValidationError as error:
        raise StateRefused(f"The state does not fit {program.name!r}: {_where(error)}.") from error
    return fresh


def _made(program: AnyProgram) -> BaseModel:
    made: BaseModel = program.state_type()
    return made


def kept(program: AnyProgram, state: BaseModel, most: int) -> tuple[str, BaseModel]:
    """A state as JSON for its row, and the same state read back from it, untouched by anybody.

    Raises:
        StateUnsound: it is no JSON, or does not fit its type.
        StateTooLarge: it has more than `most` bytes.
    """
    try:
        body = state.__pydantic_serializer__.to_json(state, by_alias=True, round_trip=True, warnings=False)
        if len(body) > most:
            raise StateTooLarge(f"The state is over {most} bytes.")
        return body.decode(), program.state_type.__pydantic_validator__.validate_json(body)
    except ValidationError as error:
        raise StateUnsound(f"The state does not fit its type: {_where(error)}.") from error
    except (PydanticSerializationError, RecursionError, AttributeError) as error:
        raise StateUnsound("The state is no JSON of its type.") from error


def configured(program: AnyProgram, text: str) -> BaseModel:
    """An agent's settings.

    Raises:
        ConfigRefused: they do not fit its program.
    """
    try:
        config: BaseModel = program.config_type.__pydantic_validator__.validate_json(text)
    except ValidationError as error:
        raise ConfigRefused(f"The config does not fit {program.name!r}: {_where(error)}.") from error
    return config


def config_text(value: dict[str, Any] | None) -> str:
    """Settings as their row has them.

    Raises:
        ConfigRefused: they are no JSON.
    """
    try:
        return orjson.dumps(value or {}, option=orjson.OPT_SORT_KEYS).decode()
    except TypeError as error:
        raise ConfigRefused("The config holds values that are no JSON (dates are written as text).") from error
