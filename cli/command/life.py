"""`vendo agent status`, `tick`, `hibernate`, `wake`, `stop`, `start`, `release`: how one agent is, and is to be."""

import json
import time
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.command.trace import line
from cli.option import HomeOption, JsonOption, KeyOption, NameArgument
from cli.output import ExitCode, NodeRefusal, Output, Problem

_FIRST_POLL_S, _LAST_POLL_S = 0.05, 0.5
_NOT_FOUND = 404

ReasonOption = Annotated[str, typer.Option("--reason", metavar="TEXT", help="Why; the agent is told.")]
NoWaitOption = Annotated[bool, typer.Option("--no-wait", help="Only queue it.")]
TimeoutOption = Annotated[
    float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=86_400, help="So long is its end waited for.")
]


def status(name: NameArgument, home: HomeOption, json_mode: JsonOption = False) -> None:
    """How an agent is doing: its status and why, what waits for it, what it has used of its limits."""
    Output(json_mode=json_mode).answer(Client.open(home).get(f"/agents/{name}/status"))


def tick(
    name: NameArgument,
    home: HomeOption,
    reason: ReasonOption = "",
    no_wait: NoWaitOption = False,
    timeout: TimeoutOption = 60.0,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Give an agent a trigger by hand, wait for its tick, and show what it did; 65 if it failed at it for good."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    used = out.key(key)
    queued = client.call(f"/agents/{name}/tick", reason.encode(), key=used)
    if no_wait:
        out.answer(queued | {"key": used})
        return ExitCode.OK
    envelope = str(queued["envelope_id"])
    if not _ended(out, client, name, envelope, timeout):
        return out.fail(_open(client, name, used, timeout))
    row = next((row for row in client.get(f"/agents/{name}/logs/ticks") if row["envelope_id"] == envelope), None)
    if row is None:
        why = f"{name} has had no tick for it: it was taken away, or has no room."
        return out.fail(Problem("cli.tick_none", why, "", f"See: vendo inbox dead {name}", 404))
    if row["error"]:
        code, _, message = row["error"].partition(": ")
        remedy = f"See: vendo agent logs {name}, vendo inbox dead {name}"
        return out.fail(Problem(code, message or "The tick failed.", "Nothing of it was kept.", remedy, 422))
    records = _records(client.get(f"/agents/{name}/logs/recent"), str(row["id"]), int(row["at_ms"]))
    value = queued | {"status": "done", "key": used, "tick": _opened(row), "records": records}
    out.answer(value, "\n".join(map(line, records)) or f"Tick {row['n']} is done.")
    return ExitCode.OK


def _ended(out: Output, client: Client, name: str, envelope: str, timeout: float) -> bool:
    """Whether its trigger waits no more, within so many seconds."""
    pause, end, tries = _FIRST_POLL_S, time.monotonic() + timeout, 0
    with out.waiting(f"Waiting for {name}'s tick…"):
        while True:
            waiting = _waiting(client, name, envelope)
            if waiting is None:
                return True
            if int(waiting.get("tries") or 0) > tries and not out.json_mode:
                tries = int(waiting["tries"])
                out.note(f"try {tries}: {waiting.get('error')}")
            if time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause = min(_LAST_POLL_S, pause * 1.5)


def _waiting(client: Client, name: str, envelope: str) -> dict[str, Any] | None:
    try:
        found = client.get(f"/agents/{name}/inbox/{envelope}")
    except NodeRefusal as error:
        if error.problem.status != _NOT_FOUND:
            raise
        return None
    return found if isinstance(found, dict) else {}


def _open(client: Client, name: str, key: str, timeout: float) -> Problem:
    about = client.get(f"/agents/{name}/status")
    state = f"{about.get('status')} ({about['reason']})" if about.get("reason") else str(about.get("status"))
    return Problem(
        "cli.tick_open",
        f"The tick has not ended within {timeout:g} s; {name} is {state}.",
        "Its trigger waits in the inbox.",
        f"Ask again with --key {key}.",
        504,
    )


def _records(recent: list[dict[str, Any]], tick_id: str, began_ms: int) -> list[dict[str, Any]]:
    """What a tick said in the trace: the records before its own `tick`, written with it."""
    ends = [
        at for at, one in enumerate(recent) if isinstance(one["data"], dict) and one["data"].get("tick_id") == tick_id
    ]
    if not ends:
        return []
    first = last = ends[-1]
    while first and recent[first - 1]["type"] not in ("tick", "error") and recent[first - 1]["at_ms"] >= began_ms:
        first -= 1
    return recent[first : last + 1]


def _opened(row: dict[str, Any]) -> dict[str, Any]:
    """The row of a tick; what it used is kept as text."""
    try:
        return row | {"usage": json.loads(row["usage"])}
    except (KeyError, TypeError, ValueError):
        return row


def _changed(name: str, act: str, key: str | None, out: Output, client: Client) -> None:
    answer = client.call(f"/agents/{name}/ctl/{act}", key=out.key(key))
    out.answer(answer, f"{name}: {answer['status']}")


def hibernate(name: NameArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Let an agent sleep until its next trigger; it is kept as a row alone."""
    _changed(name, "hibernate", key, Output(json_mode=json_mode), Client.open(home))


def wake(name: NameArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """End an agent's sleep without a trigger."""
    _changed(name, "wake", key, Output(json_mode=json_mode), Client.open(home))


def stop(name: NameArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """No more ticks of an agent: what comes for it waits."""
    _changed(name, "stop", key, Output(json_mode=json_mode), Client.open(home))


def start(name: NameArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Ticks again after a stop."""
    _changed(name, "start", key, Output(json_mode=json_mode), Client.open(home))


def release(name: NameArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Let an agent out of quarantine."""
    _changed(name, "release", key, Output(json_mode=json_mode), Client.open(home))
