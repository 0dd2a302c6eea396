"""The schema of a file: made once, compared with the models, never guessed at, and never half changed."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect

from core.clock import SystemClock
from core.unit import Insert
from node.storage.chain import unsigned_seal
from node.storage.database import open_database
from node.storage.error import NewerSchema, NotOurDatabase, StoreFailed
from node.storage.migration import SCRIPTS, migrate, revision_of, revisions
from node.storage.table import METADATA
from tests.fsync_part import MAIN, watched_disk

ROOT = Path(__file__).parents[2]


def test_migrations_and_models_agree(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    migrate(path)
    engine = create_engine(f"sqlite:///{path}")
    with engine.connect() as connection:
        options = {"compare_type": True, "compare_server_default": True}
        assert compare_metadata(MigrationContext.configure(connection, opts=options), METADATA) == []
        unique = {name: len(inspect(connection).get_unique_constraints(name)) for name in METADATA.tables}
    engine.dispose()
    assert unique["entry"] == 2
    assert unique["inbox"] == 1


def test_the_file_names_say_what_the_scripts_say() -> None:
    script = ScriptDirectory(str(SCRIPTS))
    assert script.get_current_head() == revisions()[-1]
    assert sorted(found.revision for found in script.walk_revisions()) == revisions()


def test_a_second_time_there_is_nothing_to_do(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    assert revision_of(path) is None
    assert migrate(path)
    assert not migrate(path)
    assert revision_of(path) == revisions()[-1]


async def test_a_newer_schema_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    migrate(path)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE alembic_version SET version_num = '9999'")
    db.close()
    before = path.read_bytes()
    with pytest.raises(NewerSchema) as caught:
        await open_database(path, seal=unsigned_seal, clock=SystemClock())
    assert caught.value.code == "store.newer_schema"
    assert "9999" in str(caught.value)
    assert "Install" in str(caught.value)
    assert path.read_bytes() == before


async def test_a_file_of_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    other, text = tmp_path / "other.db", tmp_path / "text.db"
    with sqlite3.connect(other) as db:
        db.execute("CREATE TABLE theirs(x)")
    db.close()
    text.write_text("not a database at all, but a text that is long enough to be read as one\n" * 20)
    for path in (other, text):
        before = path.read_bytes()
        with pytest.raises(NotOurDatabase):
            await open_database(path, seal=unsigned_seal, clock=SystemClock())
        assert path.read_bytes() == before


async def test_a_migration_that_fails_leaves_the_file_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "node.db"
    with watched_disk() as disk:
        disk.failing, disk.failing_write = MAIN, sqlite3.SQLITE_IOERR_WRITE
        with pytest.raises(StoreFailed):
            await open_database(path, seal=unsigned_seal, clock=SystemClock())
    assert revision_of(path) is None
    base = await open_database(path, seal=unsigned_seal, clock=SystemClock())
    await base.commit([Insert("seen", {"event_id": "a", "at": 0})])
    await base.aclose()


async def test_others_cannot_read_a_new_file(tmp_path: Path) -> None:
    base = await open_database(f"sqlite:///{tmp_path}/node.db", seal=unsigned_seal, clock=SystemClock())
    await base.commit([Insert("seen", {"event_id": "a", "at": 0})])
    assert {path.stat().st_mode & 0o077 for path in tmp_path.iterdir()} == {0}
    await base.aclose()


def test_opening_a_current_file_is_quick_and_does_without_alembic(tmp_path: Path) -> None:
    migrate(tmp_path / "node.db")
    program = (
        "import sys, time\n"
        "from pathlib import Path\n"
        "from node.storage.migration import migrate\n"
        "began = time.process_time()\n"
        "assert not migrate(Path(sys.argv[1]))\n"
        "assert time.process_time() - began < 0.3\n"
        "assert 'alembic' not in sys.modules\n"
    )
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "node.db")], check=True, cwd=ROOT, timeout=60)
    assert time.perf_counter() - began < 30
