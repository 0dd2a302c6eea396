"""The `vendo` command. Everything it knows is in cli/command/; here errors become one line and an exit code."""

import os
import sys
import traceback
from collections.abc import Sequence
from functools import cache
from typing import Any

import typer
from typer.main import get_command

from cli import completion as tab
from cli.command import (
    agent,
    backup,
    chat,
    completion,
    config,
    demo,
    doctor,
    file,
    fraud,
    goal,
    home,
    hook,
    inbox,
    key,
    ledger,
    life,
    market,
    mount,
    move,
    operation,
    prepaid,
    relay,
    replay,
    sell,
    token,
    trace,
    tree,
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
    market.buy, market.jobs, market.reputation,
    backup.backup, backup.restore, upkeep.gc,
    file.ls, tree.tree, file.cat, file.write, file.call, file.watch, file.rm, file.mkdir, file.mv,
    mount.mount,
    replay.replay, completion.completion,
):  # fmt: skip
    app.command()(function)
app.add_typer(sell.app, name="sell")
app.add_typer(fraud.app, name="fraud")
app.add_typer(prepaid.app, name="prepaid")
app.add_typer(wallet.app, name="wallet")
app.add_typer(ledger.app, name="ledger")
app.add_typer(relay.app, name="relay")
app.add_typer(key.app, name="key")
app.add_typer(token.app, name="token")
agent.app.command("status")(life.status)
agent.app.command("tick")(life.tick)
agent.app.command("send")(operation.agent_send)
agent.app.command("logs")(trace.logs)
agent.app.command("goals")(goal.goals)
agent.app.command("hibernate")(life.hibernate)
agent.app.command("wake")(life.wake)
agent.app.command("stop")(life.stop)
agent.app.command("start")(life.start)
agent.app.command("release")(life.release)
agent.app.command("export")(move.export)
agent.app.command("import")(move.bring)
agent.app.command("thaw")(move.thaw)
app.add_typer(agent.app, name="agent")
app.add_typer(inbox.app, name="inbox")
app.add_typer(hook.app, name="hook")
app.add_typer(config.app, name="config")


@cache
def root() -> Any:
    """All commands, as typer makes them: once, since that takes a while."""
    return get_command(app)


def run(argv: Sequence[str]) -> int:
    """Run one command; its exit code."""
    words = list(argv)
    own = words[: words.index("--")] if "--" in words else words
    out = Output(json_mode="--json" in own)
    try:
        result = root()(words, prog_name=tab.PROGRAM, standalone_mode=False)
        return int(result or ExitCode.OK)
    except VendoError as error:
        return out.fail(problem_of(error))
    except typer.TyperException as error:
        return _usage(out, error)
    except (typer.Abort, KeyboardInterrupt):
        out.fail(Problem("cli.interrupted", "Interrupted."))
        return ExitCode.INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except SystemExit as left:
        if isinstance(left.__context__, BrokenPipeError):  # typer and rich end the program for it
            return _unread()
        raise
    except OSError as error:
        named = f"{error.filename}: " if error.filename else ""
        return out.fail(Problem("cli.system", f"{named}{error.strerror or error}.", "", "", 500))
    except Exception:  # noqa: BLE001 - the edge of the program: whatever it is, callers get an exit code they know
        traceback.print_exc()
        return out.fail(Problem("internal", "Something failed inside vendo.", "", "Please report it.", 500))


def _unread() -> ExitCode:
    """Whoever read the output has gone: nothing can be said, and Python must not try to at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return ExitCode.OK


def _usage(out: Output, error: typer.TyperException) -> ExitCode:
    message = error.format_message()
    if type(error).__name__ == "NoArgsIsHelpError":
        sys.stderr.write(message.rstrip() + "\n")
        return ExitCode.USAGE
    return out.fail(Problem("cli.usage", message, "Nothing was done.", "Try --help.", 400))


def main() -> None:
    """The entry point."""
    sys.exit(tab.answer(root()) if tab.asked() else run(sys.argv[1:]))


if __name__ == "__main__":
    main()
