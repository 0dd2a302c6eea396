"""docs/reference/contract.md says what the command does, all of it and nothing else."""

import re
from pathlib import Path

import pytest
import typer.main

from cli.main import app
from cli.output import ExitCode
from node import config, home
from node.backup import memo
from node.http import token_file

TEXT = (Path(__file__).parents[2] / "docs/reference/contract.md").read_text(encoding="utf-8")
EVERYWHERE = {"--home", "--json", "--help"}


def commands() -> dict[str, object]:
    found = {}
    for name, command in typer.main.get_command(app).commands.items():
        for sub, leaf in getattr(command, "commands", {"": command}).items():
            found[f"{name} {sub}".strip()] = leaf
    return found


def sections() -> dict[str, tuple[str, str]]:
    """Command → (its arguments as written, its text)."""
    found = {}
    for heading, body in re.findall(r"^### `vendo ([^`]+)`\n(.*?)(?=^##)", TEXT, re.M | re.S):
        words = [word for word in heading.split() if word.islower()]
        found[" ".join(words)] = (heading[len(" ".join(words)) :].strip(), body)
    return found


COMMANDS, SECTIONS = commands(), sections()


def test_every_command_is_in_the_contract_and_nothing_else_is():
    assert set(SECTIONS) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_of_a_command_is_in_its_section_and_nothing_else_is(name):
    options = {
        option
        for part in COMMANDS[name].params
        if part.param_type_name == "option"
        for option in part.opts
        if option.startswith("--")
    } - EVERYWHERE
    assert set(re.findall(r"`(--[a-z-]+)", SECTIONS[name][1])) - EVERYWHERE == options


@pytest.mark.parametrize("name", COMMANDS)
def test_the_arguments_of_a_command_are_in_its_heading(name):
    arguments = [part for part in COMMANDS[name].params if part.param_type_name == "argument"]
    shown = [
        (part.metavar or part.name.upper()) if part.required else f"[{part.metavar or part.name.upper()}]"
        for part in arguments
    ]
    assert SECTIONS[name][0] == " ".join(shown)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_home_and_json(name):
    options = {option for part in COMMANDS[name].params for option in part.opts}
    assert "--json" in options
    assert "--home" in options or name in ("demo", "completion")


def test_the_table_of_exit_codes_is_that_of_the_code():
    table = {int(code): name for code, name in re.findall(r"^\| (\d+) \| ([A-Z]+) \|", TEXT, re.M)}
    assert table == {int(code): code.name for code in ExitCode}


def test_the_files_of_a_home_are_those_of_the_code():
    table = re.findall(r"^\| `([a-z.-]+)` \|", TEXT, re.M)
    files = [config.FILE, home.KEYS, home.TOKEN, home.CURL_AUTH, home.DATABASE, home.LOCK, home.CONTROL]
    assert sorted(table) == sorted([*files, token_file.FILE, memo.FILE])


def test_every_command_explains_itself():
    for name, command in COMMANDS.items():
        assert (command.help or "").strip().endswith((".", "65 if anything differs.")), name
