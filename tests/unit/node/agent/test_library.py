"""What agents of a node can be made of, and the secrets that sign what is sent to those outside."""

from pathlib import Path

import pytest

from core.clock import SystemClock
from core.error import InvalidInput, NotFound
from core.unit import Insert
from fs.service.programs import programs_service
from fs.session import Role, Session
from node.agent.load.library import Library, for_replay
from node.agent.tick.limit import TickLimits
from node.storage.memory import MemoryDatabase
from relays.key import Keyring

WORDS = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
OPERATOR = Session("operator", Role.OPERATOR, "k")


def library(unit: MemoryDatabase, home: Path) -> Library:
    derive = Keyring(WORDS).derive
    return Library(unit, SystemClock(), TickLimits(), 4, home, lambda: "", derive, lambda: None)


def agent(name: str, program: str, config: str = "{}") -> Insert:
    row = {"name": name, "program": program, "pubkey": "ab" * 32, "status": "active", "config": config}
    return Insert("agent", {**row, "state_version": 1, "state": "{}", "created_at": 1})


async def test_a_secret_derives_from_the_nodes_words_the_agent_and_its_generation(tmp_path: Path) -> None:
    unit = MemoryDatabase()
    url = '"url": "https://example.org/"'
    await unit.commit([agent("a", "webhook", f"{{{url}}}"), agent("b", "webhook", f"{{{url}}}")])
    await unit.commit([agent("c", "webhook", f'{{{url}, "generation": 2}}'), agent("d", "buyer")])
    made = library(unit, tmp_path)
    secrets = {name: await made.secret(name) for name in ("a", "b", "c")}
    assert len(set(secrets.values())) == 3
    assert all(secret.startswith(b"whsec_") and len(secret) == 49 for secret in secrets.values())
    assert await library(unit, tmp_path / "other").secret("a") == secrets["a"], "a restore from the words has it again"
    assert repr(secrets["a"]) == "<secret>"
    with pytest.raises(InvalidInput):
        await made.secret("d")
    with pytest.raises(NotFound):
        await made.secret("e")


async def test_the_operators_files_list_programs_and_take_changed_ones_up(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    unit, healed = MemoryDatabase(), list[bool]()
    made = library(unit, tmp_path)

    async def heal() -> None:
        healed.append(True)

    made.on_reload(heal)
    tree = programs_service(made)
    assert [row["name"] for row in made.rows()] == ["buyer", "command", "webhook"]
    assert b'"buyer"' in await tree.read(("list",), OPERATOR)
    folder = tmp_path / "agents"
    folder.mkdir(mode=0o700)
    (folder / "mine.py").write_text("def (")
    (folder / "mine.py").chmod(0o600)
    with pytest.raises(NotFound, match="SyntaxError"):
        await tree.call(("reload",), b'{"name": "mine"}', OPERATOR)
    assert healed == []
    for body in (b"", b"{}", b'{"name": 1}', b'{"name": "x", "more": 1}', b"[]"):
        with pytest.raises(InvalidInput):
            await tree.call(("reload",), body, OPERATOR)


def test_to_look_at_programs_nothing_is_opened(tmp_path: Path) -> None:
    made = for_replay(tmp_path / "missing")
    assert list(made) == ["buyer", "command", "webhook"]
    assert made.check() == {}
