"""`vendo prepaid`: deposits at sellers, from which jobs are paid that are too cheap for a payment each."""

from typing import Annotated, Any

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import Output, sat

app = typer.Typer(
    help="Deposits from which cheap jobs are paid: list, open, close; alone it is list.", invoke_without_command=True
)
_PREPAID = "/agents/node/market/prepaid"


@app.callback(invoke_without_command=True)
def prepaid(context: typer.Context, home: HomeOption, json_mode: JsonOption = False) -> None:
    """Deposits from which cheap jobs are paid: list, open, close; alone it is list."""
    if context.invoked_subcommand is None:
        show(home, json_mode=json_mode)


@app.command("list")
def show(home: HomeOption, json_mode: JsonOption = False) -> None:
    """Deposits of this node at sellers, and of customers here, newest first."""
    rows = Client.open(home).get(_PREPAID)
    Output(json_mode=json_mode).rows(
        rows,
        ("deposit", "whose", "state", "amount", "drawn", "left", "back", "with"),
        (
            (
                row["id"],
                "ours" if row["side"] == "buyer" else "theirs",
                row["state"] + (f" ({row['fault']})" if row["fault"] else ""),
                *(sat(row[name]) for name in ("amount_msat", "drawn_msat", "left_msat", "returned_msat")),
                row["peer"],
            )
            for row in rows
        ),
        "There is no deposit.",
    )


@app.command("open")
def start(
    seller: Annotated[str, typer.Argument(metavar="NPUB", help="The seller's key, as npub or in hex.")],
    amount: Annotated[int, typer.Argument(metavar="SAT", min=1, help="How much is locked there.")],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Lock a deposit at a seller that has delivered before; what is not drawn comes back when it is closed."""
    out = Output(json_mode=json_mode)
    body = {"seller": seller, "sat": amount}
    _tell(out, Client.open(home).call(f"{_PREPAID}/open", body, key=out.key(key)))


@app.command()
def close(
    deposit: Annotated[str, typer.Argument(metavar="DEPOSIT", help="Its id, as `vendo prepaid list` shows it.")],
    home: HomeOption,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Draw no more on a deposit; its seller sends back what is left, or it is taken back after its locktime."""
    out = Output(json_mode=json_mode)
    _tell(out, Client.open(home).call(f"{_PREPAID}/close", {"deposit": deposit}, key=out.key(key)))


def _tell(out: Output, row: dict[str, Any]) -> None:
    out.answer(row, f"{row['id']}: {row['state']}, {sat(row['amount_msat'])} at {row['peer']}")
