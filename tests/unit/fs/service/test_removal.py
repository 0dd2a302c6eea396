"""What is set can be taken away by removing its file, once, as by its `delete`."""

import pytest

from core.clock import SystemClock
from core.unit import Update
from fs.error import AccessDenied, NoSuchFile, Unsupported
from fs.namespace import Access, Mount, Namespace
from fs.service.alarms import alarms_service
from fs.service.hooks import hooks_service
from fs.service.inbox import inbox_service
from fs.service.interests import interests_service
from fs.session import Role, Session
from node.agent.wake.agenda import AgentAlarms, AgentInterests
from node.agent.wake.porter import AgentHooks
from node.storage.memory import MemoryDatabase
from tests.integration.agent.inbox_part import desk, letter


@pytest.mark.parametrize("mount", ["alarms", "interests", "hooks"])
async def test_an_alarm_an_interest_and_a_hook_are_removed_once(mount: str) -> None:
    unit, clock = MemoryDatabase(), SystemClock()
    asked = Session("operator", Role.OPERATOR, "k", unit=unit)
    hooks = AgentHooks("a", unit, clock, lambda hook: "secret")
    files = Namespace(
        [
            Mount("/alarms", alarms_service(AgentAlarms("a", unit, clock, lambda: None)), Access.WRITE),
            Mount("/interests", interests_service(AgentInterests("a", unit, clock)), Access.WRITE),
            Mount("/hooks", hooks_service(hooks), Access.ADMIN),
        ]
    )
    await files.call("/alarms/new", b'{"id": "one", "after_ms": 9000}', asked)
    await files.call("/interests/new", b'{"id": "one", "event": "*"}', asked)
    await files.call("/hooks/new", b'{"name": "one"}', asked)
    (name,) = [one.name for one in await files.list(f"/{mount}", asked) if one.is_dir]
    with pytest.raises(Unsupported):
        await files.remove(f"/{mount}/new", asked)
    await files.remove(f"/{mount}/{name}", asked)
    with pytest.raises(NoSuchFile):
        await files.remove(f"/{mount}/{name}", asked)
    assert not [one for one in await files.list(f"/{mount}", asked) if one.is_dir]


async def test_a_dead_envelope_is_given_up_when_it_is_removed() -> None:
    one = desk(MemoryDatabase())
    files, asked = Namespace([Mount("/inbox", inbox_service(one.inbox()), Access.READ)]), one.operator("k")
    await one.unit.commit([letter("a", "m1"), Update("inbox", {"envelope_id": "m1"}, set={"state": "dead"})])
    with pytest.raises(AccessDenied):
        await files.remove("/inbox/deadletter/m1", Session("agent:a", Role.AGENT, "k", unit=one.unit))
    await files.remove("/inbox/deadletter/m1", asked)
    assert (await one.unit.select("inbox"))[0]["state"] == "discarded"
    with pytest.raises(NoSuchFile):
        await files.remove("/inbox/deadletter/m1", asked)
