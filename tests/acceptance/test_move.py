"""An agent moves from one whole node to another by `vendo agent export` and `import`, with and without its key."""

import asyncio
import json
from pathlib import Path
from typing import Any

from cli.template import make
from node.transit import FOLDER
from relays.key import parse_pubkey
from relays.kind import DELETION, METADATA
from tests.market_part import Market, market, until


async def _listed(town: Market, node: str, agent: str) -> Any:
    rows = (await town.vendo(node, "agent", "list")).json
    return next((row for row in rows if row["name"] == agent), None)


async def _replies(town: Market, node: str, agent: str, count: int) -> list[str]:
    async def found() -> list[str] | None:
        records = await town.get(node, f"{agent}/logs/recent")
        texts = [str(one["data"]["text"]) for one in records if one["type"] == "reply"]
        return texts if len(texts) >= count else None

    return list(await until(found, f"{count} replies of {agent}"))


async def test_an_agent_moves_to_another_node_and_its_memory_with_it(tmp_path: Path) -> None:
    async with market(tmp_path, {"one": "", "two": ""}, mint=False) as town:
        file = tmp_path / "tea.vendo"
        make(town.homes["one"], "tea", "python")
        await _add_at(town, "one", "tea")
        npub = (await _listed(town, "one", "tea"))["npub"]
        await _say_at(town, "one", "tea", "hello")
        await _replies(town, "one", "tea", 1)
        ran = await town.vendo("one", "agent", "export", "tea", str(file))
        assert ran.code == 0, ran
        assert (ran.json["frozen"], ran.json["before"], ran.json["open_jobs"]) == (True, "active", 0)
        assert file.stat().st_mode & 0o777 == 0o600
        assert not list((town.homes["one"] / FOLDER).iterdir())
        assert town.rings["one"].words.encode() not in file.read_bytes()

        await _say_at(town, "one", "tea", "while it is away")
        await town.down("one")
        await town.up("one")
        await asyncio.sleep(0.5)
        assert (await _listed(town, "one", "tea"))["status"] == "frozen"
        assert (await town.get("one", "tea/status"))["queue_depth"] == 1, "it waits, also after a restart"

        ran = await town.vendo("two", "agent", "import", str(file))
        assert (ran.code, ran.error_code) == (77, "agent.code_differs")
        assert await _listed(town, "two", "tea") is None
        assert not (town.homes["two"] / "agents" / "tea.py").exists()
        known = ("--node", town.rings["one"].node.npub)
        ran = await town.vendo("two", "agent", "import", str(file), "--accept-code", *known)
        assert ran.code == 0, ran
        assert (ran.json["status"], ran.json["code"], ran.json["same_key"]) == ("active", "installed", False)
        assert ran.json["was"] == npub
        assert not list((town.homes["two"] / FOLDER).iterdir())
        await _say_at(town, "two", "tea", "again")
        assert (await _replies(town, "two", "tea", 1))[-1].startswith("Hello! That was message 2."), (
            "it remembers the first"
        )
        made = await _listed(town, "two", "tea")
        assert made["npub"] not in (npub, None)
        await until(lambda: _said(town, made["npub"], METADATA), "its profile under its new key")
        await town.down("two")
        await town.up("two")
        await _say_at(town, "two", "tea", "after a restart")
        assert (await _replies(town, "two", "tea", 2))[-1].startswith("Hello! That was message 3.")

        ran = await town.vendo("two", "agent", "import", str(file), "--clone", "twin")
        assert (ran.code, ran.json["name"], ran.json["code"]) == (0, "twin", "same")
        assert ran.json["status"] == "stopped", "nobody said whose archive it must be"
        assert (await town.vendo("two", "call", "/ctl/start", "--agent", "twin")).code == 0
        await _say_at(town, "two", "twin", "and you")
        assert (await _replies(town, "two", "twin", 1))[-1].startswith("Hello! That was message 2.")
        ran = await town.vendo("two", "agent", "import", str(file))
        assert (ran.code, ran.error_code) == (75, "agent.taken")

        ran = await town.vendo("one", "agent", "thaw", "tea")
        assert ran.json == {"name": "tea", "status": "active"}
        assert (await _replies(town, "one", "tea", 2))[-1].startswith("Hello! That was message 2.")


async def test_an_agent_keeps_its_key_if_that_is_moved_first_and_its_old_node_takes_nothing_back(
    tmp_path: Path,
) -> None:
    async with market(tmp_path, {"one": "", "two": ""}, mint=False) as town:
        file, secret = tmp_path / "a.vendo", tmp_path / "passphrase"
        secret.write_text("correct horse battery staple\n")
        secret.chmod(0o600)
        await _add_at(town, "one", "b1", "buyer")
        npub = (await _listed(town, "one", "b1"))["npub"]
        await until(lambda: _said(town, npub, METADATA), "its profile")
        assert (await town.vendo("one", "agent", "export", "b1", str(file))).code == 0
        ran = await town.vendo("one", "key", "export", "b1", "--passphrase-file", str(secret))
        (tmp_path / "key").write_text(ran.json["ncryptsec"])
        ran = await town.vendo(
            "two", "key", "import", "b1", "--file", str(tmp_path / "key"), "--passphrase-file", str(secret)
        )
        assert ran.code == 0, ran
        ran = await town.vendo("two", "agent", "import", str(file), "--node", town.rings["one"].node.npub)
        assert (ran.code, ran.json["same_key"], ran.json["npub"]) == (0, True, npub), ran
        ran = await town.vendo("one", "agent", "delete", "b1")
        assert ran.code == 0, ran
        await asyncio.sleep(1)
        assert not await _said(town, npub, DELETION), "what it published is still its own, elsewhere"
        assert (await _listed(town, "two", "b1"))["status"] == "active"
        await town.down("one")
        await town.up("one")
        await asyncio.sleep(0.5)
        assert await _listed(town, "one", "b1") is None
        assert not await _said(town, npub, DELETION)


async def test_an_export_through_a_pipe_and_what_is_refused_by_the_command(tmp_path: Path) -> None:
    async with market(tmp_path, {"one": ""}, mint=False) as town:
        await _add_at(town, "one", "b1", "buyer")
        ran = await town.vendo("one", "agent", "export", "nobody", str(tmp_path / "x"))
        assert (ran.code, ran.error_code) == (65, "fs.not_found"), ran
        assert not (tmp_path / "x").exists()
        ran = await town.vendo("one", "agent", "export", "b1", "/nowhere/at/all")
        assert ran.code != 0
        assert (await _listed(town, "one", "b1"))["status"] == "active", "it goes on, for there is no archive of it"
        assert not list((town.homes["one"] / FOLDER).iterdir())
        ran = await town.vendo("one", "agent", "import", str(tmp_path / "absent"))
        assert ran.code == 65, ran
        (tmp_path / "bad").write_bytes(b"no archive")
        ran = await town.vendo("one", "agent", "import", str(tmp_path / "bad"))
        assert (ran.code, ran.error_code) == (65, "backup.damaged")
        status, answer = await town.call("one", "node/agents/import", {"transfer": "../keys.json"}, "x")
        assert (status, answer["code"] if "code" in answer else answer["error"]["code"]) == (400, "input.invalid")
        assert json.dumps(answer)


async def _add_at(town: Market, node: str, name: str, program: str = "") -> None:
    body = {"name": name, "program": program or name}
    status, answer = await town.call(node, "node/agents/new", body, name)
    assert status == 200, answer


async def _say_at(town: Market, node: str, agent: str, text: str) -> None:
    assert (await town.call(node, f"{agent}/send", {"text": text}, f"{agent} {text}"))[0] == 200


async def _said(town: Market, npub: str, kind: int) -> bool:
    pubkey = parse_pubkey(npub)
    return any(one.pubkey == pubkey and one.kind == kind for one in await town.events())
