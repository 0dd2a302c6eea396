"""One file's operations: GET, HEAD, PUT, POST and DELETE, as far as it can do them."""

from typing import Any

from fs.body import of_calling, of_reading
from fs.namespace import Access
from fs.path import MAX_NAME
from fs.session import MAX_KEY
from fs.tree import File, Folder
from node.http.openapi.outcome import Outcomes
from node.http.openapi.place import Parameter, Place
from node.http.openapi.shape import JSON, LINES, TEXT, Json, Shapes

NAME = "^[^/%\\\\\\x00-\\x20\\x7f][^/%\\\\\\x00-\\x1f\\x7f]*$"
"""What can stand for a name in a path; `.` and `..` cannot, nor what cannot be seen (`fs.path`)."""
_KEY = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "The same for each retry of a request, which then takes effect once. Without one, one is made.",
    "schema": {"type": "string", "pattern": "^[!-~]([ -~]*[!-~])?$", "minLength": 1, "maxLength": MAX_KEY},
}
_CURSOR = {"type": "integer", "minimum": 0, "maximum": (1 << 63) - 1}
_AFTER = {
    "name": "after",
    "in": "query",
    "description": "The id of the last record that is known: those after it come. 0 is from the beginning.",
    "schema": _CURSOR,
}
_LAST_EVENT_ID = {
    "name": "Last-Event-ID",
    "in": "header",
    "description": "The same as `after`, as browsers send it; this one counts.",
    "schema": _CURSOR,
}
_WATCH = {
    "name": "watch",
    "in": "query",
    "description": "1 streams server-sent events, 0 reads what is there now.",
    "schema": {"type": "string", "enum": ["0", "1"]},
}
_STAGED = {
    "description": "Staged: asked with the token of a turn, it takes effect when the turn is committed.",
    "content": {JSON: {"schema": {}}, TEXT: {"schema": {"type": "string"}}},
}
_ENTRIES = {
    "description": "Its entries.",
    "content": {
        JSON: {"schema": {"type": "array", "items": {"$ref": "#/components/schemas/Entry"}}},
        LINES: {"schema": {}},
        TEXT: {"schema": {"type": "string"}},
    },
}
_THERE = {
    "description": "It is there.",
    "headers": {
        "Allow": {"description": "what can be done with it", "schema": {"type": "string"}},
        "X-File-Type": {"schema": {"type": "string", "enum": ["directory", "file", "stream"]}},
        "X-File-Watch": {"description": "1 where `?watch=1` streams", "schema": {"type": "string"}},
    },
}
_KEPT = {"Idempotency-Key": {"$ref": "#/components/headers/Key"}}


def _answer(name: str) -> Json:
    return {"$ref": f"#/components/responses/{name}"}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


KEY, STAGED, DONE, NOTHING = _parameter("Key"), _answer("Staged"), _answer("Done"), _answer("Nothing")
PARAMETERS: Json = {"After": _AFTER, "Key": _KEY, "LastEventId": _LAST_EVENT_ID, "Watch": _WATCH}
HEADERS: Json = {"Key": {"description": "the key under which this took effect", "schema": {"type": "string"}}}
RESPONSES: Json = {
    "Done": {"description": "Done.", "headers": _KEPT},
    "Entries": _ENTRIES,
    "Nothing": {"description": "There is nothing in it."},
    "Staged": _STAGED,
    "There": _THERE,
}
"""What operations refer to beside schemas and errors."""


class Operations:
    """Makes operations. What they refer to gathers in the shapes and outcomes.

    Args:
        shapes: schemas.
        outcomes: errors.
    """

    def __init__(self, shapes: Shapes, outcomes: Outcomes) -> None:
        self._shapes, self._outcomes = shapes, outcomes

    def of(self, place: Place, scope: str) -> Json:
        """A file's path item. `scope` is `node` or `agent`."""
        node, mount = place.node, place.mount
        path = mount.path if mount is not None else ""
        found: Json = {}
        if (get := self._get(place, path)) is not None:
            found["get"] = get
        found["head"] = {
            "summary": f"What can be done with it: {node.about}",
            "responses": {"200": _answer("There"), **self._outcomes.looking(path)},
        }
        if isinstance(node, File) and (node.write is not None or node.store is not None):
            found["put"] = self._put(node, path)
        if node.call is not None:
            found["post"] = self._post(node, path)
        if node.remove is not None:
            found["delete"] = self._delete(node, path)
        for method, operation in found.items():
            words = [*_verb(method, node), scope, *place.template.split("/")[1:]]
            operation["operationId"] = "_".join(_plain(word) for word in words if word)
            operation["tags"] = [f"{scope} {path or '/'}"]
            if mount is not None and mount.public and method in ("get", "head"):
                operation["security"] = [{}, {"bearer": []}, {"nip98": []}]
            if mount is not None and mount.access is Access.ADMIN:
                operation["x-vendo-role"] = "operator"
        return found

    def listing(self, place: Place, scope: str) -> Json:
        """The path item of a directory that can be read too: with a slash at the end it is listed."""
        path = place.mount.path if place.mount is not None else ""
        words = ["list", scope, *place.template.split("/")[1:]]
        operation = {
            "summary": f"List it: {place.node.about}",
            "operationId": "_".join(_plain(word) for word in words if word),
            "tags": [f"{scope} {path or '/'}"],
            "responses": {"200": _answer("Entries"), **self._outcomes.reading(path)},
        }
        return {"get": operation}

    def _get(self, place: Place, path: str) -> Json | None:
        node = place.node
        if isinstance(node, Folder):
            if node.read is None:
                answer = _answer("Entries")
            else:
                answer = {"description": node.about, "content": self._shapes.given(of_reading(node.gives))}
            return {"summary": node.about, "responses": {"200": answer, **self._outcomes.reading(path)}}
        if node.read is None and node.pieces is None and node.watch is None:
            return None
        content: Json = {}
        if node.pieces is not None:
            content |= self._shapes.pieces(node.gives)
        elif node.read is not None:
            content |= self._lines(node) if node.stream else self._shapes.given(of_reading(node.gives))
        answers: Json = {"200": {"description": node.about, "content": content}}
        operation: Json = {"summary": node.about, "responses": answers}
        if node.watch is not None:
            content |= self._shapes.events(node.gives)
            operation["parameters"] = [_parameter("Watch"), _parameter("After"), _parameter("LastEventId")]
        if node.watch is not None and (node.stream or (node.read is None and node.pieces is None)):
            operation["x-vendo-stream"] = True
        if node.gives is None or node.stream:
            answers["204"] = NOTHING
        answers |= self._outcomes.reading(path, watchable=node.watch is not None)
        return operation

    def _lines(self, node: File) -> Json:
        """A stream as it is read: a record a line; a single one is JSON by itself."""
        record = self._shapes.of(node.gives)
        lines = {"schema": {"type": "string"}, "x-vendo-record": record}
        return {TEXT: lines, LINES: lines, JSON: {"schema": record}}

    def _put(self, node: File, path: str) -> Json:
        most = None if node.store is not None else node.max_bytes
        return {
            "summary": f"Replace it: {node.about}",
            "parameters": [KEY],
            "requestBody": self._shapes.taken(node.takes, most, always=True),
            "responses": {"202": STAGED, "204": DONE, **self._outcomes.changing(path)},
        }

    def _post(self, node: File | Folder, path: str) -> Json:
        gives = of_calling(node.gives)
        answers: Json = {"200": {"description": "done", "headers": _KEPT, "content": self._shapes.given(gives)}}
        if gives is None:
            answers["204"] = DONE
        return {
            "summary": node.about,
            "parameters": [KEY],
            "requestBody": self._shapes.taken(node.takes, node.max_bytes, always=False),
            "responses": {**answers, "202": STAGED, **self._outcomes.changing(path)},
        }

    def _delete(self, node: File | Folder, path: str) -> Json:
        return {
            "summary": f"Take it away: {node.about}",
            "parameters": [KEY],
            "responses": {"202": STAGED, "204": DONE, **self._outcomes.changing(path)},
        }


def path_parameters(parameters: tuple[Parameter, ...]) -> list[Json]:
    """The parts of a path that are not fixed."""
    schema: dict[str, Any] = {"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": NAME}
    return [
        {"name": one.name, "in": "path", "required": True, "description": one.about, "schema": schema}
        for one in parameters
    ]


def _verb(method: str, node: File | Folder) -> list[str]:
    if method == "get":
        return ["list" if isinstance(node, Folder) and node.read is None else "read"]
    return [{"head": "stat", "put": "write", "post": "call", "delete": "remove"}[method]]


def _plain(word: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in word).strip("_")
