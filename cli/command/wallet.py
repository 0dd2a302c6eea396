"""`vendo wallet`: ecash in, ecash out, and whether the books agree with the mints."""

import sys
import time
from typing import Annotated, Any

import typer

from cli.client import Client, new_key
from cli.option import HomeOption, JsonOption, KeyOption, MintOption
from cli.output import ExitCode, Output, Problem, sat

app = typer.Typer(no_args_is_help=True, help="Ecash in, ecash out, and whether the books agree with the mints.")
_WALLET = "/agents/node/wallet"
_OPEN = frozenset({"prepared", "unknown", "waiting", "pending", "unpaid"})
_POLL_S = 0.25

SatArgument = Annotated[int, typer.Argument(min=1, metavar="SAT", help="Whole satoshi.")]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Wait this many seconds for the payment.")]


def _with_mint(body: dict[str, Any], mint: str | None) -> dict[str, Any]:
    return body | {"mint": mint} if mint else body


@app.command()
def balance(home: HomeOption, json_mode: JsonOption = False) -> None:
    """Free, reserved and locked money, per mint and unit."""
    answer = Client.open(home).get(f"{_WALLET}/balance")
    rows = answer.get("balances", []) if isinstance(answer, dict) else answer
    Output(json_mode=json_mode).rows(
        answer,
        ("free", "reserved", "locked", "unit", "mint"),
        ((row["live"], row["reserved"], row["locked"], row["unit"], row["mint"]) for row in rows),
        "The wallet is empty.",
    )


@app.command()
def receive(
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="A Cashu token; - reads it from standard input.")],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Take a token: its coins are swapped for our own at once."""
    text = sys.stdin.read().strip() if token == "-" else token  # noqa: S105 - not a password
    answer = Client.open(home).call(f"{_WALLET}/receive", {"token": text}, key=key)
    Output(json_mode=json_mode).answer(answer)


@app.command()
def deposit(
    amount: SatArgument,
    home: HomeOption,
    mint: MintOption = None,
    wait: WaitOption = 0.0,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Ask a mint for a Lightning invoice; once it is paid, the node collects the coins."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    answer = client.call(f"{_WALLET}/deposit", _with_mint({"sat": amount}, mint), key=key)
    if not wait:
        out.answer(answer, answer["invoice"])
        out.note(f"Pay this invoice; the node collects the coins. Operation {answer['op_id']}.")
        return ExitCode.OK
    if not json_mode:
        out.note(f"Pay this invoice: {answer['invoice']}")
    end = time.monotonic() + wait
    with out.waiting("Waiting for the payment…"):
        state = client.get(f"{_WALLET}/operations/{answer['op_id']}")
        while state["state"] in _OPEN and time.monotonic() < end:
            time.sleep(_POLL_S)
            state = client.get(f"{_WALLET}/operations/{answer['op_id']}")
    if state["state"] == "done":
        out.answer(answer | state, f"{sat(amount * 1000)} deposited.")
        return ExitCode.OK
    why = state.get("reason") or f"The invoice was not paid within {wait:g} s."
    remedy = f"It stays valid until it expires; see: vendo cat /wallet/operations/{answer['op_id']}"
    return out.fail(Problem("cli.deposit_open", why, "No money was collected.", remedy, 504))


@app.command()
def send(
    amount: SatArgument,
    home: HomeOption,
    mint: MintOption = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Make a token. Whoever has it has the money; the same --key shows the same token again."""
    out = Output(json_mode=json_mode)
    used = key or new_key()
    if key is None:
        out.note(f"Key: {used}")
    answer = Client.open(home).call(f"{_WALLET}/send", _with_mint({"sat": amount}, mint), key=used)
    out.answer(answer, answer["token"])


@app.command()
def audit(home: HomeOption, json_mode: JsonOption = False) -> int:
    """Ask the mints about every coin and compare with the books; 65 if anything differs."""
    out = Output(json_mode=json_mode)
    with out.waiting("Asking the mints…"):
        answer = Client.open(home).get(f"{_WALLET}/audit")
    differences = answer.get("differences", [])
    out.answer(answer, "\n".join(str(one) for one in differences) or "The books agree with the mints.")
    return ExitCode.DATA if differences else ExitCode.OK
