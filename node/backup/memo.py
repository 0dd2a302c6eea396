"""What a home knows of its last backup: a note, so that `vendo doctor` can say how old it is. Nothing depends on it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from node.identity.keystore import replace_private

FILE = "last-backup"


@dataclass(frozen=True, slots=True)
class Memo:
    """One backup: when it was taken (Unix seconds), its id, and where it was written (`-`: standard output)."""

    taken_at: int
    id: str
    file: str


def note_backup(home: Path, memo: Memo) -> None:
    """Keep it in place of the one before.

    Raises:
        OSError: the home cannot be written.
    """
    replace_private(home / FILE, json.dumps(asdict(memo)) + "\n")


def last_backup(home: Path) -> Memo | None:
    """The last one that is known; None if none is, or the note is damaged."""
    try:
        body = json.loads((home / FILE).read_text(encoding="utf-8"))
        return Memo(int(body["taken_at"]), str(body["id"]), str(body["file"]))
    except (OSError, ValueError, KeyError, TypeError):
        return None
