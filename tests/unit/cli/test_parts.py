import json

import pytest

from cli.command.market import _show_parts
from cli.output import Output

VIEW = {"parts": [{"at_ms": 1, "content": "once upon"}, {"at_ms": 2, "content": "a \x1b[31mtime"}]}


@pytest.mark.parametrize("json_mode", [True, False])
def test_each_part_of_a_result_is_shown_once_on_stderr(json_mode: bool, capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json_mode=json_mode)
    shown = _show_parts(out, {"parts": VIEW["parts"][:1]}, 0)
    shown = _show_parts(out, VIEW, shown)
    assert _show_parts(out, VIEW, shown) == 2
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    if json_mode:
        assert [json.loads(line)["part"] for line in lines] == ["once upon", "a \x1b[31mtime"]
    else:
        assert lines[0] == "once upon"
        assert "\x1b" not in said.err
