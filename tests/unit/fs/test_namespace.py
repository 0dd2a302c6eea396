from collections.abc import AsyncIterator

import orjson
import pytest

from fs.error import AccessDenied, BadPath, IsDirectory, NoSuchFile, NotDirectory, Unsupported
from fs.namespace import Access, Mount, Namespace, Verb, allowed
from fs.protocol import Record
from fs.session import Role, Session
from fs.tree import File, Folder, Tree
from tests.shelf_part import Keep

AGENT = Session("agent:a", Role.AGENT)
OPERATOR = Session("operator", Role.OPERATOR)
PUBLIC = Session("public", Role.PUBLIC)


def service(word: str = "x") -> Tree:
    written: list[bytes] = []

    async def read(session: Session) -> bytes:
        return written[-1] if written else word.encode()

    async def write(body: bytes, session: Session) -> None:
        written.append(body)

    async def call(body: bytes, session: Session) -> bytes:
        return body[::-1]

    async def watch(session: Session, after: int | None) -> AsyncIterator[Record]:
        for number in range((after or 0) + 1, 4):
            yield Record(number, str(number).encode(), "n")

    inner = Folder("inner", {"deep": File("deep", read=read)})
    return Tree(
        Folder(
            "a service",
            {
                "file": File("a file", read=read, write=write),
                "call": File("a call", call=call, max_bytes=8),
                "sign": File("signs", call=call),
                "stream": File("a stream", watch=watch),
                "inner": inner,
            },
        )
    )


def namespace(access: Access = Access.WRITE, **binds: str) -> Namespace:
    mounts = [
        Mount("/wallet", service("wallet"), access, "money", frozenset({"sign"})),
        Mount("/wallet2", service("wallet2"), Access.WRITE),
        Mount("/wallet/inner", service("mounted inside"), Access.READ),
        Mount("/deep/er", service("deeper"), Access.READ),
    ]
    return Namespace(mounts, {"/" + alias: target for alias, target in binds.items()})


async def test_the_longest_mount_answers_and_only_on_whole_names() -> None:
    space = namespace()
    assert await space.read("/wallet/file", AGENT) == b"wallet"
    assert await space.read("/wallet2/file", AGENT) == b"wallet2"
    assert await space.read("/wallet/inner/file", AGENT) == b"mounted inside"
    with pytest.raises(NoSuchFile):
        await space.read("/wall", AGENT)
    with pytest.raises(NoSuchFile):
        await space.read("/walletfile", AGENT)


async def test_listings_show_mounts_below_and_readmes() -> None:
    space = namespace(short="/wallet/inner")
    root = [stat.name for stat in await space.list("/", AGENT)]
    assert root == ["README", "deep", "mounts", "short", "wallet", "wallet2"]
    assert [stat.name for stat in await space.list("/deep", AGENT)] == ["README", "er"]
    inside = [stat.name for stat in await space.list("/wallet", AGENT)]
    assert {"README", "file", "inner"} <= set(inside)
    assert b"er/" in await space.read("/deep/README", AGENT)
    assert b"mounts" in await space.read("/README", AGENT)
    with pytest.raises(IsDirectory):
        await space.read("/deep", AGENT)
    with pytest.raises(NotDirectory):
        await space.list("/wallet/file", AGENT)
    with pytest.raises(NotDirectory):
        await space.list("/mounts", AGENT)
    with pytest.raises(NoSuchFile):
        await space.list("/nothing", AGENT)


async def test_every_directory_has_a_readme_that_names_its_entries() -> None:
    space = namespace()
    text = (await space.read("/wallet/README", AGENT)).decode()
    assert "file (read, write): a file" in text
    assert "call (call): a call" in text
    assert b"deep (read)" in await Tree(
        Folder("outer", {"inner": Folder("i", {"deep": File("d", read=_nothing)})})
    ).read(("inner", "README"), AGENT)


async def _nothing(session: Session) -> bytes:
    return b""


async def test_the_mount_table_is_a_file() -> None:
    table = orjson.loads(await namespace(Access.BUDGETED, short="/wallet").read("/mounts", AGENT))
    assert {"path": "/wallet", "access": "budgeted", "about": "money"} in table
    assert {"path": "/short", "bind": "/wallet"} in table


@pytest.mark.parametrize(
    ("access", "look", "write", "call"),
    [
        (Access.DISABLED, False, False, False),
        (Access.READ, True, False, False),
        (Access.WRITE, True, True, True),
        (Access.SIGN, True, False, False),
        (Access.BUDGETED, True, False, True),
        (Access.ADMIN, False, False, False),
    ],
)
async def test_access_is_enforced_at_the_mount(access: Access, look: bool, write: bool, call: bool) -> None:
    space = namespace(access)

    async def refused(what: object) -> bool:
        try:
            await what
        except AccessDenied:
            return True
        return False

    assert await refused(space.read("/wallet/file", AGENT)) is not look
    assert await refused(space.list("/wallet", AGENT)) is not look
    assert await refused(space.stat("/wallet/file", AGENT)) is not look
    assert await refused(anext(space.watch("/wallet/stream", AGENT, 0))) is not look
    assert await refused(space.write("/wallet/file", b"new", AGENT)) is not write
    assert await refused(space.call("/wallet/call", b"abc", AGENT)) is not call
    assert await refused(space.call("/wallet/call", b"abc", OPERATOR)) is (access is Access.DISABLED)
    assert await refused(space.read("/wallet/file", PUBLIC))


async def test_sign_only_calls_the_operations_on_its_list_and_no_others() -> None:
    space = namespace(Access.SIGN)
    assert await space.call("/wallet/sign", b"ab", AGENT) == b"ba"
    with pytest.raises(AccessDenied):
        await space.call("/wallet/call", b"ab", AGENT)


async def test_a_bind_lends_no_right() -> None:
    space = namespace(Access.READ, mine="/wallet", wallet3="/wallet/call")
    assert await space.read("/mine/file", AGENT) == b"wallet"
    with pytest.raises(AccessDenied):
        await space.write("/mine/file", b"new", AGENT)
    with pytest.raises(AccessDenied):
        await space.call("/wallet3", b"abc", AGENT)
    assert await space.call("/wallet3", b"abc", OPERATOR) == b"cba"


async def test_two_mounts_with_one_path_and_binds_of_binds_are_refused() -> None:
    with pytest.raises(BadPath):
        Namespace([Mount("/a", service(), Access.READ), Mount("/a", service(), Access.WRITE)])
    with pytest.raises(BadPath):
        namespace(a="/b", b="/wallet")
    with pytest.raises(BadPath):
        Namespace([Mount("/a/../b", service(), Access.READ)])


async def test_operations_that_a_file_lacks_say_so() -> None:
    space = namespace()
    for attempt in (
        space.read("/wallet/call", AGENT),
        space.write("/wallet/call", b"", AGENT),
        space.call("/wallet/file", b"", AGENT),
        space.call("/mounts", b"", AGENT),
        space.write("/README", b"", AGENT),
    ):
        with pytest.raises(Unsupported):
            await attempt
    with pytest.raises(Unsupported):
        await anext(space.watch("/wallet/file", AGENT))


async def test_a_body_over_the_files_limit_changes_nothing() -> None:
    space = namespace()
    with pytest.raises(Exception, match="longer than 8 bytes"):
        await space.call("/wallet/call", b"123456789", AGENT)
    assert await space.call("/wallet/call", b"12345678", AGENT) == b"87654321"


async def test_two_watchers_see_the_same_and_a_late_one_the_past() -> None:
    space = namespace()
    first = [record.id async for record in space.watch("/wallet/stream", AGENT, 0)]
    late = [record.id async for record in space.watch("/wallet/stream", AGENT, 2)]
    assert (first, late) == ([1, 2, 3], [3])


def test_nothing_is_public() -> None:
    for access in Access:
        mount = Mount("/a", service(), access)
        assert not any(allowed(mount, verb, ("file",), Role.PUBLIC) for verb in Verb)


def union(first: Access = Access.READ, second: Access = Access.WRITE) -> tuple[Keep, Keep, Namespace]:
    top, low = Keep(), Keep()
    top.files |= {("same",): b"top", ("one",): b"1", ("dir",): None, ("dir", "t"): b"t"}
    low.files |= {("same",): b"low", ("two",): b"2", ("dir",): None, ("dir", "l"): b"l"}
    mounts = [Mount("/top", top, first), Mount("/low", low, second)]
    return top, low, Namespace(mounts, {"/tools": ("/top", "/low")})


async def test_in_a_union_the_first_tree_with_a_name_answers_and_a_listing_shows_all() -> None:
    _, _, space = union()
    assert [stat.name for stat in await space.list("/tools", AGENT)] == ["dir", "one", "same", "two"]
    assert [stat.name for stat in await space.list("/tools/dir", AGENT)] == ["l", "t"]
    assert await space.read("/tools/same", AGENT) == b"top"
    assert await space.read("/tools/two", AGENT) == b"2"
    with pytest.raises(NoSuchFile):
        await space.read("/tools/three", AGENT)
    table = orjson.loads(await space.read("/mounts", AGENT))
    assert {"path": "/tools", "bind": "/top /low"} in table


async def test_what_is_new_in_a_union_goes_into_the_first_tree_that_may_be_written() -> None:
    top, low, space = union()
    await space.write("/tools/new", b"x", AGENT)
    await space.mkdir("/tools/made", AGENT)
    await space.rename("/tools/two", "/tools/three", AGENT)
    assert low.files["new",] == b"x"
    assert low.files["made",] is None
    assert low.files["three",] == b"2"
    with pytest.raises(AccessDenied):  # it is there, in a tree that is read-only: nothing is put over it
        await space.write("/tools/same", b"x", AGENT)
    with pytest.raises(AccessDenied):
        await space.remove("/tools/one", AGENT)
    await space.write("/tools/same", b"operator's", OPERATOR)
    assert (top.files["same",], low.files["same",]) == (b"operator's", b"low")


async def test_a_tree_of_a_union_that_a_caller_must_not_see_is_not_there_for_it() -> None:
    _, _, space = union(first=Access.ADMIN)
    assert await space.read("/tools/same", AGENT) == b"low"
    assert [stat.name for stat in await space.list("/tools", AGENT)] == ["dir", "same", "two"]
    with pytest.raises(NoSuchFile):
        await space.read("/tools/one", AGENT)
    assert await space.read("/tools/same", OPERATOR) == b"top"
    with pytest.raises(AccessDenied):
        await space.read("/tools/same", PUBLIC)


async def test_a_public_mount_can_be_looked_at_by_everybody_and_by_nobody_else_changed() -> None:
    keep = Keep()
    keep.files["f",] = b"x"
    space = Namespace([Mount("/hud", keep, Access.READ, public=True)], {"/door": "/hud"})
    assert await space.read("/hud/f", PUBLIC) == b"x"
    assert await space.read("/door/f", PUBLIC) == b"x"
    for doing in (
        space.write("/hud/f", b"", PUBLIC),
        space.call("/hud/f", b"", PUBLIC),
        space.remove("/hud/f", PUBLIC),
        space.mkdir("/hud/g", PUBLIC),
        space.rename("/hud/f", "/hud/g", PUBLIC),
        space.list("/", PUBLIC),
        space.read("/mounts", PUBLIC),
    ):
        with pytest.raises(AccessDenied):
            await doing
    closed = Namespace([Mount("/hud", keep, Access.DISABLED, public=True)])
    with pytest.raises(AccessDenied):
        await closed.read("/hud/f", PUBLIC)
