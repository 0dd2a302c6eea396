"""The control plane of a whole node: with curl and what `init` wrote, and without a token where there is no money."""

import asyncio
import json
import stat
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from core.clock import SystemClock
from core.unit import Insert
from node import home
from node.gate.ledger import ledger_seal
from node.storage.database import open_database
from relays.key import Key
from tests.market_part import dead_address, run, vendo
from tests.unit.node.http.nip98_part import header, signed

KEY = Key(b"\x31" * 32)
COIN = {
    "y": "02" + "ab" * 32, "mint": "http://127.0.0.1:1", "unit": "sat", "keyset": "00ad268c4d1f5826", "amount": 1,
    "state": "live", "operation": "", "sealed": b"x",
}  # fmt: skip


def made(folder: Path) -> Path:
    """A home whose relay is away: nothing here is about relays."""
    path = folder / "node"
    home.create(path, relays=[dead_address("ws")], mints=[], port=0)
    return path


@asynccontextmanager
async def up(path: Path, *options: str) -> AsyncIterator[str]:
    """Run a node: where its control plane is. Its log is in `log`."""
    with (path / "log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "cli.main", "up", "--home", str(path), *options,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=log,
        )  # fmt: skip
    try:
        assert process.stdout is not None
        yield json.loads(await asyncio.wait_for(process.stdout.readline(), 120))["control"]
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def curl(*argv: str) -> tuple[int, Any]:
    """The status and the answer."""
    ran = await run("curl", "-sS", "-w", "\n%{http_code}", *argv)
    body, _, status = ran.out.rpartition("\n")
    try:
        return int(status), json.loads(body or "null")
    except json.JSONDecodeError:
        return int(status), body


@pytest.mark.needs("curl")
async def test_the_operator_asks_with_curl_and_others_with_what_they_were_given(tmp_path: Path) -> None:
    path = made(tmp_path)
    nostr = f'nostr = [{{npub = "{KEY.npub}", role = "agent", agent = "agent"}}]'
    config = path / "config.toml"
    config.write_text(config.read_text().replace("nostr = []", nostr))
    mine = path / home.CURL_AUTH
    mine.unlink()
    async with up(path) as url:
        assert stat.S_IMODE(mine.stat().st_mode) == 0o600, "it was made anew"
        assert (await curl("-H", f"@{mine}", f"{url}/agents/node/status"))[0] == 200
        assert (await curl("-H", f"@{mine}", "-d", '{"text": "hello"}', f"{url}/agents/agent/send"))[0] == 200
        assert (await curl(f"{url}/agents/node/status"))[0] == 401
        await _the_seeds_three_lines(url, mine)

        ran = await vendo("token", "new", "--agent", "agent", "--label", "dashboard", "--json", "--home", str(path))
        assert ran.code == 0, ran
        theirs = f"Authorization: Bearer {ran.json['token']}"
        assert (await curl("-H", theirs, f"{url}/agents/agent/status"))[0] == 200
        assert (await curl("-H", theirs, f"{url}/agents/node/status"))[0] == 403
        assert ran.json["token"] not in (path / "tokens.json").read_text() + (path / "log").read_text()
        assert (await vendo("token", "revoke", ran.json["id"], "--home", str(path))).code == 0
        assert (await curl("-H", theirs, f"{url}/agents/agent/status"))[0] == 401

        asked = f"{url}/agents/agent/status"
        by_key = "Authorization: " + header(signed(KEY, asked, at=SystemClock().now()))
        assert [(await curl("-H", by_key, asked))[0] for _ in range(2)] == [200, 401]


async def _the_seeds_three_lines(url: str, auth: Path) -> None:
    """The exit line of its third milestone: tick, send and the trace as events, with curl and one header."""
    reader = await asyncio.create_subprocess_exec(
        "curl", "-sSN", "-H", f"@{auth}", f"{url}/agents/agent/logs/trace", stdout=asyncio.subprocess.PIPE
    )
    assert reader.stdout is not None
    assert (await asyncio.wait_for(reader.stdout.readline(), 60)).startswith(b"retry:"), "it is connected"
    await asyncio.sleep(0.5)
    asked = ("curl", "-sS", "-X", "POST", "-H", f"@{auth}")
    tick = json.loads((await run(*asked, f"{url}/agents/agent/tick")).out)
    sent = json.loads((await run(*asked, f"{url}/agents/agent/send", "-d", '{"message": "hi"}')).out)
    missing, lines = {tick["envelope_id"], sent["envelope_id"]}, []
    async with asyncio.timeout(60):
        while missing:
            lines.append((await reader.stdout.readline()).decode())
            if lines[-1].startswith("data: {"):
                missing.discard(json.loads(lines[-1].removeprefix("data: ")).get("envelope_id"))
    reader.kill()
    await reader.wait()
    assert [line for line in lines if line.startswith("id: ")], "events have ids to go on from"


@pytest.mark.needs("curl")
async def test_without_a_token_it_starts_only_where_there_is_no_money(tmp_path: Path) -> None:
    path = made(tmp_path)
    async with up(path, "--insecure-loopback") as url:
        assert (await curl(f"{url}/agents/node/status"))[0] == 200
        assert (await curl("-d", "hello", f"{url}/agents/agent/send"))[0] == 200
        assert (await curl("-H", "Sec-Fetch-Site: cross-site", f"{url}/agents/node/status"))[0] == 403
        assert (await curl("-H", "Authorization: Bearer wrong", f"{url}/agents/node/status"))[0] == 401
    assert "no token is needed" in (path / "log").read_text()

    seal = ledger_seal(home.open_keyring(path).node)
    database = await open_database(path / home.DATABASE, seal=seal, clock=SystemClock())
    await database.commit([Insert("proof", COIN)])
    await database.aclose()
    ran = await vendo("up", "--insecure-loopback", "--home", str(path), "--json")
    assert (ran.code, ran.error_code) == (77, "http.holds_money")
