"""The `vendo` command. Everything it knows is in cli/command/; here errors become one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence

import typer

from cli.command import (
    agent,
    backup,
    chat,
    demo,
    doctor,
    file,
    home,
    hook,
    inbox,
    key,
    ledger,
    market,
    move,
    operation,
    relay,
    replay,
    upkeep,
    wallet,
)
from cli.output import ExitCode, Output, Problem, problem_of
from core.error import VendoError

app = typer.Typer(
    name="vendo",
    help="A market node for Nostr data vending machines: agents that buy and sell computation for ecash.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
for function in (
    demo.demo, home.init, home.up, doctor.doctor,
    operation.status, operation.pause, operation.resume, operation.send, chat.chat,
    market.buy, market.jobs, market.sell,
    backup.backup, backup.restore, upkeep.gc,
    file.ls, file.cat, file.write, file.call, file.watch,
    replay.replay,
):  # fmt: skip
    app.command()(function)
app.add_typer(wallet.app, name="wallet")
app.add_typer(ledger.app, name="ledger")
app.add_typer(relay.app, name="relay")
app.add_typer(key.app, name="key")
agent.app.command("export")(move.export)
agent.app.command("import")(move.bring)
agent.app.command("thaw")(move.thaw)
app.add_typer(agent.app, name="agent")
app.add_typer(inbox.app, name="inbox")
app.add_typer(hook.app, name="hook")


def run(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    words = list(argv)
    own = words[: words.index("--")] if "--" in words else words
    out = Output(json_mode="--json" in own)
    try:
        result = app(words, prog_name="vendo", standalone_mode=False)
        return int(result or ExitCode.OK)
    except VendoError as error:
        return out.fail(problem_of(error))
    except typer.TyperException as error:
        return _usage(out, error)
    except (typer.Abort, KeyboardInterrupt):
        out.fail(Problem("cli.interrupted", "Interrupted."))
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        # Whoever read the output has gone: nothing can be said, and Python must not try to at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ExitCode.OK
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return out.fail(Problem("cli.system", f"{named}{error.strerror or error}.", "", "", 500))
    except Exception:  # noqa: BLE001 - the edge of the program: whatever it is, callers get an exit code they know
        traceback.print_exc()
        return out.fail(Problem("internal", "Something failed inside vendo.", "", "Please report it.", 500))


def _usage(out: Output, error: typer.TyperException) -> ExitCode:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message.rstrip() + "\n")
        return ExitCode.USAGE
    return out.fail(Problem("cli.usage", message, "Nothing was done.", "Try --help.", 400))


def main() -> None:
    """The entry point."""
    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
