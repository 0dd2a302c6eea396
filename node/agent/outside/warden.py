"""Stands between the node and an agent's command, and sees to it that nothing of the command outlives the other two.

    python -I -S warden.py LIFELINE ARGV...

Run as a script, so it imports nothing of ours. It starts ARGV in a session and process group of its own, on the pipes
that it was given. LIFELINE is the number of a pipe's end; the node alone has the other one. `t` on it asks the group to
end (SIGTERM); its end of file, which is also what a killed node leaves, kills. When the command has ended, whatever it
has started is killed too: on Linux the warden adopts what was orphaned (PR_SET_CHILD_SUBREAPER), so a process that left
the group does not get away.

It exits as a shell would: with the command's code, 128 + n if signal n ended it, 126 or 127 if it could not be started.
"""

import ctypes
import os
import select
import signal
import sys
import time
from collections.abc import Iterator

CANNOT_RUN, NOT_FOUND, BY_SIGNAL = 126, 127, 128
_LINUX = sys.platform == "linux"
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_SET_CHILD_SUBREAPER = 1, 4, 36
_SWEEP_S, _PAUSE_S = 5.0, 0.005
_TAKEN = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)  # they are for the command; the warden ends with its lifeline


def _prctl(option: int, value: int) -> None:
    if _LINUX:
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


def _become(argv: list[str], lifeline: int, parent: int) -> None:
    """The child's way to the command. Does not return."""
    code = CANNOT_RUN
    try:
        os.setsid()
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(CANNOT_RUN)
        for number in (*_TAKEN, signal.SIGPIPE, signal.SIGCHLD):
            signal.signal(number, signal.SIG_DFL)
        os.close(lifeline)
        os.execvp(argv[0], argv)  # noqa: S606 - a list of arguments, and no shell
    except OSError as error:
        code = NOT_FOUND if isinstance(error, FileNotFoundError) else CANNOT_RUN
        os.write(2, f"{argv[0]} cannot be started: {error.strerror}\n".encode())
    finally:
        os._exit(code)


def _parent(pid: int) -> int:
    """The parent of a process, 0 if it has ended."""
    try:
        handle = os.open(f"/proc/{pid}/stat", os.O_RDONLY)
    except OSError:
        return 0
    try:
        return int(os.read(handle, 4_096).rpartition(b")")[2].split()[1])
    except OSError:
        return 0
    finally:
        os.close(handle)


def _descendants() -> Iterator[int]:
    """Every process below this one, as /proc has it now."""
    children: dict[int, list[int]] = {}
    with os.scandir("/proc") as folders:
        pids = [int(folder.name) for folder in folders if folder.name.isdigit()]
    for pid in pids:
        children.setdefault(_parent(pid), []).append(pid)
    found = list(children.get(os.getpid(), []))
    while found:
        pid = found.pop()
        found += children.get(pid, [])
        yield pid


def _kill(pids: Iterator[int]) -> None:
    for pid in pids:
        try:
            os.kill(pid, signal.SIGKILL)
        except OSError:
            continue  # it has just ended


def _sweep() -> None:
    """Kill what is left below, until nothing is; what cannot be killed is given up after a while."""
    end = time.monotonic() + _SWEEP_S
    while time.monotonic() < end:
        if _LINUX:
            _kill(_descendants())
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(_PAUSE_S)


def _kill_group(group: int) -> None:
    try:
        os.killpg(group, signal.SIGKILL)
    except OSError:
        return  # nobody is in it any more


def _ended(child: int) -> int | None:
    """The exit code of the command, if it has ended; others that ended are forgotten."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return CANNOT_RUN
        if pid == 0:
            return None
        if pid == child:
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else BY_SIGNAL - code


def _watch(child: int, lifeline: int, wakeup: int) -> int:
    """Until the command has ended, or must."""
    while True:
        ready, _, _ = select.select([lifeline, wakeup], [], [])
        if wakeup in ready:
            os.read(wakeup, 4_096)
            if (code := _ended(child)) is not None:
                return code
        if lifeline in ready:
            if os.read(lifeline, 1) != b"t":
                _kill_group(child)
                return BY_SIGNAL + signal.SIGKILL
            try:
                os.killpg(child, signal.SIGTERM)
            except OSError:
                continue  # it has ended, and the next turn of the loop sees that


def _start(argv: list[str], lifeline: int) -> int:
    """The command's pid, once it leads a group of its own."""
    begun, begins = os.pipe()  # closed by exec
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        _become(argv, lifeline, parent)
    os.close(begins)
    os.read(begun, 1)
    os.close(begun)
    return child


def main(arguments: list[str]) -> int:
    """Run one command; its exit code."""
    lifeline, argv = int(arguments[0]), arguments[1:]
    os.set_inheritable(lifeline, False)
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    _prctl(_PR_SET_DUMPABLE, 0)  # its environment has the turn's token too, and its pipes are nobody else's
    for number in _TAKEN:
        signal.signal(number, signal.SIG_IGN)
    wakeup, wakes = os.pipe()
    os.set_blocking(wakes, False)
    signal.set_wakeup_fd(wakes)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    child = _start(argv, lifeline)
    nothing = os.open(os.devnull, os.O_RDWR)
    for pipe in (0, 1, 2):
        os.dup2(nothing, pipe)  # the pipes are the command's alone: where it closes one, the node sees that
    code = _watch(child, lifeline, wakeup)
    if not _LINUX:
        _kill_group(child)
    _sweep()
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
