import asyncio
import os
import signal
from concurrent.futures.process import BrokenProcessPool

import pytest

from node.workshop import workshop


async def test_work_goes_on_after_a_worker_was_killed() -> None:
    shop = workshop(1)
    loop = asyncio.get_running_loop()
    try:
        first = await loop.run_in_executor(shop, os.getpid)
        assert first != os.getpid()
        with pytest.raises(BrokenProcessPool):
            await loop.run_in_executor(shop, os.kill, first, signal.SIGKILL)
        second = await asyncio.wait_for(loop.run_in_executor(shop, os.getpid), 30)
        assert second not in (first, os.getpid())
    finally:
        shop.shutdown(wait=True, cancel_futures=True)
