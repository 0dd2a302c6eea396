"""`vendo replay` against whole nodes: what really happened runs again, here, and nothing of it is secret."""

import asyncio
import base64
import json
import os
import sqlite3
import sys
import zlib
from pathlib import Path

import pytest

from tests.market_part import ECHO_FREE, Market, Spec, market, until, vendo

QUICK = {"quote_window_ms = 1500": "quote_window_ms = 300"}
SECRET = "a-very-long-key-of-somebody-4711"
COUNTER = """
import os

from pydantic import BaseModel

from node.agent.program import Nothing, Program


class Count(BaseModel):
    total: int = 0
    names: list[str] = []


class Counter(Program[Count, Nothing]):
    name = "counter"
    state_type, config_type = Count, Nothing

    async def on_trigger(self, ctx, trigger):
        text = str(trigger.payload.get("text", ""))
        ctx.state.total += 1
        ctx.state.names = [stat.name for stat in await ctx.fs.list("/")]
        ctx.log("counted", total=ctx.state.total, text=text, key=os.environ.get("SHOP_API_KEY", "none"))
        ctx.memory.set("last", {"text": text, "id": ctx.new_id(), "dice": ctx.random.random(), "at": ctx.now_ms})
        if text == "fail":
            raise KeyError(text)
        ctx.set_alarm("later", after_ms=3_600_000)
"""


async def ticks(town: Market, agent: str, count: int) -> list[dict]:
    async def there():
        rows = [row for row in await town.get("node", f"{agent}/logs/ticks") if row["recorded"]]
        return rows if len(rows) >= count else None

    return await until(there, f"{count} recorded ticks of {agent}")


async def test_what_the_buyer_did_runs_again(tmp_path: Path) -> None:
    async with market(tmp_path, {"seller": ECHO_FREE, "node": Spec(replace=QUICK)}, mint=False) as town:
        assert (await town.vendo("node", "send", "agent", "ask: hello there")).code == 0
        assert (await town.vendo("node", "send", "agent", "good morning")).code == 0
        rows = await ticks(town, "agent", 4)  # the first, two messages, and the end of a job
        assert {row["cause"] for row in rows} >= {"initialize", "message", "event"}
        every = await town.vendo("node", "replay", "agent", "--all")
        assert every.code == 0, every
        assert every.json == {
            "ticks": len(rows), "same": len(rows), "different": 0, "unclear": 0, "first": None, "others": []
        }  # fmt: skip
        one = await vendo("replay", "agent", "--tick", str(rows[1]["n"]), "--home", str(town.homes["node"]))
        assert one.code == 0
        assert one.out.startswith(f"tick {rows[1]['id']}: same, ")
        shown = await town.get("node", f"agent/logs/ticks/{rows[1]['id']}")
        assert shown["program"] == "buyer"
        assert shown["steps"]


async def test_an_agent_of_ones_own_is_replayed_changed_and_kept_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHOP_API_KEY", SECRET)
    async with market(tmp_path, {"node": Spec(start=False)}, mint=False) as town:
        folder = town.homes["node"] / "agents"
        folder.mkdir(mode=0o700, exist_ok=True)
        _write(folder / "counter.py", COUNTER)
        await town.up("node")
        added = await town.vendo("node", "agent", "add", "ada", "--program", "counter", "--private")
        assert added.code == 0, added
        coin = "cashuBo2F0gaJhaUgA_9SLj17PgGFwgaNhYQFhc3hA"
        for text in ("one", f"here: {coin}", "fail"):
            assert (await town.vendo("node", "send", "ada", text)).code == 0
        rows = await ticks(town, "ada", 5)
        assert {row["error"].split(":")[0] for row in rows} == {"", "agent.failed"}
        every = await town.vendo("node", "replay", "ada", "--all")
        assert every.code == 0, every

        changed = tmp_path / "counter-new.py"
        _write(changed, COUNTER.replace("total += 1", "total += 2"))
        other = await town.vendo("node", "replay", "ada", "--tick", str(rows[-1]["n"]), "--program", str(changed))
        assert other.code == 65
        assert (other.json["result"], other.json["where"]) == ("different", "step 3, log 'counted': data /total")
        assert (other.json["expected"], other.json["found"], other.json["code"]) == ("1", "2", "changed")

        failed = next(row for row in rows if row["error"])
        saved = tmp_path / "failed.tick"
        path = f"/logs/ticks/{failed['id']}/recording"
        raw = await _bytes("cat", path, "--agent", "ada", "--home", str(town.homes["node"]))
        saved.write_bytes(raw)
        mended = tmp_path / "counter-mended.py"
        _write(mended, COUNTER.replace("raise KeyError(text)", "ctx.log('mended')"))
        assert await town.down("node") == 0

        again = await town.vendo("node", "replay", "--recording", str(saved))
        assert (again.code, again.json["result"]) == (0, "same")
        better = await town.vendo("node", "replay", "--recording", str(saved), "--program", str(mended))
        assert (better.code, better.json["found"]) == (65, "log mended {}")
        _no_secret(town.homes["node"], town.rings["node"].words, coin)


def _write(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")
    file.chmod(0o600)


async def _bytes(*argv: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "cli.main", *argv, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    out, _ = await process.communicate()
    assert process.returncode == 0
    return out


def _no_secret(home: Path, words: str, coin: str) -> None:
    """Neither in any byte of the database, nor in what is packed in it."""
    raw = b"".join(file.read_bytes() for file in home.glob("node.db*"))
    token = (home / "token").read_text().strip()
    for secret in (SECRET, words, token):
        assert secret.encode() not in raw
    with sqlite3.connect(home / "node.db") as db:
        recordings = [row[0] for row in db.execute("SELECT body FROM recording")]
        blobs = [row[0] for row in db.execute("SELECT body FROM blob")]
        logs = [row[0] for row in db.execute("SELECT data FROM log")]
    opened = [zlib.decompress(body[10:]) if body[1] else body[10:] for body in recordings]
    opened += [zlib.decompress(body[1:]) if body[:1] == b"z" else body[1:] for body in blobs]
    assert len(recordings) >= 5
    for secret in (SECRET, words, token, coin):
        forms = (secret.encode(), base64.b64encode(secret.encode()), json.dumps(secret).encode())
        assert not any(form in body for form in forms for body in (*opened, *(text.encode() for text in logs)))
