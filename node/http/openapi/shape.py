"""What bodies look like, as OpenAPI has it: models become components, and each is written down once. Pure.

A body that no schema describes is text or bytes. One of the schema type `string` is text of that form. A model with
`x-vendo-text` takes the same as plain text too.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

from pydantic import BaseModel, RootModel

from fs.protocol import Stat
from fs.tree import Schema

Json: TypeAlias = dict[str, Any]

JSON, TEXT, BYTES = "application/json", "text/plain", "application/octet-stream"
LINES, EVENTS, PROBLEM = "application/x-ndjson", "text/event-stream", "application/problem+json"
AS_TEXT = "x-vendo-text"
_AT = "#/components/schemas/"


class Shapes:
    """The schemas of a document. `components` are those that others refer to."""

    def __init__(self) -> None:
        self._named: dict[str, Json] = {"Entry": _entry(), "Problem": _problem()}
        self._made: dict[type[BaseModel], Json] = {}

    @property
    def components(self) -> Json:
        """All of them, by name."""
        return {name: self._named[name] for name in sorted(self._named)}

    def of(self, schema: Schema) -> Json:
        """A schema that can stand in the document.

        Raises:
            ValueError: two models that differ have the same name.
        """
        if schema is None:
            return {}
        if isinstance(schema, Mapping):
            found = self._lifted(schema)
            assert isinstance(found, dict)
            return found
        if schema not in self._made:
            self._made[schema] = self._described(schema)
        return self._made[schema]

    def _described(self, schema: type[BaseModel]) -> Json:
        whole = schema.model_json_schema(ref_template=_AT + "{model}")
        for name, one in whole.pop("$defs", {}).items():
            self._keep(name, one)
        if _is_list(schema) or "$ref" in whole:
            whole.pop("title", None)
            return whole
        self._keep(schema.__name__, whole)
        return {"$ref": _AT + schema.__name__}

    def _keep(self, name: str, schema: Json) -> None:
        if self._named.setdefault(name, schema) != schema:
            raise ValueError(f"two models that differ are called {name}")

    def _lifted(self, value: Any) -> Any:
        """A JSON Schema whose own definitions have become components."""
        if isinstance(value, Mapping):
            for name, one in value.get("$defs", {}).items():
                self._keep(name, self._lifted(one))
            return {name: self._lifted(one) for name, one in value.items() if name != "$defs"}
        if isinstance(value, list | tuple):
            return [self._lifted(one) for one in value]
        return value.replace("#/$defs/", _AT) if isinstance(value, str) else value

    # ---- bodies

    def taken(self, schema: Schema, max_bytes: int | None, *, always: bool) -> Json:
        """A request's body. `always`: there must be one, as that of a file that is written."""
        found, most = self.of(schema), {} if max_bytes is None else {"x-vendo-max-bytes": max_bytes}
        if is_text(schema):
            return {"required": schema is not None, "content": _any_text(found), **most}
        resolved = self._named[found["$ref"].removeprefix(_AT)] if "$ref" in found else found
        content: Json = {JSON: {"schema": found}}
        if resolved.get(AS_TEXT):
            content[TEXT] = {"schema": {"type": "string", "minLength": 1}}
        return {"required": always or bool(resolved.get("required")), "content": content, **most}

    def given(self, schema: Schema) -> Json:
        """An answer's content: JSON, and the same as text for people; or text, or bytes."""
        found = self.of(schema)
        if is_text(schema):
            return _any_text(found)
        return {JSON: {"schema": found}, TEXT: {"schema": {"type": "string"}}}

    def pieces(self, schema: Schema) -> Json:
        """A long answer: a line of JSON each, or bytes."""
        lines: Json = {"schema": {"type": "string"}, "x-vendo-record": self.of(schema)}
        plain = {BYTES: {"schema": {}}, TEXT: {"schema": {"type": "string"}}}
        return {LINES: lines, **plain} if schema is not None else {**plain, JSON: {"schema": {}}}

    def events(self, schema: Schema) -> Json:
        """Server-sent events, each with a record as its data."""
        form: Json = {"schema": {"type": "string"}}
        if schema is not None:
            record = self.of(schema)
            form["x-vendo-record"] = record["items"] if record.get("type") == "array" else record
        return {EVENTS: form}


def is_text(schema: Schema) -> bool:
    """Whether a body is text or bytes."""
    return schema is None or (isinstance(schema, Mapping) and schema.get("type") == "string")


def _any_text(form: Json) -> Json:
    if form:
        return {TEXT: {"schema": form}}
    return {TEXT: {"schema": {"type": "string"}}, BYTES: {"schema": {}}, JSON: {"schema": {}}}


def _is_list(model: type[BaseModel]) -> bool:
    """`RootModel[list[Thing]]` has no name of its own."""
    return issubclass(model, RootModel) and "[" in model.__name__


def _entry() -> Json:
    words = {bool: "boolean", int: "integer", str: "string"}
    fields = {name: {"type": words[type(value)]} for name, value in Stat("", False).to_dict().items()}
    return {
        "type": "object",
        "description": "One entry of a directory: what it is, and what can be done with it.",
        "properties": fields,
        "required": list(fields),
    }


def _problem() -> Json:
    text = {"type": "string"}
    fields: Json = {
        "type": text,
        "title": text,
        "status": {"type": "integer", "minimum": 400, "maximum": 599},
        "code": {**text, "description": "stable: docs/reference/errors.md has all of them"},
        "detail": {**text, "description": "what happened"},
        "unchanged": {**text, "description": "what was not changed"},
        "remedy": {**text, "description": "what to do"},
    }
    return {
        "type": "object",
        "description": "What went wrong (RFC 9457).",
        "properties": fields,
        "required": list(fields),
    }
