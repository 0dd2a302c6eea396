"""`vendo relay`: the embedded relay as a process of its own, and how the relays are that the node uses."""

import time
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.command.archive import export_events, import_events
from cli.option import HomeOption, JsonOption
from cli.output import Output

app = typer.Typer(no_args_is_help=True, help="The embedded relay, alone; and the relays that the node uses.")
app.command("export")(export_events)
app.command("import")(import_events)


@app.command()
def up(
    home: HomeOption,
    host: Annotated[str | None, typer.Option("--host", help="The address to listen on.")] = None,
    port: Annotated[int | None, typer.Option("--port", min=0, max=65535, help="0: any free one.")] = None,
    private_messages: Annotated[
        str | None, typer.Option("--private-messages", help="Who gets kinds 4, 1059, 21059: parties, or everybody.")
    ] = None,
    json_mode: JsonOption = False,
) -> None:
    """Run a relay until SIGTERM; prints one JSON line when it is ready."""
    del json_mode  # the line is JSON either way
    from cli.relay import PRIVACY, relay_up, settings_in

    if private_messages is not None and private_messages not in PRIVACY:
        raise typer.BadParameter(f"{private_messages!r} is neither {PRIVACY[0]!r} nor {PRIVACY[1]!r}.")
    relay_up(settings_in(home, host, port, private_messages))


@app.command("list")
def list_relays(home: HomeOption, json_mode: JsonOption = False) -> None:
    """The relays that the running node uses: whether they are up, how late and lossy they are, and what is wrong."""
    rows, now = Client.open(home).get("/agents/node/nostr/relays"), time.time()
    Output(json_mode=json_mode).rows(
        rows,
        ("relay", "state", "events", "missed", "delay p50/p99", "OK p50/p99", "keys", "what is wrong"),
        (_line(row, now) for row in rows),
        "The node uses no relay.",
    )


def _line(row: dict[str, Any], now: float) -> tuple[Any, ...]:
    state = "up" if row["up"] else "down"
    if row["since"]:
        state += f" {_span(now - row['since'])}"
    url = row["url"] if row.get("ours", True) else f"{row['url']} (not ours)"
    times = (_times(row["delay"]), _times(row["round_trip"]))
    return url, state, row["received"], row["missed"], *times, row["authenticated"] or None, _trouble(row)


def _span(seconds: float) -> str:
    """How long ago, in its largest whole unit."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"


def _times(value: dict[str, float] | None) -> str:
    return f"{value['p50_ms']:.0f}/{value['p99_ms']:.0f} ms" if value else "-"


def _trouble(row: dict[str, Any]) -> str:
    said = [] if row["up"] else [row["last_error"] or "not connected yet"]
    said += [f"{name}: {reason}" for name, reason in row["stopped"].items()]
    bad = {
        "forged": "forged",
        "malformed": "malformed",
        "future": "dated ahead",
        "dropped": "dropped",
        "refused_keys": "keys refused",
    }
    said += [f"{row[name]} {text}" for name, text in bad.items() if row[name]]
    if row["queued"]:
        said.append(f"{row['queued']} subscriptions wait for a place")
    if row["failures"]:
        said.append(f"{row['failures']} tries in a row failed")
    return "; ".join(said) or "-"
