"""`/openapi.json` describes the files that there are, and is sound."""

import re
from collections.abc import Iterator
from typing import Any

import jsonschema_rs
import orjson
import pytest
from pydantic import BaseModel
from schemathesis.specs.openapi import definitions

from core.error import NotFound
from fs.body import Body, Fact
from fs.namespace import Access, Mount, Namespace
from fs.protocol import Stat
from fs.session import Session
from fs.tree import File, Folder, Tree
from node.http.guard import problem
from node.http.openapi.document import SCOPES, as_bytes, document
from node.http.openapi.place import places, root_of
from scripts import reference

METHODS = ("get", "head", "put", "post", "delete")
_NO_BODY = "head"


@pytest.fixture(scope="module")
def made() -> dict[str, Any]:
    return document(reference.namespaces(), "0.0.0")


def operations(made: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, item in made["paths"].items():
        for method in METHODS:
            if method in item:
                yield path, method, item[method]


def values(node: Any, name: str) -> Iterator[Any]:
    """Every value under a name, however deep."""
    if isinstance(node, dict):
        if name in node:
            yield node[name]
        for one in node.values():
            yield from values(one, name)
    elif isinstance(node, list):
        for one in node:
            yield from values(one, name)


def test_the_same_tables_make_the_same_bytes(made: dict[str, Any]) -> None:
    assert as_bytes(document(reference.namespaces(), "0.0.0")) == as_bytes(made)


def test_it_is_valid_by_the_schema_of_openapi_3_1_and_so_are_the_schemas_in_it(made: dict[str, Any]) -> None:
    faults = definitions.OPENAPI_31_VALIDATOR.iter_errors(orjson.loads(as_bytes(made)))
    assert [(list(fault.instance_path), fault.message[:200]) for fault in faults] == []
    for schema in values(made, "schema"):
        assert jsonschema_rs.meta.is_valid(schema), schema
    for name, schema in made["components"]["schemas"].items():
        assert jsonschema_rs.meta.is_valid(schema), name


def test_every_reference_leads_somewhere(made: dict[str, Any]) -> None:
    refs = set(values(made, "$ref"))
    assert refs
    for ref in refs:
        node: Any = made
        for part in ref.removeprefix("#/").split("/"):
            assert part in node, ref
            node = node[part]


def test_no_component_is_there_for_nothing(made: dict[str, Any]) -> None:
    refs = set(values(made, "$ref"))
    for kind in ("schemas", "responses", "parameters", "headers"):
        assert [name for name in made["components"][kind] if f"#/components/{kind}/{name}" not in refs] == []


def test_every_operation_has_an_id_of_its_own_a_known_tag_and_says_how_it_can_end(made: dict[str, Any]) -> None:
    ids, tags = set(), {tag["name"] for tag in made["tags"]}
    for path, method, operation in operations(made):
        assert operation["operationId"] not in ids, (path, method)
        assert re.fullmatch(r"[a-zA-Z][a-zA-Z0-9_]*", operation["operationId"])
        ids.add(operation["operationId"])
        assert set(operation["tags"]) <= tags
        assert any(status.startswith("2") for status in operation["responses"]), (path, method)
        assert {"400", "421"} <= set(operation["responses"]), (path, method)
        if operation.get("security") != []:
            assert {"401", "403", "404", "429", "503"} <= set(operation["responses"]), (path, method)


def test_every_part_of_a_path_that_is_not_fixed_is_described(made: dict[str, Any]) -> None:
    for path, item in made["paths"].items():
        named = [one["name"] for one in item.get("parameters", []) if one["in"] == "path"]
        assert named == re.findall(r"\{(\w+)\}", path), path


def test_what_changes_something_takes_a_key_and_head_answers_have_no_body(made: dict[str, Any]) -> None:
    for path, method, operation in operations(made):
        names = [resolved(made, one)["name"] for one in operation.get("parameters", [])]
        if method in ("put", "post", "delete") and not path.startswith("/hooks/"):
            assert "Idempotency-Key" in names, (path, method)
        if method == _NO_BODY:
            bodies = [one for one in operation["responses"].values() if "content" in resolved(made, one)]
            assert not bodies, path


def resolved(made: dict[str, Any], node: dict[str, Any]) -> dict[str, Any]:
    if "$ref" not in node:
        return node
    _, _, kind, name = node["$ref"].split("/")
    found: dict[str, Any] = made["components"][kind][name]
    return found


def test_every_stream_is_marked_and_can_be_asked_from_a_cursor(made: dict[str, Any]) -> None:
    streams = {path for path, _, operation in operations(made) if operation.get("x-vendo-stream")}
    assert {"/agents/{agent}/logs/trace", "/agents/{agent}/compute/jobs/{job_id}/stream"} <= streams
    for path, method, operation in operations(made):
        names = {resolved(made, one)["name"] for one in operation.get("parameters", [])}
        watched = "text/event-stream" in operation["responses"].get("200", {}).get("content", {})
        assert watched is ({"watch", "after", "Last-Event-ID"} <= names), (path, method)
        assert watched or method != "get" or path not in streams


def test_an_operation_is_there_for_all_that_a_file_can_do_and_for_nothing_else(made: dict[str, Any]) -> None:
    for scope, base in SCOPES.items():
        for place in places(reference.namespaces()[scope]):
            node, item = place.node, made["paths"][base + place.template]
            can = {"head"}
            if isinstance(node, Folder) or node.read or node.pieces or node.watch:
                can.add("get")
            if isinstance(node, File) and (node.write or node.store):
                can.add("put")
            can |= {"post"} if node.call else set()
            can |= {"delete"} if node.remove or base + place.template == "/agents/{agent}" else set()
            assert set(item) - {"parameters"} == can, place.template


def test_every_file_of_both_trees_is_described_and_nothing_else(made: dict[str, Any]) -> None:
    expected = {"/healthz", "/readyz", "/metrics", "/openapi.json", "/hooks/{hook}", "/agents"}
    for scope, base in SCOPES.items():
        namespace = reference.namespaces()[scope]
        expected |= {base, base + "/mounts", base + "/README"}
        for mount in namespace.mounts:
            expected |= set(below(base + mount.path, root_of(mount)))
        for alias, targets in namespace.binds.items():
            expected |= {f"{base}{alias}"} if targets else set()
    described = {path for path in made["paths"] if "/turn" not in path}
    aliased = {path for path in described if path.startswith("/agents/{agent}/deadletter/")}
    assert described - aliased == expected | {path for path in described if path.endswith("/")} - aliased
    assert aliased


def below(path: str, node: File | Folder) -> Iterator[str]:
    yield path
    if isinstance(node, File):
        return
    yield f"{path}/README"
    for name, one in node.files.items():
        yield from below(f"{path}/{name}", one)
    if node.find is not None:
        assert node.sample is not None, f"{path} has no sample of what is found by name"
        name = re.sub(r"[^a-z0-9]+", "_", node.pattern).strip("_")
        name += "_2" if f"{{{name}}}" in path else ""
        yield from below(f"{path}/{{{name}}}", node.sample())


def test_a_list_and_a_problem_look_as_they_are_described(made: dict[str, Any]) -> None:
    schemas = made["components"]["schemas"]
    assert set(schemas["Entry"]["properties"]) == set(Stat("a", False).to_dict())
    body = problem(NotFound("There is none.")).body
    assert isinstance(body, bytes)
    assert set(schemas["Problem"]["properties"]) == set(orjson.loads(body))


def test_a_status_of_500_is_described_nowhere(made: dict[str, Any]) -> None:
    assert not [path for path, _, operation in operations(made) if "500" in operation["responses"]]


class Wish(Body):
    """What is wanted."""

    name: str


class Row(Fact):
    """What there is."""

    name: str


async def _nothing(*_: object) -> bytes:
    return b""


def _with(node: File | Folder) -> dict[str, Any]:
    tree = Namespace([Mount("/odd", Tree(Folder("odd", {"file": node})), Access.WRITE)])
    return document({"node": Namespace([]), "agent": tree}, "0.0.0")


@pytest.mark.parametrize(
    ("takes", "media"),
    [
        (Wish, {"application/json"}),
        ({"type": "object"}, {"application/json"}),
        ({"type": "string", "enum": ["cancel"]}, {"text/plain"}),
        (None, {"text/plain", "application/octet-stream", "application/json"}),
    ],
)
def test_a_body_is_json_where_a_schema_says_so_and_else_text_or_bytes(takes: Any, media: set[str]) -> None:
    made = _with(File("takes", call=_nothing, takes=takes, max_bytes=7))
    body = made["paths"]["/agents/{agent}/odd/file"]["post"]["requestBody"]
    assert set(body["content"]) == media
    assert body["x-vendo-max-bytes"] == 7


def test_two_models_of_one_name_are_refused() -> None:
    class Other(BaseModel):
        name: int

    Other.__name__ = "Wish"

    async def find(name: str, session: Session) -> None:
        return None

    files = {"a": File("a", call=_nothing, takes=Wish), "b": File("b", call=_nothing, takes=Other)}
    with pytest.raises(ValueError, match="Wish"):
        _with(Folder("both", files, find=find, pattern="<x>"))


def test_definitions_inside_of_a_schema_become_components() -> None:
    rows = {"type": "array", "items": {**_Outer.model_json_schema()}}
    made = _with(File("gives", read=_nothing, gives=rows))
    assert "Row" in made["components"]["schemas"]
    assert set(values(made, "$defs")) == set()


class _Outer(Fact):
    rows: list[Row]
