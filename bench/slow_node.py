"""A node whose echo takes a second: `python -m bench.slow_node HOME`. All else is the real node of that home."""

import asyncio
import sys
from pathlib import Path

from dvm.provider.echo import Echo
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest
from node import app, launch, trade

TAKES_S = 1.0


class Slow(Echo):
    """It waits, as for a machine elsewhere, and then answers."""

    async def run(self, request: ComputeRequest) -> Answer:
        """See `Provider`."""
        await asyncio.sleep(TAKES_S)
        return await super().run(request)


if __name__ == "__main__":
    trade.Echo = Slow  # where the node takes it from
    sys.exit(launch.serve(Path(sys.argv[1]), app.Node))
