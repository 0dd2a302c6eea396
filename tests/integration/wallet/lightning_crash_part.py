"""A child process that pays one invoice over NWC and is killed at one point of it. Run as a script by the tests."""

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest

from core.effect import Permit
from core.error import VendoError
from core.unit import Write
from relays.event import Event
from relays.nip47 import Method, Response
from tests.integration.wallet.lightning_part import desk
from wallet import lightning_engine


def die() -> None:
    """As a power cut would."""
    os.kill(os.getpid(), signal.SIGKILL)


async def main(path: str, uri: str, invoice: str, when: str) -> None:
    async with desk(Path(path), uri) as made:
        monkey = pytest.MonkeyPatch()
        unit, client = made.database, made.client
        commit, send = unit.commit, client.send

        left = int(when.removeprefix("commit-")) if when.startswith("commit-") else -1

        async def counted(writes: Iterable[Write]) -> None:
            nonlocal left
            await commit(writes)
            left -= 1
            if left == 0:
                die()

        async def cut(event: Event, method: Method, permit: Permit, timeout: float) -> Response:
            if when == "before_request":
                die()
            if when == "after_request":
                asyncio.get_running_loop().call_later(1.0, die)  # the wallet has it by then, and answers slowly
            answer = await send(event, method, permit, timeout)
            if when == "after_answer":
                die()
            return answer

        monkey.setattr(client, "send", cut)
        monkey.setattr(lightning_engine, "PAY_S", 30.0)
        effect = await made.begin("k")
        made.lightning._unit = made.lightning._engine._unit = type("Cut", (), {"commit": staticmethod(counted)})()
        with contextlib.suppress(VendoError):
            await made.lightning.pay("op-k", invoice, *effect)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
