"""What both files of tests begin with."""

import pytest

from tests.recovery_part import World
from wallet import restorer


@pytest.fixture(autouse=True)
def brief(monkeypatch):
    """The counters have no such gaps here, and each search costs a second."""
    monkeypatch.setattr(restorer, "GAP", 50)


@pytest.fixture
async def world() -> World:
    return World()
