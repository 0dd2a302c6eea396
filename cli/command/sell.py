"""`vendo sell`: what this node sells: put up for sale, price, pause, stop while it runs; what it brought."""

import re
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.option import HomeOption, JsonOption, KeyOption
from cli.output import Output, sat, usd
from core.error import InvalidInput

app = typer.Typer(
    help="What this node sells: list, start, price, pause, resume, stop, status, earnings; alone it is list.",
    invoke_without_command=True,
)
_SELL = "/agents/node/sell"
_PRICE = re.compile(r"(?P<number>[0-9]{1,12}(?:\.[0-9]{1,6})?)(?P<unit>msat|sat|usd)?")
_FORM = "21sat, 21000msat, 0.01usd, or 0"

KindArgument = Annotated[
    int, typer.Argument(metavar="KIND", min=5000, max=5999, help="The NIP-90 job kind, e.g. 5001.")
]
EachArgument = Annotated[
    int | None, typer.Argument(metavar="KIND", min=5000, max=5999, help="The job kind; all of them without it.")
]
PriceOption = Annotated[str, typer.Option("--price", metavar="PRICE", help=f"What it costs: {_FORM}.")]
PerOption = Annotated[
    str, typer.Option("--per", help="What the price is for: job, input, 1k_chars, 1k_bytes, 1k_tokens or 1m_hashes.")
]
MinOption = Annotated[str | None, typer.Option("--min", metavar="PRICE", help="The least that a job costs.")]
MaxOption = Annotated[str | None, typer.Option("--max", metavar="PRICE", help="The most that a job costs.")]


@app.callback(invoke_without_command=True)
def sell(context: typer.Context, home: HomeOption, json_mode: JsonOption = False) -> None:
    """What this node sells: list, start, price, pause, resume, stop, status, earnings; alone it is list."""
    if context.invoked_subcommand is None:
        show(home, json_mode=json_mode)


@app.command("list")
def show(home: HomeOption, json_mode: JsonOption = False) -> None:
    """What is for sale, and the latest sales."""
    client = Client.open(home)
    services, sales = client.get(_SELL), client.get("/agents/node/market/sales")
    out = Output(json_mode=json_mode)
    if json_mode:
        out.answer({"services": services, "sales": sales})
        return
    out.rows(
        services,
        ("kind", "price", "provider", "state"),
        ((row["kind"], _price(row), row["provider"], row["state"]) for row in services),
        "Nothing is for sale: vendo sell start KIND --price PRICE, or a [[sell]] table in config.toml.",
    )
    out.note(f"{len(sales)} jobs sold lately.")


@app.command()
def start(
    kind: KindArgument,
    price: PriceOption,
    home: HomeOption,
    provider: Annotated[
        str, typer.Option("--provider", help="Who does it; the only one that can if nothing is said.")
    ] = "",
    per: PerOption = "job",
    least: MinOption = None,
    most: MaxOption = None,
    eta: Annotated[int, typer.Option("--eta", min=1, max=3600, help="Seconds that a job usually takes.")] = 10,
    parallel: Annotated[int, typer.Option("--parallel", min=1, max=1024, help="Jobs that are worked on at once.")] = 4,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Put a kind up for sale, from now on and over restarts."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    body = {"kind": kind, "provider": provider, "eta_s": eta, "max_parallel": parallel} | _terms(
        price, per, least, most
    )
    _told(out, client.call(f"{_SELL}/start", body, key=out.key(key)))


@app.command("price")
def set_price(
    kind: KindArgument,
    price: PriceOption,
    home: HomeOption,
    per: PerOption = "job",
    least: MinOption = None,
    most: MaxOption = None,
    key: KeyOption = None,
    json_mode: JsonOption = False,
) -> None:
    """Sell a kind at another price from now on; quotes that stand are kept."""
    out, client = Output(json_mode=json_mode), Client.open(home)
    _told(out, client.call(f"{_SELL}/{kind}/price", _terms(price, per, least, most), key=out.key(key)))


@app.command()
def pause(home: HomeOption, kind: EachArgument = None, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Begin no new jobs of a kind, or of any; what is open is finished."""
    _turn("pause", kind, Output(json_mode=json_mode), Client.open(home), key)


@app.command()
def resume(home: HomeOption, kind: EachArgument = None, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Sell again what was paused."""
    _turn("resume", kind, Output(json_mode=json_mode), Client.open(home), key)


@app.command()
def stop(kind: KindArgument, home: HomeOption, key: KeyOption = None, json_mode: JsonOption = False) -> None:
    """Sell a kind no more; what is open is finished."""
    _turn("stop", kind, Output(json_mode=json_mode), Client.open(home), key)


@app.command()
def status(home: HomeOption, json_mode: JsonOption = False) -> None:
    """What is open and waits, and which requests were not served, by reason."""
    facts = Client.open(home).get(f"{_SELL}/status")
    out = Output(json_mode=json_mode)
    if json_mode:
        out.answer(facts)
        return
    columns = ("kind", "open", "capacity", "waiting", "running", "workers")
    kinds = facts["kinds"]
    out.rows(kinds, columns, (tuple(row[name] for name in columns) for row in kinds), "Nothing is for sale.")
    out.note("Not served: " + (", ".join(f"{word} {count}" for word, count in facts["dropped"].items()) or "none."))


@app.command()
def earnings(
    home: HomeOption,
    since: Annotated[str, typer.Option("--since", metavar="DAY", help="Only from this day on, YYYY-MM-DD (UTC).")] = "",
    json_mode: JsonOption = False,
) -> None:
    """What was claimed for sales, by kind and mint."""
    if since and not re.fullmatch(r"\d{4}-\d{2}-\d{2}", since):
        raise InvalidInput(f"--since takes a day as YYYY-MM-DD, not {since!r}.")
    rows = Client.open(home).get(f"{_SELL}/earnings" + (f"/{since}" if since else ""))
    Output(json_mode=json_mode).rows(
        rows,
        ("kind", "mint", "sales", "earned"),
        ((row["kind"], row["mint"], row["sales"], sat(row["earned_msat"])) for row in rows),
        "Nothing was earned yet." if not since else f"Nothing was earned since {since}.",
    )


def _turn(verb: str, kind: int | None, out: Output, client: Client, key: str | None) -> None:
    path = f"{_SELL}/{verb}" if kind is None else f"{_SELL}/{kind}/{verb}"
    _told(out, client.call(path, key=out.key(key)))


def _told(out: Output, answer: Any) -> None:
    rows = answer if isinstance(answer, list) else [answer]
    out.answer(
        answer, "\n".join(f"{row['kind']}: {row['state']}, {_price(row)}" for row in rows) or "Nothing is for sale."
    )


def _price(row: dict[str, Any]) -> str:
    """A price as people read it."""

    def amount(value: int) -> str:
        return usd(value) if row["unit"] == "uusd" else sat(value)

    text = amount(row["price"]) + ("" if row["per"] == "job" else f" per {row['per']}")
    bounds = [
        f"{word} {amount(row[name])}"
        for word, name in (("at least", "minimum"), ("at most", "maximum"))
        if row[name] is not None
    ]
    return ", ".join([text, *bounds])


def _terms(price: str, per: str, least: str | None, most: str | None) -> dict[str, Any]:
    """What a price, a unit and bounds are in a request."""
    terms: dict[str, Any] = {"per": per}
    for name, text in (("price", price), ("min", least), ("max", most)):
        if text is not None:
            terms |= _amount(name, text)
    return terms


def _amount(name: str, text: str) -> dict[str, Any]:
    match = _PRICE.fullmatch(text)
    number, unit = (match["number"], match["unit"]) if match else ("", "")
    if unit == "usd":
        return {f"{name}_usd": number}
    if number == "0" and not unit:
        return {f"{name}_msat": 0}
    if not unit or "." in number:
        raise InvalidInput(f"--{name} takes an amount with its unit ({_FORM}), not {text!r}.")
    return {f"{name}_msat": int(number) * (1_000 if unit == "sat" else 1)}
