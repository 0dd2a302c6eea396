"""Files that are called: one record per write(2), judged there, by what shells and programs really do."""

import errno
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.integration.mount.mount_part import SHELLS, Ground

shells = pytest.mark.parametrize("shell", SHELLS)
# One write(2) of what a pipe brings, however it was written into it.
WHOLE = "dd bs=1M iflag=fullblock status=none"
GOOD = '{"kind": 5050, "input": "hello"}'


@shells
@pytest.mark.parametrize(
    "script",
    [
        "echo '{}' > $D/new",
        "echo '{}' >> $D/new",
        "printf '%s' '{}' > $D/new",
        "printf '%s\\n' '{}' > $D/new",
        "echo '{}' > $S/record; cat $S/record > $D/new",
        "echo '{}' > $S/record; cp $S/record $D/new",
        "echo '{}' > $S/record; dd if=$S/record of=$D/new bs=1M status=none",
        "echo '{}' | tee $D/new",
        "cat > $D/new <<'END'\n{}\nEND",
        "exec 3> $D/new; echo '{}' >&3; exec 3>&-",
    ],
)
def test_one_record_is_one_job_and_exit_code_0(ground: Ground, shell: str, script: str) -> None:
    ran = ground.sh(script.replace("{}", GOOD), shell)
    assert (ran.code, ran.err) == (0, "")
    assert ground.desk.jobs == [json.loads(GOOD)]


@shells
@pytest.mark.parametrize(
    ("record", "error"),
    [
        ("not JSON", errno.EINVAL),
        ('{"kind": "five"}', errno.EINVAL),
        ('{"kind": 5050', errno.EINVAL),
        ('{"kind": 402}', errno.EDQUOT),
        ('{"kind": 503}', errno.EBUSY),
        ("", errno.EINVAL),
    ],
)
def test_what_is_refused_is_the_shells_exit_code_and_no_job(
    ground: Ground, shell: str, record: str, error: int
) -> None:
    for script in (f"echo '{record}' > $D/new", f"echo '{record}' >> $D/new", f"echo '{record}' | cat > $D/new"):
        ran = ground.sh(script, shell)
        assert ran.code != 0, script
        if "|" in script or shell == "bash":  # dash says "I/O error" to all of them
            assert os.strerror(error) in ran.err, script
    assert ground.desk.jobs == []


@shells
def test_two_records_in_two_writes_are_two_jobs(ground: Ground, shell: str) -> None:
    assert ground.sh(f"(echo '{GOOD}'; echo '{GOOD}') > $D/new", shell).code == 0
    assert len(ground.desk.jobs) == 2
    assert len(set(ground.desk.keys)) == 2


@shells
def test_a_refused_record_does_not_spoil_the_next_one(ground: Ground, shell: str) -> None:
    ran = ground.sh(f"exec 3> $D/new; echo bad >&3 || echo no; echo '{GOOD}' >&3 && echo yes", shell)
    assert ran.out == "no\nyes\n"
    assert len(ground.desk.jobs) == 1


@shells
def test_a_record_in_parts_is_refused_and_is_no_job(ground: Ground, shell: str) -> None:
    ran = ground.sh(f"echo '{GOOD}' > $S/record; dd if=$S/record of=$D/new bs=10 status=none", shell)
    assert ran.code != 0
    assert ground.desk.jobs == []


@shells
@pytest.mark.parametrize("size", [4_090, 9_000, 200_000])
def test_a_long_record_is_one_job(ground: Ground, shell: str, size: int) -> None:
    (ground.scratch / "long").write_text(json.dumps({"kind": 1, "input": "x" * size}))
    assert ground.sh("cat $S/long > $D/new", shell).code == 0
    assert ground.sh("cp $S/long $D/new", shell).code == 0
    assert [len(job["input"]) for job in ground.desk.jobs] == [size] * 2
    assert ground.sh(f"cat $S/long | {WHOLE} > $D/new", shell).code == 0
    assert [len(job["input"]) for job in ground.desk.jobs] == [size] * 3


@shells
def test_a_pipe_alone_hands_on_64_kib_at_most(ground: Ground, shell: str) -> None:
    (ground.scratch / "long").write_text(json.dumps({"kind": 1, "input": "x" * 200_000}))
    assert ground.sh("cat $S/long | cat > $D/new", shell).code != 0
    assert ground.desk.jobs == []


def test_bash_cuts_what_its_own_echo_writes_and_dash_does_not(ground: Ground) -> None:
    (ground.scratch / "long").write_text(json.dumps({"kind": 1, "input": "x" * 9_000}))
    (ground.scratch / "lines").write_text(json.dumps({"kind": 1, "input": "x"}, indent=1))
    for name in ("long", "lines"):
        assert ground.sh(f'echo "$(cat $S/{name})" > $D/new', "bash").code != 0
        assert ground.desk.jobs == []
        assert ground.sh(f'echo "$(cat $S/{name})" > $D/new', "dash").code == 0
        assert ground.sh(f'echo "$(cat $S/{name})" | {WHOLE} > $D/new', "bash").code == 0
        assert len(ground.desk.jobs) == 2
        ground.desk.jobs.clear()


def test_a_record_that_the_kernel_would_cut_is_refused_whole(ground: Ground) -> None:
    descriptor = os.open(ground.desk_path / "ctl", os.O_WRONLY)
    try:
        for size in (1 << 20, (1 << 20) + 1, 3 << 20):
            with pytest.raises(OSError) as caught:
                os.write(descriptor, b"x" * size)
            assert caught.value.errno == errno.EFBIG
        assert ground.desk.calls == []
        assert os.write(descriptor, b"x" * 1_000_000) == 1_000_000
    finally:
        os.close(descriptor)
    assert [len(call) for call in ground.desk.calls] == [1_000_000]


@shells
def test_nothing_is_called_by_opening_and_closing(ground: Ground, shell: str) -> None:
    assert ground.sh(": > $D/ctl; : >> $D/ctl; truncate -s 0 $D/ctl; touch $D/ctl; true < $D/ctl", shell).code == 0
    assert ground.desk.calls == []


@shells
def test_an_empty_line_calls_with_nothing_and_one_newline_is_not_part_of_a_record(ground: Ground, shell: str) -> None:
    ran = ground.sh(
        "echo > $D/ctl; echo word > $D/ctl; printf 'a\\n\\n' | cat > $D/ctl; exec 3> $D/ctl; echo >&3; echo >&3", shell
    )
    assert ran.code == 0
    assert ground.desk.calls == [b"", b"word", b"a\n", b"", b""]


def test_a_newline_in_a_write_of_its_own_ends_the_record_before(ground: Ground) -> None:
    with (ground.desk_path / "ctl").open("wb", buffering=0) as file:
        for piece in (b"one", b"\n", b"two", b"\n", b"\n"):
            assert file.write(piece) == len(piece)
    assert ground.desk.calls == [b"one", b"two", b""]


@shells
def test_the_answer_is_read_where_the_record_was_written(ground: Ground, shell: str) -> None:
    ran = ground.sh(f"exec 3<> $D/new; echo '{GOOD}' >&3; cat <&3; echo '{GOOD}' >&3; cat <&3; cat <&3", shell)
    assert [json.loads(one) for one in ran.out.replace("}", "}\0").split("\0")[:-1]] == [{"job_id": 1}, {"job_id": 2}]
    assert ground.sh("exec 3<> $D/ctl; cat <&3; echo x >&3; cat <&3", shell).out == "as it was\ncalled\n"


def test_a_file_that_is_only_called_cannot_be_read(ground: Ground) -> None:
    assert "Permission denied" in ground.run("cat", str(ground.desk_path / "new")).err
    assert ground.run("cat", str(ground.desk_path / "ctl")).out == "as it was\n"


def test_who_is_killed_after_the_write_has_called_once(ground: Ground) -> None:
    code = "import os, sys; os.write(1, b'record'); os.kill(os.getpid(), 9)"
    with (ground.desk_path / "ctl").open("wb", buffering=0) as file:
        ran = subprocess.run([sys.executable, "-S", "-c", code], stdout=file)
    assert ran.returncode == -signal.SIGKILL
    assert ground.desk.calls == [b"record"]


def test_the_reason_of_a_refusal_can_be_read(ground: Ground) -> None:
    ground.sh("echo '{\"kind\": 402}' > $D/new")
    last = ground.run("tail", "-n", "1", str(ground.place / ".refused")).out
    assert "write /agents/a/desk/new: EDQUOT: The budget does not cover this." in last
    assert last.endswith("[budget.exceeded]\n")
    assert "[budget.exceeded]" in (ground.scratch / "stderr").read_text()
