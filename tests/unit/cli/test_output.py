"""What is said, where, and with which exit code."""

import json

import pytest

from cli.output import ExitCode, NodeRefusal, Output, Problem, printable, problem_of, sat, usd
from core.error import BudgetExceeded, Conflict, InvalidInput, KeyReused, NotFound, Paused, Unavailable, Unpermitted
from node.error import AlreadyRunning, ConfigInvalid, HomeMissing


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InvalidInput("x"), ExitCode.USAGE),
        (NotFound("x"), ExitCode.DATA),
        (Unavailable("x"), ExitCode.UNAVAILABLE),
        (Conflict("x"), ExitCode.TEMPORARY),
        (BudgetExceeded("x"), ExitCode.REFUSED),
        (KeyReused("x"), ExitCode.REFUSED),
        (Paused("x"), ExitCode.REFUSED),
        (Unpermitted("x"), ExitCode.INTERNAL),
        (ConfigInvalid("x"), ExitCode.CONFIG),
        (HomeMissing("x"), ExitCode.CONFIG),
        (AlreadyRunning("x"), ExitCode.TEMPORARY),
    ],
)
def test_each_kind_of_error_has_its_exit_code(error, code):
    assert problem_of(error).exit_code is code


def test_an_error_without_a_known_status_is_internal():
    assert Problem("strange", "x", status=599).exit_code is ExitCode.INTERNAL


def test_a_problem_of_the_node_is_shown_as_the_node_told_it():
    problem = Problem("fs.not_found", "No such file.", status=404)
    assert problem_of(NodeRefusal(problem)) is problem


def test_a_failure_is_one_line_on_stderr(capsys):
    code = Output(json_mode=False).fail(Problem("a.b", "It\nfailed.", "Nothing was changed.", "Try again.", 503))
    shown = capsys.readouterr()
    assert code is ExitCode.UNAVAILABLE
    assert shown.out == ""
    assert shown.err == "vendo: It failed. Nothing was changed. Try again. [a.b]\n"


def test_a_failure_with_json_is_one_object_on_stdout(capsys):
    Output(json_mode=True).fail(Problem("a.b", "It failed.", "Nothing was changed.", "Try again."))
    shown = capsys.readouterr()
    assert shown.err == ""
    assert json.loads(shown.out) == {
        "error": {"code": "a.b", "message": "It failed.", "unchanged": "Nothing was changed.", "remedy": "Try again."}
    }


def test_long_lines_are_not_broken(capsys):
    Output(json_mode=False).note("word " * 100)
    assert capsys.readouterr().err.count("\n") == 1


def test_columns_are_not_cut_when_they_are_piped(capsys):
    wide = "x" * 150
    Output(json_mode=False).rows([], ("a", "b"), [(wide, "[bold]b[/bold]")], "nothing")
    shown = capsys.readouterr().out
    assert wide in shown
    assert "[bold]b[/bold]" in shown


def test_foreign_text_cannot_steer_the_terminal():
    assert printable("a\x1b[2Jb\rc\u202e\n\td") == "a\ufffd[2Jb\ufffdc\ufffd\n\td"


@pytest.mark.parametrize(("msat", "text"), [(0, "0 sat"), (21_000, "21 sat"), (1_500, "1.5 sat"), (-1, "-0.001 sat")])
def test_msat_are_shown_as_sat(msat, text):
    assert sat(msat) == text


def test_micro_usd_are_shown_as_dollars():
    assert usd(50_000) == "$0.050000"
    assert usd(-1_000_001) == "-$1.000001"
