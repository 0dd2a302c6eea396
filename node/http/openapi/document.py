"""The document itself: every file of the two namespaces and every other route (OpenAPI 3.1).

The same tables make the same bytes, whatever else is loaded or runs.
"""

from collections.abc import Callable, Mapping
from typing import Any

import orjson

from fs.namespace import Namespace
from fs.tree import Folder
from node.http.openapi.operation import HEADERS, PARAMETERS, RESPONSES, Operations, path_parameters
from node.http.openapi.outcome import Outcomes
from node.http.openapi.place import Parameter, Place, places, root_of
from node.http.openapi.route import AGENT, Routes
from node.http.openapi.shape import Json, Shapes

VERSION = "3.1.0"
SCOPES: Mapping[str, str] = {"node": "/agents/node", "agent": "/agents/{agent}"}
_ABOUT = """\
Everything is a file. GET reads a file or lists a directory, HEAD tells what can be done with it, PUT replaces it, POST
calls it with one record, DELETE takes it away. Two more methods are WebDAV's (RFC 4918), for which OpenAPI 3.1 has no
place: MKCOL makes a directory, and MOVE with `Destination` gives a file another path; they answer 201 and 204, and fail
as PUT does.

What is marked `x-vendo-stream` is a stream: a plain GET of it answers server-sent events, which end with `event: end`
or not at all. Every file with the parameter `watch` streams with `?watch=1` (`Accept: text/event-stream` means the
same), and `after` or `Last-Event-ID` says from where. `x-vendo-record` is what one line, or one event's data, looks
like.

A directory answers a list of its entries, a readable one with a slash at the end; `Accept: text/plain` and
`application/x-ndjson` choose another form. Every directory has a `README`.

Errors are problem JSON (RFC 9457) with a stable `code`; `x-vendo-codes` names those that a status can have. A fault of
the node itself is a 500, `http.internal`, and in no list here. `x-vendo-max-bytes` is how long a body may be, and
`x-vendo-role` who may ask, if that is not everybody with a token. `202` answers requests that are made in a turn.
"""


def document(namespaces: Mapping[str, Namespace], version: str) -> Json:
    """What can be asked, and how it can be answered.

    Args:
        namespaces: `node`, the operator's, and `agent`, which stands for every agent's.
        version: of the program.

    Raises:
        ValueError: two operations would have one id, or two models one name.
    """
    shapes, outcomes = Shapes(), Outcomes()
    operator = {mount.path: root_of(mount) for mount in namespaces["node"].mounts}
    routes, operations = Routes(shapes, outcomes, operator), Operations(shapes, outcomes)
    paths: Json = routes.all()
    tags = {"plane": "what is no file", "turn": "the turn of an agent that lives outside"}
    for scope, base in SCOPES.items():
        for place in places(namespaces[scope]):
            _describe(paths, operations, place, scope, base)
            name = place.mount.path if place.mount is not None else "/"
            tags.setdefault(f"{scope} {name}", _tag(place))
    paths["/agents/{agent}"]["delete"] = routes.delete_agent()
    _check_ids(paths)
    return {
        "openapi": VERSION,
        "info": {
            "title": "vendo",
            "version": version,
            "summary": "The files of a node and its agents over HTTP.",
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"nip98": []}],
        "tags": [{"name": name, "description": about} for name, about in sorted(tags.items())],
        "paths": dict(sorted(paths.items())),
        "components": {
            "schemas": shapes.components,
            "parameters": PARAMETERS,
            "headers": HEADERS,
            "responses": RESPONSES | outcomes.components,
            "securitySchemes": _security(),
        },
    }


class Description:
    """`/openapi.json` as bytes, made when it is first asked for and then kept.

    Args:
        namespaces: as `document` takes them.
        version: of the program.
    """

    def __init__(self, namespaces: Callable[[], Mapping[str, Namespace]], version: str) -> None:
        self._namespaces, self._version = namespaces, version
        self._made: bytes | None = None

    def __call__(self) -> bytes:
        """The document."""
        if self._made is None:
            self._made = orjson.dumps(document(self._namespaces(), self._version))
        return self._made


def as_bytes(made: Mapping[str, Any]) -> bytes:
    """A document as it lies in docs/reference."""
    return orjson.dumps(made, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)


def _describe(paths: Json, operations: Operations, place: Place, scope: str, base: str) -> None:
    """Add a file's path item; one that can be read and listed has two."""
    parameters = place.parameters
    if scope == "agent":
        parameters = (Parameter("agent", "its name"), *parameters)
    fixed = path_parameters(parameters)
    for one in fixed:
        if one["name"] == "agent":
            one["schema"] = {"type": "string", "pattern": AGENT}
    shared: Json = {"parameters": fixed} if fixed else {}
    template = base + place.template
    paths.setdefault(template, {**shared, **operations.of(place, scope)})
    if isinstance(place.node, Folder) and place.node.read is not None:
        paths.setdefault(template + "/", {**shared, **operations.listing(place, scope)})


def _tag(place: Place) -> str:
    if place.mount is None:
        return "what the namespace itself has"
    return f"{place.mount.about} ({place.mount.access.value})"


def _check_ids(paths: Json) -> None:
    known: set[str] = set()
    for path, item in paths.items():
        for method, operation in item.items():
            if method == "parameters":
                continue
            if operation["operationId"] in known:
                raise ValueError(f"{method} {path} has the id of another operation: {operation['operationId']}")
            known.add(operation["operationId"])


def _security() -> Json:
    return {
        "bearer": {
            "type": "http",
            "scheme": "bearer",
            "description": "A token of the node: the operator's own, or one from /agents/node/tokens/new.",
        },
        "nip98": {
            "type": "http",
            "scheme": "nostr",
            "description": "`Authorization: Nostr <base64>`: an event of kind 27235 that names this request (NIP-98), "
            "signed with a key that [http] nostr names.",
        },
        "turn": {"type": "http", "scheme": "bearer", "description": "The token of a turn, from the trigger."},
    }
