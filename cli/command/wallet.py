"""`vendo wallet`: ecash in, ecash out, and whether the books agree with the mints."""

import sys
import time
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption, MintOption
from cli.output import ExitCode, Output, Problem
from cli.qr import invoice_uri, qr

app = typer.Typer(no_args_is_help=True, help="Ecash in, ecash out, and whether the books agree with the mints.")
_WALLET = "/agents/node/wallet"
_OPEN = frozenset({"waiting", "prepared", "unknown"})
_POLL_S = 0.25

SatArgument = Annotated[int, typer.Argument(min=1, metavar="SAT", help="Whole satoshi.")]
QrOption = Annotated[
    bool | None,
    typer.Option("--qr/--no-qr", help="Show the invoice as a QR code, on stderr; by default on a terminal."),
]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Wait this many seconds for the payment.")]


def _with_mint(body: dict[str, Any], mint: str | None) -> dict[str, Any]:
    return body | {"mint": mint} if mint else body


@app.command()
def balance(home: HomeOption, json_mode: JsonOption = False) -> None:
    """Free, reserved and locked money, per mint and unit."""
    answer = Client.open(home).get(f"{_WALLET}/balance")
    Output(json_mode=json_mode).rows(
        answer,
        ("free", "reserved", "locked", "unit", "mint"),
        ((row["live"], row["reserved"], row["locked"], row["unit"], row["mint"]) for row in answer["balances"]),
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
    out, client = Output(json_mode=json_mode), Client.open(home)
    out.answer(client.call(f"{_WALLET}/receive", {"token": text}, key=out.key(key)))


@app.command()
def deposit(
    amount: SatArgument,
    home: HomeOption,
    mint: MintOption = None,
    wait: WaitOption = 0.0,
    code: QrOption = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Ask a mint for a Lightning invoice; once it is paid, the node collects the coins."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    answer = client.call(f"{_WALLET}/deposit", _with_mint({"sat": amount}, mint), key=out.key(key))
    if answer.get("invoice") and (sys.stderr.isatty() and not json_mode if code is None else code):
        out.note(qr(invoice_uri(answer["invoice"])))
    if not wait:
        out.answer(answer, answer.get("invoice") or f"state: {answer['state']}")
        out.note(f"Pay this invoice; the node collects the coins. Operation {answer['op_id']}.")
        return ExitCode.OK
    out.note(f"Pay this invoice: {answer.get('invoice', '')}")
    end = time.monotonic() + wait
    with out.waiting("Waiting for the payment…"):
        while answer["state"] in _OPEN and time.monotonic() < end:
            time.sleep(_POLL_S)
            answer |= client.get(f"{_WALLET}/operations/{answer['op_id']}")
    if answer["state"] == "done":
        out.answer(answer, f"{amount} sat deposited.")
        return ExitCode.OK
    return out.fail(_open_deposit(answer, wait))


def _open_deposit(answer: dict[str, Any], wait: float) -> Problem:
    if answer["state"] == "refused":
        why = answer.get("reason") or "The mint refused."
        return Problem("wallet.deposit_refused", why, "No money was collected.", "Ask for a new invoice.", 409)
    remedy = f"It stays valid until it expires; see: vendo cat /wallet/operations/{answer['op_id']}"
    why = f"The invoice was not paid within {wait:g} s."
    return Problem("cli.deposit_open", why, "No money was collected.", remedy, 504)


@app.command()
def send(
    amount: SatArgument,
    home: HomeOption,
    mint: MintOption = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Make a token. Whoever has it has the money; the same --key shows the same token again."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    used = out.key(key)
    answer = client.call(f"{_WALLET}/send", _with_mint({"sat": amount}, mint), key=used)
    if "token" not in answer:
        why = f"The payment is {answer['state']}: the mint has not answered yet."
        return out.fail(Problem("wallet.unknown", why, "", f"Ask again with --key {used}.", 503))
    out.answer(answer | {"key": used}, answer["token"])
    return ExitCode.OK


@app.command()
def restore(home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Look for coins of these seed words at every mint, after a loss."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    used = out.key(key)
    with out.waiting("Asking the mints for every coin they ever signed for these words…"):
        answer = client.call(f"{_WALLET}/restore", {}, key=used)
    lines = [f"{one['mint']}: {one['amount']} sat in {one['coins']} coins were found." for one in answer["restored"]]
    out.answer(answer, "\n".join(lines) or "No mint is trusted, so none was asked.")


@app.command()
def audit(home: HomeOption, json_mode: JsonOption = False) -> int:
    """Ask the mints about every coin and compare with the books; 65 if anything differs."""
    out = Output(json_mode=json_mode)
    with out.waiting("Asking the mints…"):
        answer = Client.open(home).get(f"{_WALLET}/audit")
    out.answer(answer, "\n".join(answer["differences"]) or "Coins, books and mints agree.")
    return ExitCode.OK if answer["clean"] else ExitCode.DATA
