import orjson
import pytest

from core.error import InvalidInput, KeyReused
from core.unit import Update
from fs.error import AccessDenied, NoSuchFile
from fs.namespace import Access, Mount, Namespace
from fs.service.inbox import Letter, inbox_service, read_letter
from fs.session import Role, Session
from node.storage.memory import MemoryDatabase
from tests.integration.agent.inbox_part import Desk, agent_row, desk, letter


@pytest.mark.parametrize(
    ("body", "read"),
    [
        (b"hello", Letter("hello")),
        ("grüße 🎉".encode(), Letter("grüße 🎉")),
        (b'{"text":"hi"}', Letter("hi")),
        (b' {"text":"hi","priority":-5}', Letter("hi", -5)),
        (b'{"text":"hi","expires_at":9,"seq":0,"reply_to":"e"}', Letter("hi", 0, 9, 0, "e")),
        (b'{"text":"hi","priority":null,"seq":null}', Letter("hi")),
        (b"[1]", Letter("[1]")),
        (b'{"message":"hi"}', Letter('{"message":"hi"}')),
    ],
)
def test_a_message_is_text_or_an_object_with_a_text(body: bytes, read: Letter) -> None:
    assert read_letter(body) == read


@pytest.mark.parametrize(
    "body",
    [
        b"", b" \n", b"\xff", b"{", b"{}", b'{"text":1}', b'{"text":""}', b'{"text":"x","to":"y"}',
        b'{"text":"x","priority":101}', b'{"text":"x","priority":-101}', b'{"text":"x","priority":true}',
        b'{"text":"x","priority":"1"}', b'{"text":"x","priority":1.0}', b'{"text":"x","seq":-1}',
        b'{"text":"x","seq":9007199254740992}', b'{"text":"x","expires_at":1e9}', b'{"text":"x","reply_to":1}',
        b'{"text":"x","reply_to":"\\u0000"}',
        b'{"text":"x","reply_to":"' + b"x" * 201 + b'"}',
    ],
)  # fmt: skip
def test_what_is_no_message_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidInput):
        read_letter(body)


def tree(one: Desk) -> Namespace:
    return Namespace([Mount("/inbox", inbox_service(one.inbox()), Access.READ)])


async def test_a_message_is_left_once_however_often_it_is_posted() -> None:
    one = desk(MemoryDatabase())
    asked, files = one.operator("k"), tree(one)
    first = orjson.loads(await files.call("/inbox", b'{"text":"hi","priority":3,"seq":7}', asked))
    assert orjson.loads(await files.call("/inbox", b"hi", asked)) == first
    with pytest.raises(KeyReused):
        await files.call("/inbox", b"ho", asked)
    (row,) = await one.unit.select("inbox")
    assert (row["priority"], row["seq"], row["sender"], row["cause"]) == (3, 7, "operator", "message")
    blank = {"state": "done", "payload": "", "ended_at": 1}
    await one.unit.commit([Update("inbox", {"n": row["n"]}, set=blank)])
    assert orjson.loads(await files.call("/inbox", b"hi", asked)) == first, "also when its payload is gone"


async def test_whoever_posts_is_told_what_became_of_it() -> None:
    one = desk(MemoryDatabase(), max_depth=1, dead_letter_max=1)
    files = tree(one)
    told = [orjson.loads(await files.call("/inbox", b"hi", one.operator(f"k{n}")))["status"] for n in range(3)]
    assert told == ["queued", "dead", "dropped"]
    again = [orjson.loads(await files.call("/inbox", b"hi", one.operator(f"k{n}")))["status"] for n in range(3)]
    assert again == told


async def test_the_dead_letter_is_a_folder_of_envelopes_to_replay_or_discard() -> None:
    one = desk(MemoryDatabase())
    files, asked = tree(one), one.operator("k")
    await one.unit.commit([letter("a", "m1"), Update("inbox", {"envelope_id": "m1"}, set={"state": "dead"})])
    names = {entry.name: entry.is_dir for entry in await files.list("/inbox/deadletter", asked)}
    assert names == {"README": False, "replay": False, "discard": False, "m1": True}
    assert orjson.loads(await files.read("/inbox/deadletter/m1", asked))["envelope_id"] == "m1"
    with pytest.raises(NoSuchFile):
        await files.read("/inbox/m1", asked)
    assert orjson.loads(await files.call("/inbox/deadletter/m1/replay", b"", asked))["state"] == "new"
    with pytest.raises(NoSuchFile):
        await files.read("/inbox/deadletter/m1", asked)
    assert orjson.loads(await files.call("/inbox/deadletter/m1/replay", b"", asked))["state"] == "new"
    for path in ("/inbox/deadletter/nobody/replay", "/inbox/deadletter/nobody"):
        with pytest.raises(NoSuchFile):
            await files.call(path, b"", asked)


async def test_what_the_operator_may_do_the_agent_may_only_look_at() -> None:
    one = desk(MemoryDatabase())
    files, agent = tree(one), Session("agent:a", Role.AGENT, "k", unit=one.unit)
    await one.unit.commit([agent_row("a"), letter("a", "m1")])
    assert orjson.loads(await files.read("/inbox/overflow", agent))["max_depth"] == 1_000
    with pytest.raises(AccessDenied):
        await files.write("/inbox/overflow", b'{"max_depth":1}', agent)
    for path in ("/inbox", "/inbox/new", "/inbox/deadletter/replay", "/inbox/deadletter/m1/discard"):
        with pytest.raises(AccessDenied):
            await files.call(path, b"x", agent)
    await files.write("/inbox/overflow", b'{"max_depth":1,"policy":"reject_new"}', one.operator())
    assert orjson.loads(await files.read("/inbox/overflow", agent))["policy"] == "reject_new"
    for wrong in (b"", b"[]", b'{"max_depth":"1"}', b'{"policy":1}', b'{"depth":1}'):
        with pytest.raises(InvalidInput):
            await files.write("/inbox/overflow", wrong, one.operator())
