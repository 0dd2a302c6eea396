"""What the control plane has besides files: whether it works, agents, webhooks, turns.

`/` is the node's own relay where it shares the port (a WebSocket, which OpenAPI does not describe), and what members of
one node ask each other is nobody else's.
"""

from fs.service.model.agent import After, AgentState
from fs.tree import File, Folder, Node, Schema
from node.http.metric import CONTENT_TYPE
from node.http.openapi.operation import DONE, KEY, STAGED
from node.http.openapi.outcome import ASKED, EDGE, HOOK, TURN, Outcomes
from node.http.openapi.shape import BYTES, JSON, LINES, TEXT, Json, Shapes

_NOBODY: list[Json] = []  # no security: anybody may ask
_TEXT = {"schema": {"type": "string"}}
_STATUS = {"type": "object", "properties": {"status": {"type": "string"}}, "required": ["status"]}
_READY = {
    "type": "object",
    "properties": {
        "ready": {"type": "boolean"},
        "reasons": {"type": "object", "additionalProperties": {"type": "string"}},
    },
    "required": ["ready", "reasons"],
}
_ROW = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "status": {"type": "string"},
        "program": {"type": "string"},
        "pubkey": {"type": "string"},
        "ticks": {"type": "integer"},
    },
    "required": ["name", "status"],
}

# What can be asked in a turn (node/agent/outside/act.py): method, path, what it does.
_TURN = (
    ("get", "", "its trigger, the agent's state, and how long it may take"),
    ("put", "/state", "the new state, a JSON object"),
    ("post", "/log", 'a record for the trace: {"type", "data"}'),
    ("post", "/seen", 'whether this was marked: {"id"}'),
    ("post", "/mark", 'mark this: {"id"}'),
    ("get", "/memory", "keys of kept values"),
    ("get", "/memory/{key}", "a kept value"),
    ("put", "/memory/{key}", "keep a value, JSON"),
    ("post", "/forget", 'keep a value no more: {"key"}'),
    ("post", "/alarm", "set an alarm, as /alarms/new does"),
    ("post", "/silence", 'take an alarm away: {"id"}'),
    ("post", "/watch", "set an interest, as /interests/new does"),
    ("post", "/unwatch", 'take an interest away: {"id"}'),
    ("post", "/hibernate", "sleep until the next trigger"),
    ("post", "/commit", 'the turn ends well: {"state", "writes"}, both optional'),
    ("post", "/abort", 'the turn has failed: {"reason"}'),
)


class Routes:
    """Makes their path items.

    Args:
        shapes: schemas.
        outcomes: errors.
        tables: the operator's mounts, by path: what a short address means is what is said there.
    """

    def __init__(self, shapes: Shapes, outcomes: Outcomes, tables: dict[str, Node]) -> None:
        self._shapes, self._outcomes, self._tables = shapes, outcomes, tables

    def all(self) -> Json:
        """Every route that is no file, by its template."""
        return {
            "/healthz": {"get": self._plain("health", "The process answers.", _STATUS)},
            "/readyz": {"get": self._ready()},
            "/metrics": {"get": self._metrics()},
            "/openapi.json": {"get": self._plain("describe", "This document.", {"type": "object"})},
            "/hooks/{hook}": {"parameters": [_part("hook", "^[0-9a-f]{32}$")], "post": self._hook()},
            "/agents": {"get": self._agents(), "post": self._new_agent()},
            **self._turns(),
        }

    def delete_agent(self) -> Json:
        """`DELETE /agents/{agent}`."""
        return {
            "operationId": "delete_agent",
            "summary": "Delete an agent, as /agents/node/agents/{name}/delete does.",
            "tags": ["plane"],
            "x-vendo-role": "operator",
            "parameters": [KEY],
            "responses": {"200": self._answer("deleted", AgentState), **self._outcomes.changing("/agents")},
        }

    def _answer(self, description: str, schema: Schema) -> Json:
        return {"description": description, "content": self._shapes.given(schema)}

    def _plain(self, name: str, summary: str, schema: Json) -> Json:
        answer = {"description": summary, "content": {JSON: {"schema": schema}}}
        return {
            "operationId": name,
            "summary": summary,
            "tags": ["plane"],
            "security": _NOBODY,
            "responses": {"200": answer, **self._outcomes.of("edge", EDGE)},
        }

    def _ready(self) -> Json:
        found = self._plain("ready", "The node works, or why not.", _READY)
        found["responses"]["503"] = {"description": "Not ready: why.", "content": {JSON: {"schema": _READY}}}
        return found

    def _metrics(self) -> Json:
        answer = {"description": f"{CONTENT_TYPE}", "content": {TEXT: _TEXT}}
        return {
            "operationId": "metrics",
            "summary": "Numbers for Prometheus.",
            "tags": ["plane"],
            "x-vendo-role": "operator",
            "responses": {"200": answer, **self._outcomes.of("asked", ASKED)},
        }

    def _agents(self) -> Json:
        rows = {"schema": {"type": "array", "items": _ROW}}
        answer = {"description": "by name", "content": {JSON: rows, LINES: {"schema": {}}, TEXT: _TEXT}}
        return {
            "operationId": "list_agents",
            "summary": "The agents that the caller may see.",
            "tags": ["plane"],
            "responses": {"200": answer, **self._outcomes.of("asked", ASKED)},
        }

    def _new_agent(self) -> Json:
        new = self._tables.get("/agents")
        file = new.files.get("new") if isinstance(new, Folder) else None
        takes, gives = (file.takes, file.gives) if isinstance(file, File) else (After, None)
        return {
            "operationId": "new_agent",
            "summary": "Make an agent, as /agents/node/agents/new does.",
            "tags": ["plane"],
            "x-vendo-role": "operator",
            "parameters": [KEY],
            "requestBody": self._shapes.taken(takes, None, always=True),
            "responses": {"200": self._answer("made", gives), **self._outcomes.changing("/agents")},
        }

    def _hook(self) -> Json:
        answer = {"description": "it was taken, or came before", "content": {JSON: {"schema": _STATUS}}}
        kinds = (JSON, "application/x-www-form-urlencoded", TEXT)
        return {
            "operationId": "call_hook",
            "summary": "A webhook of an agent, signed or with the hook's own secret.",
            "tags": ["plane"],
            "security": _NOBODY,
            "requestBody": {"required": False, "content": {kind: {"schema": {}} for kind in kinds}},
            "responses": {"200": answer, "202": answer, **self._outcomes.of("hook", HOOK)},
        }

    def _turns(self) -> Json:
        found: Json = {}
        for method, path, about in _TURN:
            template = "/agents/{agent}/turn" + path
            item = found.setdefault(template, {"parameters": [_part("agent", AGENT)]})
            if "{key}" in path and len(item["parameters"]) == 1:
                item["parameters"].append(_part("key", ""))
            item[method] = self._turn(method, path, about)
        return found

    def _turn(self, method: str, path: str, about: str) -> Json:
        content = {JSON: {"schema": {}}, TEXT: _TEXT, BYTES: {"schema": {}}}
        name = path.replace("/", "_").replace("{", "").replace("}", "")
        operation: Json = {
            "operationId": f"turn_{method}{name}",
            "summary": f"In a turn: {about}.",
            "tags": ["turn"],
            "security": [{"turn": []}],
            "responses": {
                "200": {"description": "done, or what is there", "content": content},
                "202": STAGED,
                "204": DONE,
                **self._outcomes.of("turn", TURN),
            },
        }
        if method != "get":
            operation["parameters"] = [KEY]
            operation["requestBody"] = {"required": False, "content": {JSON: {"schema": {}}}}
        return operation


AGENT = "^[a-z][a-z0-9-]{0,30}$"


def _part(name: str, pattern: str) -> Json:
    schema: Json = {"type": "string", "minLength": 1}
    if pattern:
        schema["pattern"] = pattern
    return {"name": name, "in": "path", "required": True, "schema": schema}
