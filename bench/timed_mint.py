"""A real nutshell mint that writes down how long it worked on each request: `python bench/timed_mint.py`.

The file that `BENCH_SPANS` names gets `[path, began, ended]` a line, in seconds of the system's clock. It is told all
else as any nutshell mint is.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

SPANS = "BENCH_SPANS"


class Timed:
    """The mint's application, with a watch beside it."""

    def __init__(self, app: Any, file: Path) -> None:
        self._app = app
        self._file = file.open("a", encoding="utf-8", buffering=1)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """One request."""
        began = time.time()
        try:
            await self._app(scope, receive, send)
        finally:
            if scope["type"] == "http":
                self._file.write(json.dumps([scope["path"], began, time.time()]) + "\n")


def serve() -> None:
    """Run the mint."""
    del sys.path[0]  # this folder, in which modules have the names of the library's own
    import cashu.mint.app  # reads its settings, so not where only the name above is wanted
    from cashu.mint.main import main

    cashu.mint.app.app = Timed(cashu.mint.app.app, Path(os.environ[SPANS]))  # the server looks it up by this name
    main(args=[])


if __name__ == "__main__":
    serve()
