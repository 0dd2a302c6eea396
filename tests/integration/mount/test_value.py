"""Files that are replaced: once, as a whole, and only if something was written and nobody died over it."""

import errno
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.mount.mount_part import SHELLS, Ground

shells = pytest.mark.parametrize("shell", SHELLS)


@shells
def test_what_a_shell_writes_is_there_when_it_goes_on(ground: Ground, shell: str) -> None:
    ran = ground.sh("echo '{\"limit\": 7}' > $D/policy && cat $D/policy", shell)
    assert (ran.code, ran.json) == (0, {"limit": 7})
    assert ground.desk.puts == [b'{"limit": 7}\n']


@shells
@pytest.mark.parametrize("how", ["echo '{}' > $D/policy", "printf '{}' > $D/policy", "echo '{}' | cat > $D/policy"])
def test_an_object_that_is_refused_is_the_shells_exit_code(ground: Ground, shell: str, how: str) -> None:
    assert ground.sh(how.replace("{}", '{"limit": "high"}'), shell).code != 0
    assert ground.desk.policy == b'{"limit": 1}\n'
    assert ground.desk.puts == []


@pytest.mark.parametrize("content", ["not JSON\n", '{"limit": "high"}\n', '{"limit": 5\n'])
def test_a_program_that_looks_at_close_sees_every_refusal(ground: Ground, content: str) -> None:
    (ground.scratch / "policy").write_text(content)
    for argv in ("cp $S/policy $D/policy", "cat $S/policy > $D/policy", "dd if=$S/policy of=$D/policy status=none"):
        ran = ground.sh(argv)
        assert ran.code != 0, argv
        assert "Invalid argument" in ran.err
    assert ground.desk.policy == b'{"limit": 1}\n'


def test_cp_copies_into_a_file_and_out_of_it(ground: Ground) -> None:
    (ground.scratch / "policy").write_text('{"limit": 9}')
    assert ground.sh("cp $S/policy $D/policy && cp $D/policy $S/back").code == 0
    assert (ground.scratch / "back").read_text() == '{"limit": 9}'


@shells
def test_nothing_happens_where_nothing_is_written(ground: Ground, shell: str) -> None:
    ground.sh(": > $D/note; : >> $D/note; false > $D/note; : <> $D/note; touch $D/note", shell)
    assert ground.desk.puts == []
    assert ground.sh("truncate -s 0 $D/note", shell).code == 0
    assert ground.desk.puts == [b""]


@shells
def test_pieces_of_one_process_take_effect_once(ground: Ground, shell: str) -> None:
    assert ground.sh("exec 3> $D/note; echo one >&3; echo two >&3; exec 3>&-; cat $D/note", shell).out == "one\ntwo\n"
    assert ground.desk.puts == [b"one\ntwo\n"]
    assert ground.sh("seq 1 30000 > $D/note", shell).code == 0
    assert len(ground.desk.puts) == 2
    assert ground.desk.note.endswith(b"\n30000\n")
    assert ground.sh("seq 1 100 | dd of=$D/note bs=7 status=none", shell).code == 0
    assert len(ground.desk.puts) == 3
    for script in (
        "(echo one; echo two) > $D/note", "for one in 1 2 3; do echo $one; done > $D/note",
        "{ echo one; echo two; } > $D/note",
    ):  # fmt: skip
        ground.desk.puts.clear()
        shown = ground.sh(f"{script}; cat $D/note", shell).out
        assert ground.desk.puts == [shown.encode()], script
        assert shown.count("\n") > 1


@shells
def test_what_several_programs_write_is_there_in_the_end(ground: Ground, shell: str) -> None:
    (ground.scratch / "part").write_text("part\n")
    for script in (
        "(cat $S/part; cat $S/part) > $D/note", "{ cat $S/part; echo part; } > $D/note",
        "exec 3> $D/note; cat $S/part >&3; cat $S/part >&3; exec 3>&-", "(cat $S/part; (echo part)) > $D/note",
    ):  # fmt: skip
        assert ground.sh(f"{script}; cat $D/note", shell).out == "part\npart\n", script


def test_white_space_after_an_object_is_not_a_second_effect(ground: Ground) -> None:
    with (ground.desk_path / "policy").open("wb", buffering=0) as file:
        file.write(b'{"limit"')
        assert ground.desk.puts == []
        file.write(b": 3}")
        assert ground.desk.puts == [b'{"limit": 3}']
        file.write(b"\n")
    assert ground.desk.puts == [b'{"limit": 3}']


@shells
def test_what_is_appended_follows_what_is_there(ground: Ground, shell: str) -> None:
    assert ground.sh("echo second >> $D/note && echo third >> $D/note && cat $D/note", shell).out == (
        "first\nsecond\nthird\n"
    )


def test_a_write_into_the_midst_keeps_the_rest(ground: Ground) -> None:
    with (ground.desk_path / "note").open("r+b") as file:
        file.seek(2)
        file.write(b"RS")
    assert ground.desk.note == b"fiRSt\n"
    with (ground.desk_path / "note").open("r+b") as file:
        assert file.seek(0, os.SEEK_END) == 6
        file.write(b"end")
    assert ground.desk.note == b"fiRSt\nend"
    assert ground.sh("printf XX | dd of=$D/note conv=notrunc bs=1 seek=1 status=none").code == 0
    assert ground.desk.note == b"fXXSt\nend"


def test_an_object_that_is_patched_takes_effect_once(ground: Ground) -> None:
    assert ground.sh("printf '\"limit\": 42}' | dd of=$D/policy conv=notrunc bs=1 seek=1 status=none").code == 0
    assert ground.desk.puts == [b'{"limit": 42}']


def test_fsync_takes_effect_and_the_close_after_it_does_not_again(ground: Ground) -> None:
    with (ground.desk_path / "note").open("wb", buffering=0) as file:
        file.write(b"synced")
        os.fsync(file.fileno())
        assert ground.desk.puts == [b"synced"]
    assert ground.desk.puts == [b"synced"]


def test_a_refused_content_is_told_once_and_leaves_the_file(ground: Ground) -> None:
    descriptor = os.open(ground.desk_path / "note", os.O_WRONLY | os.O_TRUNC)
    os.write(descriptor, b"a bad word")
    with pytest.raises(OSError) as caught:
        os.close(descriptor)
    assert caught.value.errno == errno.EINVAL
    assert ground.desk.note == b"first\n"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_a_process_that_is_killed_changes_nothing(ground: Ground, end: signal.Signals) -> None:
    code = (
        "import os, signal, sys; signal.signal(signal.SIGINT, signal.SIG_DFL);"
        "fd = os.open(sys.argv[1], os.O_WRONLY | os.O_TRUNC); os.write(fd, b'half');"
        "os.kill(os.getpid(), int(sys.argv[2]))"
    )
    ran = subprocess.run([sys.executable, "-S", "-c", code, str(ground.desk_path / "note"), str(int(end))])
    assert ran.returncode == -end
    assert (ground.desk_path / "note").read_bytes() == b"first\n"
    assert ground.sh("sleep 0.1; cat $D/note").out == "first\n"
    assert ground.desk.puts == []


@shells
def test_a_process_that_ends_without_closing_has_written(ground: Ground, shell: str) -> None:
    assert ground.sh("(echo one; echo two) > $D/note; cat $D/note", shell).out == "one\ntwo\n"
    code = "import os, sys; fd = os.open(sys.argv[1], os.O_WRONLY); os.write(fd, b'TWO'); os._exit(3)"
    subprocess.run([sys.executable, "-S", "-c", code, str(ground.desk_path / "note")])
    ground.until(lambda: ground.desk.note == b"TWO\ntwo\n", "it is written")


def test_a_large_content_goes_in_and_out_whole(ground: Ground) -> None:
    large = bytes(range(256)) * 20_000
    (ground.scratch / "large").write_bytes(large)
    assert ground.sh("cp $S/large $D/note && cmp $S/large $D/note && cat $D/note | cmp - $S/large").code == 0
    assert len(ground.desk.puts) == 1


def test_what_can_only_be_written_is_replaced_and_never_read(ground: Ground) -> None:
    assert ground.sh("echo hush > $D/secret").code == 0
    assert ground.desk.secret == b"hush\n"
    assert "Permission denied" in ground.sh("cat $D/secret").err
    assert ground.sh("echo more | cat >> $D/secret").code != 0
    assert ground.desk.secret == b"hush\n"


def test_what_can_only_be_read_is_not_written(ground: Ground) -> None:
    for name in ("desk/README", "desk/big", "desk/locked", "mounts", "logs/trace"):
        assert "Permission denied" in ground.sh(f"echo x > $M/agents/a/{name}").err
    assert "Permission denied" in ground.sh("echo x > $M/README").err


@shells
def test_a_new_file_is_made_by_its_first_content(ground: Ground, shell: str) -> None:
    ran = ground.sh("echo hello > $D/notes/one && cat $D/notes/one && ls $D/notes", shell)
    assert ran.out == "hello\nREADME\none\n"
    assert ground.desk.puts == [b"hello\n"]
    (ground.scratch / "two").write_text("two")
    assert ground.sh("cp $S/two $D/notes/ && cat $D/notes/two", shell).out == "two"
    ground.sh("touch $D/notes/none", shell)
    assert set(ground.desk.notes) == {"one", "two"}


def test_a_new_file_that_the_node_does_not_take_is_refused(ground: Ground) -> None:
    (ground.scratch / "copy").write_text("x")
    for place in ("$D/notes/.one.swp", "$D/other", "$M/agents/a/other", "$M/other", "$M/agents/other"):
        assert ground.sh(f"cp $S/copy {place}").code != 0, place
        assert ground.sh(f"test -e {place}").code != 0, place
    assert ground.desk.notes == {}


def test_an_editor_that_writes_beside_and_renames_is_refused_and_changes_nothing(ground: Ground) -> None:
    ground.desk.notes["one"] = b"hello\n"
    assert ground.sh("sed -i s/hello/bye/ $D/notes/one").code != 0
    assert ground.sh("sed -i s/1/2/ $D/policy").code != 0
    assert ground.desk.notes == {"one": b"hello\n"}
    assert ground.desk.policy == b'{"limit": 1}\n'
