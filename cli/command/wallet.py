"""`vendo wallet`: ecash and Lightning in and out, and whether the books agree with mints and wallet."""

import sys
import time
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption, MintOption
from cli.output import ExitCode, NodeRefusal, Output, Problem
from cli.qr import invoice_uri, qr
from core.money import Msat
from wallet.amount import SAT, UNITS, Amount

app = typer.Typer(
    no_args_is_help=True, help="Ecash and Lightning in and out, and whether the books agree with the mints."
)
_WALLET = "/agents/node/wallet"
_OPEN = frozenset({"waiting", "prepared", "unknown"})
_POLL_S = 0.25
_RESTORE_S = 900.0  # every keyset of every mint is searched

SatArgument = Annotated[int, typer.Argument(min=1, metavar="SAT", help="Whole satoshi.")]
SumArgument = Annotated[
    int,
    typer.Argument(
        min=1, metavar="AMOUNT", help="Whole satoshi; with --unit the smallest part of that unit, as cents of usd."
    ),
]
UnitOption = Annotated[
    str, typer.Option("--unit", metavar="UNIT", help="Coins of this unit instead: msat, usd or eur, if a mint has it.")
]
QrOption = Annotated[
    bool | None,
    typer.Option("--qr/--no-qr", help="Show the invoice as a QR code, on stderr; by default on a terminal."),
]
MaxFeeOption = Annotated[
    int | None,
    typer.Option("--max-fee", min=0, metavar="SAT", help="All fees together; by default what is usual."),
]
WaitOption = Annotated[float, typer.Option("--wait", min=0, help="Wait this many seconds for the payment.")]


def _with_mint(body: dict[str, Any], mint: str | None) -> dict[str, Any]:
    return body | {"mint": mint} if mint else body


def _sum(amount: int, unit: str) -> dict[str, Any]:
    return {"sat": amount} if unit == SAT else {"amount": amount, "unit": unit}


def _said(amount: int, unit: str) -> str:
    """For people: `5.00 usd`."""
    return str(Amount(amount, unit)) if unit in UNITS else f"{amount} {unit}"


@app.command()
def mints(home: HomeOption, json_mode: JsonOption = False) -> None:
    """The trusted mints: the units of their coins, and whether results are paid for there by their key."""
    answer = Client.open(home).get(f"{_WALLET}/mints")
    rows = (
        (
            one["mint"],
            " ".join(unit["unit"] for unit in one["units"] if unit["active"]) or "it did not say",
            "yes" if one["proven"] else f"no: {one['reason']}",
        )
        for one in answer
    )
    Output(json_mode=json_mode).rows(answer, ("mint", "units", "by key"), rows, "No mint is on your list.")


@app.command()
def balance(home: HomeOption, json_mode: JsonOption = False) -> None:
    """Free, reserved and locked money, per mint and unit; and what the Lightning wallet says it has."""
    answer = Client.open(home).get(f"{_WALLET}/balance")
    rows = [(row["live"], row["reserved"], row["locked"], row["unit"], row["mint"]) for row in answer["balances"]]
    if lightning := answer.get("lightning"):
        free = lightning["problem"] if lightning["balance_msat"] is None else lightning["balance_msat"]
        rows.append((free, "", "", "msat", lightning["wallet"]))
    names = ("free", "reserved", "locked", "unit", "mint")
    Output(json_mode=json_mode).rows(answer, names, rows, "The wallet is empty.")


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
    amount: SumArgument,
    home: HomeOption,
    mint: MintOption = None,
    unit: UnitOption = SAT,
    wait: WaitOption = 0.0,
    code: QrOption = None,
    key: KeyOption = None,
    from_lightning: Annotated[
        bool, typer.Option("--from-lightning", help="Pay the invoice from the node's own Lightning wallet.")
    ] = False,
    json_mode: JsonOption = False,
) -> int:
    """Ask a mint for a Lightning invoice; once it is paid, the node collects the coins."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    body = _with_mint(_sum(amount, unit), mint) | ({"from_lightning": True} if from_lightning else {})
    answer = client.call(f"{_WALLET}/deposit", body, key=out.key(key))
    if answer.get("price_msat"):
        price = Msat(answer["price_msat"]).sat_up()
        out.note(f"The mint asks {price} sat for {_said(amount, unit)}; pay only if that is what you want to give.")
    # What is paid, may have been, or will be when the wallet is back, must not be paid by hand too.
    by_hand = not from_lightning or answer.get("payment_state") == "lightning.failed"
    if from_lightning and answer.get("payment_state") not in (None, "done"):
        also = "The invoice can still be paid by hand." if by_hand else "Pay its invoice in no other way."
        out.note(f"The payment over Lightning: {answer['payment_state']}. {also}")
    if by_hand and answer.get("invoice") and (sys.stderr.isatty() and not json_mode if code is None else code):
        out.note(qr(invoice_uri(answer["invoice"])))
    if not wait:
        out.answer(answer, (answer.get("invoice") if by_hand else "") or f"state: {answer['state']}")
        then = "Pay this invoice; the node" if by_hand else "The node"
        out.note(f"{then} collects the coins. Operation {answer['op_id']}.")
        return ExitCode.OK
    if by_hand:
        out.note(f"Pay this invoice: {answer.get('invoice', '')}")
    end = time.monotonic() + wait
    with out.waiting("Waiting for the payment…"):
        while answer["state"] in _OPEN and time.monotonic() < end:
            time.sleep(_POLL_S)
            answer |= client.get(f"{_WALLET}/operations/{answer['op_id']}")
    if answer["state"] == "done":
        out.answer(answer, f"{_said(amount, unit)} deposited.")
        return ExitCode.OK
    return out.fail(_open_deposit(answer, wait))


@app.command()
def pay(
    invoice: Annotated[
        str, typer.Argument(metavar="INVOICE", help="A Lightning invoice; - reads it from standard input.")
    ],
    home: HomeOption,
    wait: Annotated[float, typer.Option("--wait", min=0, help="Wait this many seconds for a final answer.")] = 60.0,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Pay an invoice from the Lightning wallet, once; the same --key goes on with it."""
    text = sys.stdin.read().strip() if invoice == "-" else invoice
    out, client = Output(json_mode=json_mode), Client.open(home)
    used = out.key(key)
    answer = client.call(f"{_WALLET}/lightning/pay", {"invoice": text}, key=used)
    end = time.monotonic() + wait
    with out.waiting("Waiting until it is known what became of it…"):
        while answer["state"] in _OPEN and time.monotonic() < end:
            time.sleep(_POLL_S)
            answer |= client.get(f"{_WALLET}/operations/{answer['op_id']}")
    if answer["state"] == "done":
        out.answer(answer | {"key": used}, f"{answer['amount']} msat paid, and {answer['fee']} msat as a fee.")
        return ExitCode.OK
    if answer["state"] == "refused":
        why = f"The payment failed: {answer['reason'] or 'the wallet did not say why'}."
        return out.fail(
            Problem("lightning.failed", why, "No money has moved.", "Ask for a new invoice to try again.", 409)
        )
    why = f"The payment is {answer['state']}: the wallet has not said what became of it."
    return out.fail(Problem("wallet.unknown", why, "", f"Ask again with --key {used}; never pay another invoice.", 503))


@app.command()
def invoice(
    amount: SatArgument,
    home: HomeOption,
    note: Annotated[str, typer.Option("--note", metavar="TEXT", help="What it is for; the payer sees it.")] = "",
    wait: WaitOption = 0.0,
    code: QrOption = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Make an invoice of the Lightning wallet."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    answer = client.call(f"{_WALLET}/lightning/invoice", {"sat": amount, "note": note}, key=out.key(key))
    if sys.stderr.isatty() and not json_mode if code is None else code:
        out.note(qr(invoice_uri(answer["invoice"])))
    if not wait:
        out.answer(answer, answer["invoice"])
        out.note(f"Whether it was paid: vendo cat /wallet/operations/{answer['op_id']}")
        return ExitCode.OK
    out.note(f"Waiting for: {answer['invoice']}")
    end = time.monotonic() + wait
    with out.waiting("Waiting for the payment…"):
        while answer["state"] in _OPEN and time.monotonic() < end:
            time.sleep(_POLL_S)
            answer |= client.get(f"{_WALLET}/operations/{answer['op_id']}")
    if answer["state"] == "done":
        out.answer(answer, f"{amount} sat received.")
        return ExitCode.OK
    why, remedy = f"The invoice was not paid within {wait:g} s.", "It stays valid until it expires."
    return out.fail(Problem("cli.invoice_open", why, "No money has moved.", remedy, 504))


@app.command()
def lightning(
    home: HomeOption,
    limit: Annotated[int, typer.Option("--limit", min=1, max=100, help="Show so many payments and invoices.")] = 20,
    json_mode: JsonOption = False,
) -> None:
    """The Lightning wallet: what it has, what may be paid today, the latest payments and invoices."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    status = client.get(f"{_WALLET}/lightning/status")
    rows = [*client.get(f"{_WALLET}/lightning/payments"), *client.get(f"{_WALLET}/lightning/invoices")]
    rows = sorted(rows, key=lambda row: row["created_at"], reverse=True)[:limit]
    held = status["problem"] if status["balance_msat"] is None else f"{status['balance_msat']} msat"
    left = max(0, status["day_msat"] - status["used_msat"])
    out.note(f"{status['wallet']}: {held}; {left} msat may still be paid today, {status['open']} are open.")
    out.rows(
        {"status": status, "operations": rows},
        ("kind", "state", "msat", "fee", "reason", "operation"),
        ((row["kind"], row["stage"], row["amount"], row["fee"], row["reason"], row["op_id"]) for row in rows),
        "Nothing was paid or asked for yet.",
    )


@app.command("give-up")
def give_up(
    operation: Annotated[
        str, typer.Argument(metavar="ID", help="The operation, as `vendo wallet lightning` shows it.")
    ],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Close a payment over Lightning of which its wallet will never speak again: it counts as paid.

    The payment may have been made, and nobody will ever know. So its amount and the most that its fee may be stay
    counted in every budget, and nothing comes back. It is refused while the wallet can still answer about it, and
    until 14 days after its invoice has expired. A wallet that is connected and cannot be asked must have been silent to
    three tries, with eight hours between them.
    """
    out, client = Output(json_mode=json_mode), Client.open(home)
    answer = client.call(f"{_WALLET}/lightning/give-up", {"op_id": operation}, key=out.key(key))
    if answer.get("stage") != "paid":
        why = f"{operation} was not given up: it is {answer.get('stage') or answer['state']}."
        remedy = "Ask again, with a new key: vendo wallet give-up."
        return out.fail(Problem("lightning.open", why, "Nothing was given up.", remedy, 409))
    spent = answer["amount"] + answer["fee"]
    if answer.get("reason") == "given_up":
        out.answer(answer, f"{operation} counts as paid ({spent} msat), though nobody knows whether it was.")
    else:
        out.answer(answer, f"{operation} is paid ({spent} msat): its wallet has said so meanwhile.")
    return ExitCode.OK


def _open_deposit(answer: dict[str, Any], wait: float) -> Problem:
    if answer["state"] == "refused":
        why = answer.get("reason") or "The mint refused."
        return Problem("wallet.deposit_refused", why, "No money was collected.", "Ask for a new invoice.", 409)
    remedy = f"It stays valid until it expires; see: vendo cat /wallet/operations/{answer['op_id']}"
    why = f"The invoice was not paid within {wait:g} s."
    return Problem("cli.deposit_open", why, "No money was collected.", remedy, 504)


@app.command()
def send(
    amount: SumArgument,
    home: HomeOption,
    mint: MintOption = None,
    unit: UnitOption = SAT,
    lock: Annotated[
        str | None, typer.Option("--lock", metavar="PUBKEY", help="Only the holder of this key can take it, for good.")
    ] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Make a token. Whoever has it has the money, unless it is locked; the same --key shows the same token again."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    used = out.key(key)
    body = _with_mint(_sum(amount, unit), mint) | ({"lock": lock} if lock else {})
    answer = client.call(f"{_WALLET}/send", body, key=used)
    if "token" not in answer:
        why = f"The payment is {answer['state']}: the mint has not answered yet."
        return out.fail(Problem("wallet.unknown", why, "", f"Ask again with --key {used}.", 503))
    out.answer(answer | {"key": used}, answer["token"])
    return ExitCode.OK


@app.command()
def move(
    amount: SatArgument,
    home: HomeOption,
    to: Annotated[str | None, typer.Option("--to", metavar="URL", help="The mint where it arrives.")] = None,
    source: Annotated[str | None, typer.Option("--from", metavar="URL", help="The mint that pays.")] = None,
    max_fee: Annotated[int | None, typer.Option("--max-fee", min=0, metavar="SAT", help="It may cost so much.")] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Move money from one mint to another, over Lightning; without --to, to the mint that holds the least."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    body = {"sat": amount, "target": to, "source": source, "max_fee_sat": max_fee}
    wish = {name: value for name, value in body.items() if value is not None}
    with out.waiting("Moving…"):
        answer = client.call(f"{_WALLET}/move", wish, key=out.key(key))
    out.answer(answer, f"{amount} sat went from {answer['source']} to {answer['target']}: {answer['state']}.")


@app.command()
def withdraw(
    invoice: Annotated[str, typer.Argument(metavar="INVOICE", help="A Lightning invoice; - reads it from stdin.")],
    home: HomeOption,
    mint: MintOption = None,
    max_fee: MaxFeeOption = None,
    unit: UnitOption = SAT,
    most: Annotated[
        int | None,
        typer.Option(
            "--most", min=1, metavar="AMOUNT", help="With --unit: all that may be spent, in its smallest part."
        ),
    ] = None,
    wait: WaitOption = 0.0,
    yes: Annotated[bool, typer.Option("--yes", help="Ask nothing.")] = False,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Pay a Lightning invoice from the wallet. It cannot be taken back; the same --key never pays twice."""
    text = sys.stdin.read().strip() if invoice == "-" else invoice
    out, client = Output(json_mode=json_mode), Client.open(home)
    given = {"max_fee_sat": max_fee, "most": most, "unit": None if unit == SAT else unit}
    body = _with_mint({"invoice": text} | {name: one for name, one in given.items() if one is not None}, mint)
    if not (yes or json_mode):
        body |= _confirm(client, body, again=key is not None)
    used = out.key(key)
    answer = _paid(client, body, used)
    end = time.monotonic() + wait
    with out.waiting("The payment is under way…") if answer["state"] in _OPEN and wait else nullcontext():
        while answer["state"] in _OPEN and time.monotonic() < end:
            time.sleep(_POLL_S)
            answer = _paid(client, body, used)
    if answer["state"] in _OPEN:
        why = "The payment may have happened, or may still happen until the invoice expires; it is not known yet."
        remedy = f"Pay it in no other way until this is known. Ask again with --key {used}; see: vendo wallet audit"
        return out.fail(Problem("wallet.unknown", why, "Its coins stay reserved.", remedy, 503))
    receipt = f" Receipt: {answer['preimage']}" if answer.get("preimage") else ""
    if unit == SAT:
        paid = f"{answer['amount_sat']} sat paid, {answer['fee_sat']} sat of fees."
    else:
        paid = f"{_said(answer['amount'], unit)} paid, {_said(answer['fee'], unit)} of fees."
    out.answer(answer | {"key": used}, f"{paid}{receipt}")
    return ExitCode.OK


def _confirm(client: Client, body: dict[str, Any], *, again: bool) -> dict[str, Any]:
    """Show what it may cost, and ask; what is added to the request, so that it is held to what was shown.

    What was asked for before with this key may have expired since: then go on.
    """
    try:
        plan = client.call(f"{_WALLET}/prepare", body)
    except NodeRefusal:
        if not again:
            raise
        return {}
    if (unit := body.get("unit", SAT)) != SAT:
        whole = f"Pay {plan['amount_sat']} sat for {_said(plan['total'], unit)} at most, from {plan['mint']}?"
        typer.confirm(whole, abort=True, err=True)
        return {"agreed": {"mint": plan["mint"], "total": plan["total"]}}
    fees = f"{plan['max_fee_sat']} sat of fees at most"
    typer.confirm(f"Pay {plan['amount_sat']} sat and {fees}, from {plan['mint']}?", abort=True, err=True)
    return {}


def _paid(client: Client, body: dict[str, Any], key: str) -> dict[str, Any]:
    """What the node says of the payment; one that is not known yet is `unknown`."""
    try:
        answer: dict[str, Any] = client.call(f"{_WALLET}/withdraw", body, key=key)
    except NodeRefusal as error:
        if error.problem.code != "wallet.unknown":
            raise
        return {"state": "unknown"}
    return answer


@app.command()
def restore(
    home: HomeOption,
    relay: Annotated[
        list[str] | None, typer.Option("--relay", metavar="URL", help="Look for the wallet's memo there as well.")
    ] = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> int:
    """Find all money of these seed words again, after a loss, also what was under way; 75 if a mint is away."""
    out, client = Output(json_mode=json_mode), Client.open(home, _RESTORE_S)
    used = out.key(key)
    with out.waiting("Reading the relays, and asking the mints for every coin they ever signed for these words…"):
        answer = client.call(f"{_WALLET}/restore", {"relays": list(relay or ())}, key=used)
    out.answer(answer, "\n".join(_found(answer)))
    away = [one for one in (*answer["restored"], *answer["pending"]) if one["problem"]]
    return ExitCode.TEMPORARY if away else ExitCode.OK


_STANDINGS = {
    "waiting": "waits",
    "begun": "is looked at from now on",
    "done": "is back",
    "gone": "was taken before",
    "absent": "never happened",
}


def _found(answer: dict[str, Any]) -> list[str]:
    """What was found, for people."""
    lines = []
    for one in answer["restored"]:
        if one["problem"]:
            unit = "" if one["unit"] == SAT else f" ({one['unit']})"
            lines.append(f"{one['mint']}{unit}: {one['problem']}; it is asked again.")
        if one["coins"] or not one["problem"]:
            lines.append(f"{one['mint']}: {_said(one['amount'], one['unit'])} in {one['coins']} coins were found.")
    for one in answer["pending"]:
        due = f", due {datetime.fromtimestamp(one['due'], UTC):%Y-%m-%d %H:%M:%S} UTC" if one["due"] else ""
        why = f" ({one['problem']})" if one["problem"] else ""
        what = f"{one['kind']} of {_said(one['amount'], one['unit'])} at {one['mint']}{due}"
        lines.append(f"{what}: {_STANDINGS.get(one['standing'], one['standing'])}{why}.")
    lines += [
        f"{one['mint']} is not on your list: add it to [node] mints to spend there, or pay an invoice from it."
        for one in answer["restored"]
        if one["amount"] and not one["listed"]
    ]
    if not answer["memos"]:
        lines.append("No relay has a memo of an earlier wallet: payments that were under way are not known.")
    return lines or ["No mint is known, so none was asked."]


@app.command()
def audit(home: HomeOption, json_mode: JsonOption = False) -> int:
    """Ask the mints about every coin, and the Lightning wallet, and compare with the books; 65 if anything differs."""
    out = Output(json_mode=json_mode)
    with out.waiting("Asking the mints…"):
        answer = Client.open(home).get(f"{_WALLET}/audit")
    out.answer(answer, "\n".join(answer["differences"]) or "Coins, books and mints agree.")
    return ExitCode.OK if answer["clean"] else ExitCode.DATA
