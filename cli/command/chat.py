"""`vendo chat AGENT`: talk with an agent as its operator, over Nostr, with what became of each message.

Lines from the keyboard are sent as encrypted messages of the operator's key; answers appear as they come. Without a
terminal it reads lines and prints lines, so that a script can ask and wait for the answer.
"""

import json
import queue
import sys
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from cli.client import Client
from cli.completion import agent_names
from cli.option import HomeOption, JsonOption
from cli.output import ExitCode, NodeRefusal, Output, printable, problem_of
from core.error import InvalidInput, VendoError

_MAILBOX = "/agents/node/nostr"
_MARKS = {"queued": "…", "sent": "✓", "seen": "✓✓", "failed": "✗", "received": "", "held": "…", "dropped": "✗"}
_HELP = "Lines are sent; /file PATH sends a file, /quit ends."
_END, _LINE, _RECORD, _LOST = "end", "line", "record", "lost"

_Item = tuple[str, Any]


class _Talk:
    """One conversation on a terminal or a pipe."""

    def __init__(self, client: Client, agent: str, out: Output) -> None:
        self._client, self._agent, self._out = client, agent, out
        self._npub = client.read(f"/agents/{agent}/identity/npub").decode().strip()
        self._peer = client.read(f"/agents/{agent}/identity/pubkey").decode().strip()
        self._shown: dict[str, str] = {}
        self._waiting = False
        self._queued: set[str] = set()
        self.items: queue.Queue[_Item] = queue.Queue()

    def past(self, count: int) -> int:
        """Show the last messages; the cursor to go on from."""
        found = self._client.get(f"{_MAILBOX}/dm/{self._npub}")
        for message in found[-count:] if count else ():
            self.show(message)
        self._shown |= {one["id"]: one["state"] for one in found}
        self._queued.clear()  # what did not get away before is not waited for
        return max((int(one["cursor"]) for one in found), default=0)

    def show(self, message: Mapping[str, Any]) -> None:
        """One message, or what became of it since it was shown."""
        known = self._shown.get(message["id"])
        if known == message["state"]:
            return
        self._shown[message["id"]] = message["state"]
        mine = message["direction"] == "out"
        if mine and message["state"] == "queued":
            self._queued.add(message["id"])
        else:
            self._queued.discard(message["id"])
        text = message["text"] or _file_text(message.get("file"))
        if known is None:
            line = _spoken(f"you {_MARKS[message['state']]} {text}" if mine else f"{self._agent}: {text}")
        else:
            line = _spoken(f"    {_MARKS[message['state']]} {message['state']} {' '.join(message['reason'].split())}")
        self._out.record(dict(message), line)
        if not mine and known is None:
            self._waiting = False

    def watch(self, after: int) -> None:
        """Put every record of this conversation into `items`, until the node goes."""
        try:
            for record in self._client.watch(f"{_MAILBOX}/messages", after):
                message = json.loads(record.data)
                if message.get("peer") == self._peer:
                    self.items.put((_RECORD, message))
            self.items.put((_LOST, None))
        except (VendoError, OSError, ValueError) as error:
            self.items.put((_LOST, error))

    def read(self) -> None:
        """Put every line of standard input into `items`."""
        for line in sys.stdin:
            self.items.put((_LINE, line.rstrip("\n")))
        self.items.put((_END, None))

    def say(self, line: str) -> bool:
        """Send what was typed. False: it was the end."""
        if line.strip() == "/quit":
            return False
        if not line.strip():
            return True
        try:
            if line.startswith("/file "):
                self._client.call(f"{_MAILBOX}/file/{self._npub}", _bytes(Path(line[6:].strip())))
            elif line.startswith("/"):
                self._out.note(_HELP)
                return True
            else:
                self._client.call(f"{_MAILBOX}/dm/{self._npub}", line.encode())
            self._waiting = True
        except (NodeRefusal, InvalidInput) as error:
            self._out.fail(problem_of(error))
        return True

    def run(self, wait: float) -> int:
        """Until the input ends and the last message was answered, or `wait` seconds have passed since.

        An answer may be here before a relay has said that it has the question: that is waited for too.
        """
        deadline: float | None = None
        while deadline is None or self._waiting or self._queued:
            left = None if deadline is None else deadline - time.monotonic()
            if left is not None and left <= 0:
                if not self._waiting:
                    break
                self._out.note("No answer came in time; the agent goes on with it.")
                return ExitCode.TEMPORARY
            try:
                kind, value = self.items.get(timeout=left)
            except queue.Empty:
                continue
            if kind == _RECORD:
                self.show(value)
            elif kind == _LINE and not self.say(value):
                return ExitCode.OK
            elif kind == _END:
                deadline = time.monotonic() + wait
            elif kind == _LOST:
                self._out.note("The node has gone.")
                return ExitCode.UNAVAILABLE
        return ExitCode.OK


def _spoken(text: str) -> str:
    """Words that others chose, for a terminal or a pipe: they move no cursor, and begin no line as a speaker would."""
    return "\n    ".join(printable(line) for line in text.splitlines()).rstrip()


def _file_text(file: Mapping[str, Any] | None) -> str:
    return f"[file {file.get('mime', '')}, {file.get('size', 0)} bytes]" if file else "[file]"


def _bytes(path: Path) -> bytes:
    try:
        return path.expanduser().read_bytes()
    except OSError as error:
        raise InvalidInput(f"{path} cannot be read: {error.strerror}.") from error


def _beside(work: Callable[[], None]) -> None:
    threading.Thread(target=work, daemon=True).start()


def chat(
    agent: Annotated[str, typer.Argument(metavar="AGENT", help="Whom to talk with.", autocompletion=agent_names)],
    home: HomeOption,
    history: Annotated[int, typer.Option("--history", min=0, max=200, help="How many past messages to show.")] = 20,
    wait: Annotated[
        float, typer.Option("--wait", min=0, help="Seconds to wait for an answer after the end of the input.")
    ] = 60.0,
    json_mode: JsonOption = False,
) -> int:
    """Talk with an agent over Nostr, as its operator."""
    out = Output(json_mode=json_mode)
    talk = _Talk(Client.open(home), agent, out)
    after = talk.past(history)
    if sys.stdin.isatty() and not json_mode:
        out.note(_HELP)
    _beside(lambda: talk.watch(after))
    _beside(talk.read)
    return talk.run(wait)
