"""Each way in which pools are known to fail: it does not happen here, and the test would see it if it did."""

import asyncio

import pytest

from relays import delivery
from tests.integration.relays import field_part
from tests.integration.relays.field_part import FAILURES, Failure

_BY_NAME = {"argvalues": FAILURES, "ids": [one.name.replace(" ", "_") for one in FAILURES]}


@pytest.fixture(autouse=True)
def _small_queue(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if "no_room" in request.node.name:
        monkeypatch.setattr(delivery, "MAX_WAITING", 20)


@pytest.mark.parametrize("failure", **_BY_NAME)
async def test_it_does_not_happen(failure: Failure) -> None:
    async with asyncio.timeout(20):
        await failure.scenario()


@pytest.mark.parametrize("failure", **_BY_NAME)
async def test_it_would_be_seen(failure: Failure, monkeypatch: pytest.MonkeyPatch) -> None:
    failure.plant(monkeypatch)
    monkeypatch.setattr(field_part, "SHORT_S", 1.0)
    with pytest.raises((AssertionError, TimeoutError)):
        async with asyncio.timeout(20):
            await failure.scenario()
