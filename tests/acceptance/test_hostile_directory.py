"""A node may be started from a directory that somebody else has filled, e.g. a repository that was just cloned."""

import asyncio
import json
import sys
from pathlib import Path

import pytest

from tests.market_part import dead_address, run

VENDO = Path(sys.executable).parent / "vendo"
_ENV = """CASHU_DIR={here}/cashu
MINT_URL=http://127.0.0.1:1
DEBUG=TRUE
LOG_LEVEL=TRACE
HTTP_PROXY=http://127.0.0.1:1
VENDO_HOME={here}/other
PYTHONPATH={here}
"""
_LEAVE = "from pathlib import Path\nPath({mark!r}).write_text(__name__)\n"


def _trap(folder: Path) -> Path:
    """Fill a folder with settings and modules that must not be looked at; the file that a module of them leaves."""
    mark = folder / "was-run"
    (folder / ".env").write_text(_ENV.format(here=folder))
    for name in ("sumy", "nltk", "orjson", "cashu", "alembic", "sitecustomize", "dvm", "node"):
        (folder / f"{name}.py").write_text(_LEAVE.format(mark=str(mark)))
    (folder / "multiprocessing").mkdir()
    (folder / "multiprocessing" / "__init__.py").write_text(_LEAVE.format(mark=str(mark)))
    return mark


@pytest.mark.timeout(300)
async def test_nothing_in_the_working_directory_is_run_or_read(tmp_path: Path) -> None:
    folder, home = tmp_path / "cloned", tmp_path / "home"
    folder.mkdir()
    mark = _trap(folder)
    made = await run(
        str(VENDO), "init", "--home", str(home), "--relay", dead_address("ws"), "--port", "0", "--no-passphrase",
        cwd=folder,
    )  # fmt: skip
    assert made.code == 0, made.err
    config = home / "config.toml"
    config.write_text(config.read_text().replace('order = ["dvm", "builtin"]', 'order = ["builtin"]'))
    node = await asyncio.create_subprocess_exec(
        str(VENDO), "up", "--home", str(home),
        cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert node.stdout is not None
    try:
        said = json.loads(await asyncio.wait_for(node.stdout.readline(), 120))
        assert said["control"].startswith("http://127.0.0.1:")
        text = " ".join(f"Sentence number {n} says one more thing about the market." for n in range(9))
        bought = await run(
            str(VENDO), "buy", "--home", str(home), "--kind", "5001", "--input", text, "--json", cwd=folder
        )
        assert bought.code == 0, bought.out  # a worker process was started for it
    finally:
        node.terminate()
        await asyncio.wait_for(node.wait(), 20)
    assert not mark.exists(), mark.read_text()
    assert {path.name for path in folder.iterdir()} & {"cashu", "other"} == set()
