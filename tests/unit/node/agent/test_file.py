"""An agent's files within one tick: the same tree from beginning to end."""

from fs.namespace import Access, Mount, Namespace
from node.agent.file import Files
from node.agent.replay.tape import LiveTape
from node.agent.tick.stage import Stage
from tests.shelf_part import Keep


def space(word: bytes) -> Namespace:
    keep = Keep()
    keep.files["word",] = word
    return Namespace([Mount("/keep", keep, Access.WRITE)])


async def test_a_tick_sees_the_tree_that_was_there_when_it_first_looked() -> None:
    trees = [space(b"first"), space(b"second")]
    files = Files(lambda agent: trees.pop(0), "a", "envelope", LiveTape(), Stage())
    assert await files.read("/keep/word") == b"first"
    assert [stat.name for stat in await files.list("/keep")] == ["word"]
    assert await files.read("/keep/word") == b"first"
    later = Files(lambda agent: trees.pop(0), "a", "another", LiveTape(), Stage())
    assert await later.read("/keep/word") == b"second"


async def test_what_a_tick_removes_renames_and_makes_is_asked_of_the_service() -> None:
    keep = Keep()
    keep.files["word",] = b"x"
    files = Files(lambda agent: Namespace([Mount("/keep", keep, Access.WRITE)]), "a", "e", LiveTape(), Stage())
    await files.mkdir("/keep/d")
    await files.rename("/keep/word", "/keep/d/word")
    assert keep.files == {(): None, ("d",): None, ("d", "word"): b"x"}
    await files.remove("/keep/d/word")
    assert keep.files == {(): None, ("d",): None}
