"""Looking: ls, cat, cp, find, grep -r and others, over files that have no size before they are read."""

import os
import subprocess
from pathlib import Path

from tests.integration.mount.mount_part import BIG, Ground, Hill


def test_ls_shows_what_is_there_and_what_can_be_done(ground: Ground) -> None:
    assert ground.run("ls", "-A", str(ground.place)).out.split() == [".refused", "README", "agents", "node"]
    assert ground.run("ls", str(ground.place / "agents")).out.split() == ["a", "b"]
    lines = ground.run("ls", "-l", "--numeric-uid-gid", str(ground.desk_path)).out.splitlines()[1:]
    assert {line.split()[-1]: line.split()[0] for line in lines} == {
        "README": "-r--------", "big": "-r--------", "ctl": "-rw-------", "locked": "----------", "new": "--w-------",
        "note": "-rw-------", "notes": "dr-x------", "policy": "-rw-------", "secret": "--w-------",
        "ticker": "-r--------",
    }  # fmt: skip
    assert {line.split()[2] for line in lines} == {str(os.getuid())}


def test_cat_reads_files_of_the_node_and_of_the_mount(ground: Ground) -> None:
    assert ground.sh("cat $D/note $M/node/desk/note").out == "first\nfirst\n"
    assert "agents/<name>/" in ground.sh("cat $M/README").out
    assert "policy (read, write): an object" in ground.sh("cat $D/README").out
    for name, error in {"none": "No such file", "notes": "Is a directory", "note/x": "Not a directory"}.items():
        assert error in ground.sh(f"cat $D/{name}").err
    for name in ("agents/c", "agents/node", "other", "agents/a/%41", "agents/a/desk/..%2f"):
        assert "No such file" in ground.sh(f"ls '$M/{name}'".replace("'", '"')).err


def test_a_content_in_pieces_is_copied_whole_and_read_at_any_place(ground: Ground) -> None:
    assert ground.sh("cp $D/big $S/big && wc -c < $D/big").out.strip() == str(len(BIG))
    assert (ground.scratch / "big").read_bytes() == BIG
    assert ground.sh("tail -n 1 $D/big; head -n 1 $D/big").out == "0399999\n0000000\n"
    with (ground.desk_path / "big").open("rb") as file:
        file.seek(8_000)
        assert file.read(8) == b"0001000\n"
    assert ground.sh("dd if=$D/big bs=8 skip=5 count=1 status=none").out == "0000005\n"


def test_what_is_open_stays_as_it_was(ground: Ground) -> None:
    ran = ground.sh("exec 3< $D/note; head -c 2 <&3; echo second > $D/note; cat <&3; cat $D/note", "bash")
    assert ran.out == "first\nsecond\n"


def test_find_and_grep_go_through_everything_and_end(ground: Ground) -> None:
    ground.log("needle")
    found = ground.run("find", str(ground.desk_path), "-type", "f").out.split()
    assert {Path(one).name for one in found} == {
        "README", "big", "ctl", "locked", "new", "note", "policy", "secret", "ticker"
    }  # fmt: skip
    assert ground.run("find", str(ground.desk_path), "-mindepth", "1", "-type", "d").out.split() == [
        str(ground.desk_path / "notes")
    ]
    ran = ground.run("grep", "-rsl", "needle", str(ground.agent))
    assert str(ground.agent / "logs/trace") in ran.out.split()
    assert "first" in ground.run("grep", "-r", "first", str(ground.desk_path / "note")).out


def test_a_long_directory_is_listed_whole(ground: Ground) -> None:
    ground.plane.many = 20_000
    names = ground.run("ls", "-U", str(ground.place / "agents/b/many")).out.split()
    assert len(set(names)) == len(names) == 20_001
    ground.plane.many = 0


def test_what_fails_inside_the_node_is_an_error_and_no_half_content(ground: Ground) -> None:
    ran = ground.run("cat", str(ground.agent / "odd/crash"))
    assert (ran.code, ran.out) == (1, "")
    assert "Input/output error" in ran.err
    assert "secret words" not in ran.err + (ground.scratch / "stderr").read_text()


def test_bytes_come_as_they_are(ground: Ground) -> None:
    assert (ground.agent / "odd/binary").read_bytes() == b"\xff\x00"


def test_another_user_sees_nothing(ground: Ground) -> None:
    nobody = {"user": 65534, "group": 65534, "extra_groups": []} if not os.getuid() else {}
    for place, can in ((ground.place.parent, True), (ground.place, not nobody)):
        ran = subprocess.run(["ls", str(place)], capture_output=True, text=True, **nobody)
        assert (ran.returncode == 0) is can
        assert can or "Permission denied" in ran.stderr


def test_access_says_what_may_be_done(ground: Ground) -> None:
    for name, can in {"note": "rw", "new": "w", "big": "r", "notes": "rx"}.items():
        said = ground.sh(f"cd $D; for one in r w x; do test -$one {name} && printf $one; done", "bash").out
        assert said == can, name


def test_a_node_that_is_away_is_told_and_found_again(ground: Ground) -> None:
    plane = ground.plane
    ground.down()
    try:
        for script in ("cat $D/note", "ls $D", "echo x | cat > $D/new", "rm $D/notes/one"):
            assert "Host is down" in ground.sh(script).err, script
        assert ground.sh("ls $M").out == "README\nagents\nnode\n"
    finally:
        fresh = Hill()
        fresh.desk = plane.desk
        ground.up(fresh)
    assert ground.sh("cat $D/note").out == "first\n"
    assert ground.sh("echo '{\"kind\": 1}' > $D/new").code == 0
    assert len(ground.desk.jobs) == 1
