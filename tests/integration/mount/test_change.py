"""rm, mv, mkdir, rmdir: where the node allows them; and what no node allows."""

from tests.integration.mount.mount_part import Ground


def test_rm_removes(ground: Ground) -> None:
    ground.desk.notes = {"one": b"1", "two": b"2"}
    assert ground.sh("rm $D/notes/one && ls $D/notes").out == "README\ntwo\n"
    assert set(ground.desk.notes) == {"two"}
    assert "Operation not permitted" in ground.sh("rm -f $D/note").err
    assert ground.desk.note == b"first\n"


def test_mv_renames_and_takes_no_other_files_place(ground: Ground) -> None:
    ground.desk.notes = {"one": b"1", "two": b"2"}
    assert ground.sh("mv $D/notes/one $D/notes/three && cat $D/notes/three").out == "1"
    assert ground.desk.notes == {"two": b"2", "three": b"1"}
    assert "File exists" in ground.sh("mv -f $D/notes/two $D/notes/three").err
    assert ground.sh("mv $D/policy $D/policy2").code != 0
    assert ground.desk.notes == {"two": b"2", "three": b"1"}


def test_mkdir_and_rmdir(ground: Ground) -> None:
    assert ground.sh("mkdir $D/notes/box && ls -d $D/notes/box/ && rmdir $D/notes/box").code == 0
    assert ground.desk.folders == set()
    assert "Operation not permitted" in ground.sh("mkdir $D/box").err
    assert "Operation not permitted" in ground.sh("mkdir $M/box").err
    assert "File exists" in ground.sh("mkdir $D/notes").err


def test_what_is_the_nodes_cannot_be_changed(ground: Ground) -> None:
    for script in (
        "chmod 777 $D/note", "ln -s note $D/link", "ln $D/note $D/link", "mkfifo $D/pipe", "chown 12345 $D/note",
    ):  # fmt: skip
        ran = ground.sh(script)
        assert ran.code != 0, script
        assert "Operation not permitted" in ran.err, script
    assert ground.sh("touch -d 2001-01-01 $D/note").code == 0
    assert ground.desk.puts == []


def test_a_file_is_not_moved_to_another_agent(ground: Ground) -> None:
    ground.desk.notes = {"one": b"1"}
    ran = ground.sh("python3 -c 'import os, sys; os.rename(*sys.argv[1:])' $D/notes/one $M/agents/b/desk/notes/two")
    assert "Invalid cross-device link" in ran.err
