"""`vendo buy`, `jobs`: buy one job and wait for it, list jobs."""

import json
import re
import sys
import time
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import ExitCode, Output, Problem, sat, usd
from core.error import InvalidInput

_COMPUTE = "/agents/node/compute"
_DONE = "delivered"
_ENDED = frozenset({_DONE, "failed", "cancelled"})
_FIRST_POLL_S, _LAST_POLL_S = 0.05, 0.5
_GRACE_S = 30
_REFERENCE = re.compile(r"job:([0-9a-f]{32}|[0-9a-f]{64})|event:[0-9a-f]{64}")  # what another job or event says

KindOption = Annotated[int, typer.Option("--kind", min=5000, max=5999, help="The NIP-90 job kind, e.g. 5001.")]
InputOption = Annotated[
    list[str] | None,
    typer.Option("--input", help="The input; - reads standard input; job:ID is an earlier job's result."),
]
FileOption = Annotated[
    Path | None, typer.Option("--input-file", exists=True, dir_okay=False, help="A file that holds the input.")
]
MaxOption = Annotated[str | None, typer.Option("--max-usd", metavar="USD", help="The most it may cost, fees included.")]
MsatOption = Annotated[int | None, typer.Option("--max-msat", min=0, help="The same, in msat.")]
ParamOption = Annotated[list[str] | None, typer.Option("--param", metavar="K=V", help="A parameter of the job.")]
LimitOption = Annotated[int, typer.Option("--limit", min=1, max=200, help="How many to show.")]
PreferOption = Annotated[
    str | None,
    typer.Option("--prefer", help="What the offer is chosen by: cost, latency, quality, reputation, balanced."),
]
ToOption = Annotated[str | None, typer.Option("--to", metavar="NPUB", help="Ask this seller alone.")]
PrivateOption = Annotated[
    str | None,
    typer.Option("--private", metavar="SCHEME", help="Hide the job from all but --to: nip44, wrap, or nip04."),
]
RedundancyOption = Annotated[
    str | None,
    typer.Option("--redundancy", metavar="K/N", help="Buy it from N sellers; the result is what K of them agree on."),
]
TimeoutOption = Annotated[
    int | None, typer.Option("--timeout", min=1, max=3600, help="Seconds that a seller has for the work.")
]


def buy(
    kind: KindOption,
    home: HomeOption,
    text: InputOption = None,
    input_file: FileOption = None,
    max_usd: MaxOption = None,
    max_msat: MsatOption = None,
    param: ParamOption = None,
    prefer: PreferOption = None,
    to: ToOption = None,
    private: PrivateOption = None,
    redundancy: RedundancyOption = None,
    timeout: TimeoutOption = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Buy one job: ask for quotes, take the best, pay, and print the result."""
    out = Output(json_mode=json_mode)
    body: dict[str, Any] = {"kind": kind, "input": _inputs(text or [], input_file), "params": _params(param or [])}
    limits: dict[str, Any] = {"max_usd": max_usd, "max_msat": max_msat, "timeout_s": timeout, "prefer": prefer}
    limits |= {"to": to, "private": private, "redundancy": redundancy}
    body |= {name: value for name, value in limits.items() if value is not None}
    client = Client.open(home)
    used = out.key(key)
    job_id = client.call(f"{_COMPUTE}/new", body, key=used)["job_id"]
    view = _wait(out, client, job_id, timeout)
    if view is None:
        remedy = f"It goes on without you. Ask again: vendo buy with --key {used}, or: vendo jobs"
        return out.fail(Problem("cli.job_open", f"The job {job_id} has not ended yet.", "", remedy, 504))
    if view["state"] != _DONE:
        return out.fail(_failure(view, job_id))
    result = client.read(f"{_COMPUTE}/jobs/{job_id}/result").decode("utf-8", "replace")
    result = result if view.get("kept") else result.removesuffix("\n")
    out.answer(view | {"job_id": job_id, "key": used, "result": result}, result)
    if not json_mode:
        out.note(_receipt(view))
    return ExitCode.OK


def _inputs(texts: list[str], file: Path | None) -> str | list[dict[str, str]]:
    given = [sys.stdin.read() if text == "-" else text for text in texts]
    if file is not None:
        given.append(file.read_text(encoding="utf-8"))
    if not given:
        raise InvalidInput("There is no input.", remedy="Give --input TEXT, --input - or --input-file FILE.")
    if len(given) == 1 and not _REFERENCE.fullmatch(given[0]):
        return given[0]
    return [_input(one) for one in given]


def _input(text: str) -> dict[str, str]:
    kind, _, rest = text.partition(":")
    return {"data": rest, "type": kind} if _REFERENCE.fullmatch(text) else {"data": text, "type": "text"}


def _params(pairs: list[str]) -> dict[str, str]:
    found = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not sign or not name:
            raise InvalidInput(f"--param takes NAME=VALUE, not {pair!r}.")
        found[name] = value
    return found


def _wait(out: Output, client: Client, job_id: str, timeout: int | None) -> dict[str, Any] | None:
    """The job's view when it has ended, or None when it takes far longer than it may."""
    pause, end = _FIRST_POLL_S, time.monotonic() + 2 * (timeout or 300) + _GRACE_S
    said, shown = "", 0
    with out.waiting(f"Job {job_id}…"):
        while time.monotonic() < end:
            view: dict[str, Any] = client.get(f"{_COMPUTE}/jobs/{job_id}/status")
            state = str(view["state"])
            shown = _show_parts(out, view, shown)
            if state in _ENDED:
                return view
            if state != said and not out.json_mode:
                out.note(f"{state}…")
                said = state
            time.sleep(pause)
            pause = min(_LAST_POLL_S, pause * 1.5)
    return None


def _show_parts(out: Output, view: dict[str, Any], shown: int) -> int:
    """Parts of the result as they come, on stderr; how many were shown by now."""
    parts = view.get("parts", [])
    for part in parts[shown:]:
        text = str(part["content"])
        out.note(json.dumps({"part": text}, ensure_ascii=False) if out.json_mode else text)
    return len(parts)


def _failure(view: dict[str, Any], job_id: str) -> Problem:
    error = view.get("error")
    told = error if isinstance(error, dict) else {"message": error}
    cost, closed = int(view.get("cost_msat") or 0), view.get("closed", True)
    money = "Nothing was paid." if not cost else f"It cost {sat(cost)}."
    if cost and not closed:
        money = f"{sat(cost)} are locked to a seller until they are claimed or refunded."
    return Problem(
        str(told.get("code") or "dvm.job_failed"),
        str(told.get("message") or f"The job {job_id} ended as {view['state']}."),
        money,
        str(told.get("remedy") or f"See: vendo cat /compute/jobs/{job_id}/status"),
        502,
    )


def _receipt(view: dict[str, Any]) -> str:
    paid, cost, worth = int(view.get("paid_msat") or 0), int(view.get("cost_msat") or 0), view.get("cost_uusd")
    built_in = " (built in: no seller delivered it)" if view.get("provider") == "builtin" else ""
    line = f"Seller: {view.get('seller') or view.get('provider')}{built_in}. Paid: {sat(paid)}"
    if cost:
        line += f", {sat(cost)} with fees" + (f" ({usd(int(worth))})" if worth is not None else "")
    return line + "."


def reputation(
    seller: Annotated[str, typer.Argument(metavar="NPUB", help="The seller's key, as npub or in hex.")],
    home: HomeOption,
    json_mode: JsonOption = False,
) -> None:
    """What receipts of paid jobs say of a seller; each was checked at its mint."""
    answer = Client.open(home).get(f"{_COMPUTE}/sellers/{quote(seller, safe='')}")
    out = Output(json_mode=json_mode)
    if json_mode:
        out.answer(answer)
        return
    out.rows(
        answer["receipts"],
        ("verdict", "taken", "buyer", "mint"),
        ((one["verdict"], sat(one["amount_msat"]), one["buyer"], one["mint"]) for one in answer["receipts"]),
        "No receipt of this seller counts.",
    )
    for line in answer["reasons"]:
        out.note(line)


def jobs(home: HomeOption, limit: LimitOption = 20, json_mode: JsonOption = False) -> None:
    """The jobs that were bought, newest first."""
    client = Client.open(home)
    names = [row["name"] for row in client.list(f"{_COMPUTE}/jobs") if row["is_dir"]][:limit]
    views = [client.get(f"{_COMPUTE}/jobs/{name}/status") for name in names]
    Output(json_mode=json_mode).rows(
        views,
        ("job", "kind", "state", "paid", "seller"),
        (
            (row["job_id"], row["kind"], row["state"], sat(int(row.get("paid_msat") or 0)), row.get("seller"))
            for row in views
        ),
        "No job was bought yet.",
    )
