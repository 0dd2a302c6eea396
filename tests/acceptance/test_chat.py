"""Talking with an agent from the terminal, and agents that come and go, with whole nodes as processes."""

import asyncio
import json
import sys
from pathlib import Path

from relays.key import Key
from tests.market_part import ECHO_FREE, Market, Ran, Spec, market, until

QUICK = {"quote_window_ms = 1500": "quote_window_ms = 300"}


async def _chat(town: Market, agent: str, said: str, *options: str) -> Ran:
    """`vendo chat` with its standard input from a pipe."""
    argv = [sys.executable, "-m", "cli.main", "chat", agent, "--home", str(town.homes["node"]), *options]
    process = await asyncio.create_subprocess_exec(
        *argv, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(said.encode()), 60)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def test_a_line_goes_over_the_relay_and_the_answer_comes_back(tmp_path: Path) -> None:
    async with market(tmp_path, {"seller": ECHO_FREE, "node": Spec(replace=QUICK)}, mint=False) as town:
        ran = await _chat(town, "agent", "ask: hello there\n", "--json")
        assert ran.code == 0, ran
        records = [json.loads(line) for line in ran.out.splitlines()]
        mine = [one for one in records if one["direction"] == "out"]
        assert mine[0]["text"] == "ask: hello there"
        assert [one["state"] for one in mine][-1] in ("sent", "seen")
        (answer,) = [one for one in records if one["direction"] == "in"]
        assert answer["text"].startswith("hello there\n")
        assert answer["protocol"] == "nip17"

        again = await _chat(town, "agent", "", "--history", "5")
        assert again.code == 0
        assert "you ✓ ask: hello there" in again.out
        assert "agent: hello there" in again.out

        missing = await _chat(town, "nobody", "hello\n", "--json")
        assert missing.code == 65


async def test_an_answer_that_does_not_come_is_said_and_the_input_may_end_by_a_word(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        assert (await _chat(town, "agent", "good morning\n", "--wait", "30")).code == 0
        waited = await _chat(town, "agent", "good evening\n", "--wait", "2")
        assert waited.code == 75, waited
        assert "No answer came" in waited.err
        assert (await _chat(town, "agent", "/help\n/quit\nnot said\n")).code == 0
        talk = await town.get("node", f"node/nostr/dm/{town.rings['node'].agent('agent').npub}")
        assert "not said" not in json.dumps(talk)
        nothing = await _chat(town, "agent", "/file /does/not/exist\n/quit\n")
        assert "cannot be read" in nothing.err


async def test_an_agent_is_added_answers_and_is_deleted_while_the_node_runs(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        friend = Key.generate().npub
        added = await town.vendo("node", "agent", "add", "helper", "--about", "helps", "--contact", friend)
        assert (added.code, added.json["configured"]) == (0, False)
        assert (await _chat(town, "helper", "good morning\n", "--wait", "30")).code == 0
        listed = await town.vendo("node", "agent", "list")
        assert [one["name"] for one in listed.json] == ["agent", "helper"]
        admission = await town.get("node", "helper/nostr/admission")
        assert len(admission["contacts"]) >= 2

        assert await town.down("node") == 0, town.log("node")
        await town.up("node")
        assert [one["name"] for one in (await town.vendo("node", "agent", "list")).json] == ["agent", "helper"]
        gone = await town.vendo("node", "agent", "delete", "helper")
        assert (gone.code, gone.json) == (0, {"name": "helper", "status": "deleted"})
        assert (await town.vendo("node", "agent", "delete", "agent")).error_code == "agent.configured"
        assert (await town.vendo("node", "agent", "add", "helper")).error_code == "agent.taken"
        assert (await _chat(town, "helper", "are you there\n")).code == 65

        async def published() -> bool:
            rows = await town.get("node", "node/ledger/open")
            return not [row for row in rows if row["path"].startswith("/nostr/")]

        assert await until(published, "everything to be sent")
        assert (await town.vendo("node", "ledger", "verify")).code == 0
