"""Bodies as models: one class says what a file takes, checks it, and stands in /openapi.json. Pure."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from core.error import InvalidInput
from fs.tree import Schema, json_object

_MAX_WORDS = 300
_MAX_NAME = 40
_READ, _CALL = "x-vendo-read", "x-vendo-call"


class Body(BaseModel):
    """What a file takes. Unknown fields are refused, and so are values of another type, however alike."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, hide_input_in_errors=True)

    def given(self) -> dict[str, Any]:
        """The fields that were sent, as they were sent."""
        return {name: getattr(self, name) for name in type(self).model_fields if name in self.model_fields_set}


class Fact(BaseModel):
    """What a file gives, for its description alone: what is shown is not built from it, and may have more fields."""

    model_config = ConfigDict(frozen=True)


B = TypeVar("B", bound=BaseModel)


def parsed(model: type[B], body: bytes, refusal: type[InvalidInput] = InvalidInput) -> B:
    """What was sent, checked. An empty body is an empty object where no field is needed.

    Raises:
        InvalidInput: it is no JSON object, or not of this form: then it is a `refusal`, with no value of what was sent.
    """
    needed = any(field.is_required() for field in model.model_fields.values())
    value = json_object(body) if needed or body.strip() else {}
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise refusal(_words(error)) from error


def gives_two(read: Schema, call: Schema) -> Schema:
    """What a file gives that gives one thing when it is read, and answers another when it is called."""
    return {_READ: read, _CALL: call}


def of_reading(gives: Schema) -> Schema:
    """What is read of a file that gives this."""
    found: Schema = gives[_READ] if isinstance(gives, Mapping) and _READ in gives else gives
    return found


def of_calling(gives: Schema) -> Schema:
    """What a call of a file answers that gives this."""
    found: Schema = gives[_CALL] if isinstance(gives, Mapping) and _CALL in gives else gives
    return found


def _words(error: ValidationError) -> str:
    """What is wrong first, in a line."""
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(_name(part) for part in first["loc"])
    if first["type"] == "extra_forbidden":
        return f"The body has a field that is not known: {where!r}."
    if first["type"] == "missing":
        return f"The body has no {where}."
    said = first["msg"].removeprefix("Value error, ").removeprefix("Input ").rstrip(".")
    return f"{where or 'The body'}: {said}."[:_MAX_WORDS]


def _name(part: int | str) -> str:
    """A field's name as a caller may be shown it: short and in a line."""
    text = str(part)[:_MAX_NAME]
    return text if text.isprintable() else ascii(text)
