"""What was released stays as it was: a migration that databases have behind them is never edited.

`released/` holds the schema that each revision left when it was released, as SQLite tells it.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from node.storage.migration import migrate

RELEASED = Path(__file__).parent / "released"
REVISIONS = sorted(path.stem for path in RELEASED.glob("*.sql"))
VERSIONS = Path(__file__).parents[2] / "node" / "storage" / "migrations" / "versions"


def schema(path: Path) -> str:
    """All of it, in an order of its own, however it was laid out."""
    asked = "SELECT sql FROM sqlite_master WHERE sql IS NOT NULL AND name NOT LIKE 'sqlite_%' ORDER BY type DESC, name"
    with closing(sqlite3.connect(path)) as db:
        return "".join(f"{' '.join(sql.split())};\n" for (sql,) in db.execute(asked))


@pytest.mark.parametrize("revision", REVISIONS)
def test_a_released_revision_makes_the_schema_that_it_made_then(tmp_path: Path, revision: str) -> None:
    migrate(tmp_path / "node.db", revision)
    assert schema(tmp_path / "node.db") == (RELEASED / f"{revision}.sql").read_text(encoding="utf-8")


def test_every_revision_but_the_newest_is_among_them() -> None:
    made = sorted(path.name[1:5] for path in VERSIONS.glob("v*.py"))
    assert REVISIONS in (made[:-1], made)
