"""The mount's HTTP: a connection that breaks is no second effect, and a token goes to nobody but the node."""

import errno
import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.mount.wire import Wire

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Scripted:
    """A listener that answers each connection as it is told; what it was sent."""

    def __init__(self, folder: Path, *answers: list[bytes | None]) -> None:
        self.requests: list[bytes] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._answers = answers
        (folder / "token").write_text("token")
        told = {"url": f"http://127.0.0.1:{self._listener.getsockname()[1]}", "pid": os.getpid()}
        (folder / "control.json").write_text(json.dumps(told))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        for answers in self._answers:
            connection, _ = self._listener.accept()
            with connection:
                for answer in answers:
                    self.requests.append(_request(connection))
                    if answer is None:
                        break
                    connection.sendall(answer)
        self._listener.close()

    def keys(self) -> list[str]:
        heads = [request.decode().split("\r\n\r\n")[0] for request in self.requests]
        return [line.split(": ")[1] for head in heads for line in head.split("\r\n") if line.startswith("Idempotency-")]


def _request(connection: socket.socket) -> bytes:
    got = b""
    while True:
        head, end, body = got.partition(b"\r\n\r\n")
        length = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")]
        if end and len(body) >= int((length or [b"0"])[0]):
            return got
        got += connection.recv(65_536)


def test_a_call_whose_connection_broke_is_sent_once_more_under_the_same_key(tmp_path: Path) -> None:
    node = Scripted(tmp_path, [None], [OK, OK])
    wire = Wire(tmp_path)
    assert wire.call("/agents/a/new", b"one") == b"ok"
    assert wire.call("/agents/a/new", b"one") == b"ok"
    first, again, other = node.keys()
    assert first == again != other


@pytest.mark.parametrize(
    ("ask", "sent"),
    [
        (lambda wire: wire.call("/agents/a/new", b"one"), 2),
        (lambda wire: wire.change("DELETE", "/agents/a/one"), 1),
        (lambda wire: wire.change("MOVE", "/agents/a/one", "/agents/a/two"), 1),
    ],
)
def test_an_answer_that_is_lost_for_good_is_an_input_output_error(
    tmp_path: Path, ask: Callable[[Wire], object], sent: int
) -> None:
    node = Scripted(tmp_path, [None], [None], [OK])
    with pytest.raises(OSError) as caught:
        ask(Wire(tmp_path))
    assert caught.value.errno == errno.EIO
    assert len(node.requests) == sent
    assert len(set(node.keys())) == 1


def test_a_node_that_went_after_it_was_asked_may_have_done_it(tmp_path: Path) -> None:
    Scripted(tmp_path, [None])
    with pytest.raises(OSError) as caught:
        Wire(tmp_path).call("/agents/a/new", b"one")
    assert caught.value.errno == errno.EIO


def test_connections_are_kept_and_a_closed_one_is_not_used(tmp_path: Path) -> None:
    node = Scripted(tmp_path, [OK, OK, OK], [OK])
    wire = Wire(tmp_path)
    for _ in range(4):
        assert wire.read("/agents/a/one") == b"ok"
    assert len(node.requests) == 4


def test_the_token_is_not_sent_to_who_listens_on_the_port_of_a_dead_node(tmp_path: Path) -> None:
    node = Scripted(tmp_path, [OK])
    told = json.loads((tmp_path / "control.json").read_text())
    (tmp_path / "control.json").write_text(json.dumps({**told, "pid": 2**22 - 1}))
    with pytest.raises(OSError) as caught:
        Wire(tmp_path).read("/agents/a/one")
    assert caught.value.errno == errno.EHOSTDOWN
    assert node.requests == []


def test_who_only_looks_waits_when_it_was_too_often(tmp_path: Path) -> None:
    slow = b"HTTP/1.1 429 Too Many Requests\r\nRetry-After: 0\r\nContent-Length: 0\r\n\r\n"
    Scripted(tmp_path, [slow, OK, slow, OK])
    wire = Wire(tmp_path)
    assert wire.read("/agents/a/one") == b"ok"
    with pytest.raises(OSError) as caught:
        wire.call("/agents/a/new", b"one")
    assert caught.value.errno == errno.EAGAIN
