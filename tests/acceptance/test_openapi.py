"""A running node answers as `/openapi.json` says: what is there, what is sent at random, and what has no token.

`--hypothesis-profile=torture` tries each operation six times as often; `--hypothesis-seed` repeats a run.
"""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest
import pytest_asyncio
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from scripts import reference
from tests.market_part import ECHO_FREE, Market, Spec, market, until

IS_LONG = settings().max_examples > 1_000
pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(3_600 if IS_LONG else 240)]

AGENT = "agent"  # which `vendo init` writes into the configuration
UNLIMITED = {
    "public_per_second = 10 ": "public_per_second = 0 ",
    "failed_per_second = 5 ": "failed_per_second = 0 ",
}
CHECKS = [
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]

# What is not sent, and why.
LEFT_OUT = {
    "call_node_ctl_pause": "a paused node refuses most of what follows with 503; paused at the end, by hand",
    "call_agent_ctl_pause": "the same",
    "call_node_identity_lookup": "it asks a domain, and tests do not leave this machine",
    "call_node_identity_bunker": "it connects to the relay that its address names",
    "call_node_identity_rotate": "the same, for a bunker",
}
_TIMEOUT_S = 20


@dataclass
class Plane:
    """A node's control plane, its document, and what is there to be asked for."""

    url: str
    token: str
    document: dict[str, Any]
    http: requests.Session = field(default_factory=requests.Session)
    real: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.http.headers["Authorization"] = self.token
        self.schema = schemathesis.openapi.from_dict(self.document)
        self.operations = {one.definition.raw["operationId"]: one for one in self._operations()}

    def _operations(self) -> Iterator[Any]:
        for result in self.schema.get_all_operations():
            yield result.ok()

    def send(self, case: Case) -> Any:
        """Send a case and hold the answer against the document.

        Raises:
            AssertionError: it is not one that is described, or says that the node is at fault.
        """
        answer = case.call(base_url=self.url, session=self.http, timeout=_TIMEOUT_S)
        if answer.status_code >= 400 and case.method != "HEAD":
            code = orjson.loads(answer.content).get("code") if answer.content else None
            known = self.codes(case.operation.definition.raw, answer.status_code)
            assert case.operation.path == "/readyz" or code in known, f"{answer.status_code} {code} is not described"
        case.validate_response(answer, checks=[not_a_server_error, *CHECKS])
        return answer

    def codes(self, operation: Mapping[str, Any], status: int) -> list[str]:
        """The codes that are described for a status."""
        answer = operation["responses"].get(str(status), {})
        if "$ref" in answer:
            answer = self.document["components"]["responses"][answer["$ref"].rpartition("/")[2]]
        found: list[str] = answer.get("x-vendo-codes", [])
        return found

    def template(self, path: str) -> tuple[str, dict[str, str]]:
        """The template that a path is of; one with more fixed parts goes before another.

        Raises:
            AssertionError: there is none.
        """
        names, best = path.split("/"), None
        for template in self.document["paths"]:
            parts = template.split("/")
            if len(parts) != len(names):
                continue
            pairs = list(zip(parts, names, strict=True))
            if all(part == name or (part.startswith("{") and name) for part, name in pairs):
                values = {part[1:-1]: name for part, name in pairs if part.startswith("{")}
                if best is None or len(values) < len(best[1]):
                    best = (template, values)
        assert best is not None, f"{path} is not described"
        return best


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    async with market(Path(tmp_path_factory.mktemp("town")), {"node": Spec(ECHO_FREE, replace=UNLIMITED)}) as town:
        await furnish(town)
        yield town


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def plane(town: Market) -> Plane:
    url = str(town.nodes["node"].said["control"])
    async with town.http.get(f"{url}/openapi.json") as answer:
        document = orjson.loads(await answer.read())
    return Plane(url, town.headers("node")["Authorization"], document)


async def furnish(town: Market) -> None:
    """Something of everything that is found by name."""
    await town.fund("node", 100)
    for path, body in {
        "node/compute/new": {"kind": 5050, "input": "hello"},
        "node/wallet/send": {"sat": 5},
        "node/tokens/new": {"role": "agent", "agent": AGENT, "label": "one"},
        "node/agents/new": {"name": "other"},
        f"{AGENT}/alarms/new": {"id": "dawn", "cron": "30 6 * * *"},
        f"{AGENT}/interests/new": {"id": "money", "event": "payment.*"},
        f"{AGENT}/hooks/new": {"name": "push"},
        f"{AGENT}/inbox/new": {"text": "hello"},
        f"{AGENT}/compute/new": {"kind": 5050, "input": "hello"},
    }.items():
        status, answer = await town.call("node", path, body, f"furnish-{path}")
        assert status == 200, (path, answer)
    for path, text in {
        f"{AGENT}/goals/reach": '{"description": "reach it"}',
        f"{AGENT}/memory/context/note": '{"a": 1}',
        f"{AGENT}/memory/conversations/first": "a text",
        f"{AGENT}/secrets/door": "open sesame",
    }.items():
        async with town.http.put(town.url("node", path), data=text, headers=town.headers("node")) as answer:
            assert answer.status == 204, (path, await answer.text())
    await until(lambda: _bought(town), "the jobs to end")


async def _bought(town: Market) -> bool:
    jobs = await town.get("node", "node/compute/jobs")
    return len(jobs) == 2 and all(job["status"] == "complete" for job in jobs)


async def test_a_node_answers_as_its_document_says_whatever_it_is_asked(plane: Plane, town: Market) -> None:
    """One node, and one order: what is there is looked at before everything is sent to it."""
    assert plane.document == orjson.loads(reference.described())
    await everything_is_described(plane)
    await asyncio.to_thread(knock, plane)
    await no_answer_is_a_surprise(plane, town)


async def everything_is_described(plane: Plane) -> None:
    """Walks both trees as `vendo tree` does. What may be done with a file is what the document says of it."""
    seen, faults = await asyncio.to_thread(walk, plane)
    assert not faults, "\n\n".join(faults)
    fixed = {path for path in plane.document["paths"] if path.startswith("/agents/") and "/turn" not in path}
    unseen = sorted(fixed - seen)
    assert [path for path in unseen if "{" not in path.replace("{agent}", "")] == []
    assert len(seen) > 250, "what is found by name was there too"


def walk(plane: Plane) -> tuple[set[str], list[str]]:
    """Every template of which a file was found; and what was found that is not as it is described."""
    seen, faults, waiting = set(), [], ["/agents/node", f"/agents/{AGENT}"]
    while waiting:
        path = waiting.pop()
        template, values = plane.template(path)
        shown = plane.http.head(plane.url + path)
        if shown.status_code != 200:
            faults.append(f"HEAD {path} answers {shown.status_code}")
            continue
        plane.real.setdefault(template, values)
        seen.add(template)
        kind, item = shown.headers["X-File-Type"], plane.document["paths"][template]
        allowed = set(shown.headers["Allow"].split(", "))
        described = {method.upper() for method in item} - {"PARAMETERS"}
        if template == "/agents/{agent}":
            allowed.add("DELETE")  # the agent itself, which is no file
        if not allowed <= described or (set(values) <= {"agent"} and allowed != described):
            faults.append(f"{path}: {sorted(allowed)} can be done, and described are {sorted(described)}")
        if (kind == "stream") is not ("x-vendo-stream" in item.get("get", {})):
            faults.append(f"{path} is a {kind}, and not described so")
        if "GET" in allowed and kind != "stream":
            faults += read(plane, template, values)
        if kind == "directory":
            if f"{template}/" in plane.document["paths"]:
                seen.add(f"{template}/")
                faults += read(plane, f"{template}/", values)
            waiting += [f"{path}/{name}" for name in names(plane, path)]
    return seen, faults


def names(plane: Plane, path: str) -> list[str]:
    """What a directory lists; of long ones the beginning."""
    rows = plane.http.get(f"{plane.url}{path}/", headers={"Accept": "application/json"}).json()
    return [row["name"] for row in rows][:40]


def read(plane: Plane, template: str, values: dict[str, str]) -> list[str]:
    """Read or list one; what was wrong."""
    try:
        answer = plane.send(plane.schema[template]["GET"].Case(path_parameters=values))
    except (AssertionError, FailureGroup, requests.RequestException) as error:
        return [f"GET {template}: {error}"[:1_500]]
    absent = "/wallet/lightning/" in template and answer.status_code == 404  # no wallet is connected to this node
    absent |= template.endswith("/proof") and answer.status_code == 409  # these jobs' sellers deceived nobody
    fine = answer.status_code in (200, 204) or template.endswith("/restored") or absent  # of a node that was not
    return [] if fine else [f"GET {template} {values} answers {answer.status_code}"]


def knock(plane: Plane) -> None:
    """What needs a token is answered to nobody without one."""
    with requests.Session() as http:
        for number, (name, operation) in enumerate(plane.operations.items()):
            if operation.definition.raw.get("security", [{"bearer": []}])[:1] in ([], [{}]):
                continue
            path = re.sub(r"\{\w+\}", "x", operation.path.replace("{agent}", AGENT))
            headers = ({}, {"Authorization": "Bearer x"}, {"Authorization": "Nostr e30="})[number % 3]
            answer = http.request(operation.method.upper(), plane.url + path, headers=headers)
            assert answer.status_code == 401, (name, headers, answer.status_code)


async def no_answer_is_a_surprise(plane: Plane, town: Market) -> None:
    """Every operation is sent what fits it and what does not, where things are and where nothing is."""
    assert set(LEFT_OUT) <= set(plane.operations)
    faults = await asyncio.to_thread(lambda: dict(storm(plane)))
    assert not faults, "\n\n".join(f"{name}: {fault}" for name, fault in faults.items())
    for name in ("call_node_ctl_pause", "call_agent_ctl_pause"):
        values = {"agent": AGENT} if "agent" in name else {}
        answer = await asyncio.to_thread(plane.send, plane.operations[name].Case(path_parameters=values))
        assert answer.status_code == 200
    assert (await town.vendo("node", "status")).code == 0
    assert "a request failed" not in town.log("node")


def storm(plane: Plane) -> Iterator[tuple[str, str]]:
    """Sends cases; the names of operations that did not answer as described, with what was wrong first."""
    for name, operation in plane.operations.items():
        if name in LEFT_OUT or (not IS_LONG and (operation.method == "head" or operation.path.endswith("README"))):
            continue  # HEAD and READMEs were walked; they are the same code everywhere
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            fault = tried(plane, operation, mode, 12 if IS_LONG else 2)
            if fault:
                yield f"{name} ({mode.value})", fault
                break


def tried(plane: Plane, operation: Any, mode: GenerationMode, count: int) -> str:
    """Send so many cases of one operation. What was wrong, or nothing."""
    strategy = operation.as_strategy(generation_mode=mode)
    values = plane.real.get(operation.path)

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        database=None,
        deadline=None,
    )
    @given(case=strategy)
    def send(case: Case) -> None:
        if values is not None and (mode is GenerationMode.POSITIVE or "agent" in values):
            case.path_parameters = {**(case.path_parameters or {}), **values}
        if any(one.name == "watch" for one in operation.query):
            case.query = {**(case.query or {}), "watch": "0"}  # a stream does not end
        plane.send(case)

    try:
        send()
    except Unsatisfiable:
        return ""  # nothing that does not fit it can be sent: it takes nothing
    except (AssertionError, FailureGroup, requests.RequestException) as error:
        return str(error)[:1_500]
    return ""
