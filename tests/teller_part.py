"""A node whose echo service answers with as many characters as it is asked for: `python -m tests.teller_part HOME LOG`.

Each time that it works it writes a line to LOG.
"""

import asyncio
import json
import os
import sys
from pathlib import Path

from cli.demo.process import Child
from cli.main import main
from dvm.provider.echo import Echo
from dvm.provider.provider import Answer, only_text
from dvm.request import ComputeRequest

SENTENCE = "Once upon a time there was a market. "
_START_S = 120.0


def story(size: int) -> str:
    """So many characters, none of them repeating what an event could hold."""
    return (SENTENCE * (size // len(SENTENCE) + 1))[:size]


async def start_teller(name: str, folder: Path, home: Path, log: Path) -> Child:
    """Run one as a process, as `cli.demo.process.start_node` does."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("VENDO_", "MINT_", "CASHU_"))}
    root = str(Path(__file__).parent.parent)
    err = folder / f"{name}.log"
    with err.open("ab") as stderr:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "tests.teller_part", str(home), str(log),
            cwd=root, env=kept | {"PYTHONUNBUFFERED": "1"}, stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE, stderr=stderr,
        )  # fmt: skip
    child = Child(name, process, err)
    assert process.stdout is not None
    child.said = json.loads(await asyncio.wait_for(process.stdout.readline(), _START_S))
    return child


def _serve(home: str, log: str) -> None:
    async def run(self: Echo, request: ComputeRequest) -> Answer:
        size = only_text(request)
        with Path(log).open("a", encoding="utf-8") as lines:
            lines.write(size + "\n")
        return Answer(story(int(size)))

    Echo.run = run
    sys.argv = ["vendo", "up", "--home", home]
    main()


if __name__ == "__main__":
    _serve(sys.argv[1], sys.argv[2])
