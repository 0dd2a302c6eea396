"""What the pages for authors of agents show runs as it stands there."""

import asyncio
import os
import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from node.agent.load.source import load_file
from node.agent.outside.clerk import _CALLS
from tests.integration.agent.outside_part import SECRET, outskirts
from tests.market_part import free_port

PAGES = Path(__file__).parents[2] / "docs" / "how-to"


def blocks(page: str, language: str) -> list[str]:
    """The code on a page, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", (PAGES / page).read_text(), re.M | re.S)


def test_the_program_and_its_test_run(tmp_path: Path) -> None:
    folder = tmp_path / "agents"
    tmp_path.chmod(0o700)
    folder.mkdir(mode=0o700)
    program, test = blocks("write-an-agent.md", "python")
    (folder / "counter.py").write_text(program)
    (folder / "counter.py").chmod(0o600)
    module = ModuleType("test_counter")
    module.__file__ = str(folder / "test_counter.py")
    exec(test, module.__dict__)
    ran = [value() for name, value in list(vars(module).items()) if name.startswith("test_")]
    assert len(ran) == 1
    counter = load_file(folder / "counter.py")
    assert counter.migrate(1, {"count": 3}) == {"total": 3}


async def test_the_receiver_that_needs_a_while_commits(tmp_path: Path) -> None:
    (source,) = blocks("external-agent.md", "python")
    (tmp_path / "later.py").write_text(source)
    port = free_port()
    async with outskirts(tmp_path) as (node, _):
        process = await asyncio.create_subprocess_exec(
            sys.executable, str(tmp_path / "later.py"), str(port), env={**os.environ, "SECRET": SECRET.format("a", 1)},
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            assert process.stdout is not None
            assert await asyncio.wait_for(process.stdout.readline(), 20) == b"listening\n"
            await node.webhook_agent(url=f"http://127.0.0.1:{port}/")
            assert (await node.ended("initialize"))["state"] == "done"
            assert (await node.ended(await node.say("hello")))["state"] == "done"
            assert await node.state() == {"seen": 2}
            assert await node.trace("reply") == [{"goals": 0}, {"goals": 1}]
        finally:
            process.kill()
            await process.wait()


async def test_the_diary_is_kept(tmp_path: Path) -> None:
    (source,) = blocks("external-agent.md", "sh")
    path = tmp_path / "diary.sh"
    path.write_text(source)
    path.chmod(0o700)
    async with outskirts(tmp_path) as (node, _):
        await node.command_agent(str(path))
        assert (await node.ended("initialize"))["state"] == "done"
        assert (await node.ended(await node.say("hello")))["state"] == "done"
        assert [one["line"] for one in await node.trace("stdout")] == [
            "the diary has 1 entries", "the diary has 2 entries",
        ]  # fmt: skip
        assert len((tmp_path / "work" / "a" / "diary.jsonl").read_text().splitlines()) == 2
        assert [row["cron"] for row in await node.unit.select("alarm")] == ["0 6 * * *"]


@pytest.mark.parametrize("name", [*_CALLS, "state", "memory", "commit", "abort"])
def test_everything_that_a_turn_takes_is_on_the_page(name: str) -> None:
    assert f"/turn/{name}" in (PAGES / "external-agent.md").read_text()


def test_the_secrets_that_settings_name_on_the_page_are_named_rightly() -> None:
    from node.agent.outside.command import CommandConfig
    from node.agent.outside.webhook import WebhookConfig
    from node.config import parse, render
    from relays.key import Key

    (block,) = blocks("goals-memory-secrets.md", "toml")
    base = render(owner=Key.generate().npub, relays=("ws://127.0.0.1:1",), mints=(), port=0)
    diary, far = parse(base + block).agent[-2:]
    assert CommandConfig.model_validate(diary.config).env["API_KEY"] == "secret:openai"
    assert WebhookConfig.model_validate(far.config).headers == {"Authorization": "secret:openai"}


def test_the_settings_on_the_page_are_settings() -> None:
    from node.agent.outside.command import CommandConfig
    from node.agent.outside.webhook import WebhookConfig
    from node.config import parse, render
    from relays.key import Key

    base = render(owner=Key.generate().npub, relays=("ws://127.0.0.1:1",), mints=(), port=0)
    far, diary = (parse(base + block).agent[-1] for block in blocks("external-agent.md", "toml"))
    assert WebhookConfig.model_validate(far.config).url == "https://agents.example.com/far"
    assert CommandConfig.model_validate(diary.config).argv == ("/home/me/diary.sh",)
    assert far.tick_seconds == 60
