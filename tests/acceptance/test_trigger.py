"""What wakes an agent of a node that runs as a process: webhooks, files, and alarms over a kill."""

import asyncio
import hashlib
import hmac
import json
import signal
from pathlib import Path
from typing import Any

from tests.market_part import Market, Spec, market, until

AGENT = "agent"


async def waiting(town: Market, cause: str, count: int = 1) -> list[dict[str, Any]]:
    """The agent's ticks of one cause, once there are so many."""

    async def enough() -> list[dict[str, Any]]:
        ticks = [tick for tick in await town.get("node", f"{AGENT}/logs/ticks") if tick["cause"] == cause]
        return ticks if len(ticks) >= count else []

    found: list[dict[str, Any]] = await until(enough, f"{count} ticks by {cause}")
    return found


async def test_webhooks_alarms_and_files_wake_an_agent_also_over_a_kill(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": Spec()}, mint=False) as town:

        async def file(path: str, body: Any) -> Any:
            status, answer = await town.call("node", f"{AGENT}/{path}", body, path)
            assert status == 200, answer
            return answer

        made = await file("hooks/new", {"name": "ci"})
        secret = (await file(f"hooks/{made['id']}/secret", {}))["secret"]
        body = json.dumps({"ref": "main"}).encode()
        signature = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
        headers = {"X-Hub-Signature-256": f"sha256={signature}", "Content-Type": "application/json"}

        async def call(delivery: str) -> int:
            url = town.nodes["node"].said["control"] + made["path"]
            async with town.http.post(url, data=body, headers={**headers, "X-GitHub-Delivery": delivery}) as answer:
                return answer.status

        assert [await call("one"), await call("one")] == [202, 200]
        (tick,) = await waiting(town, "event")
        assert tick["envelope_id"].startswith("hook-")

        await file("interests/new", {"id": "goals", "event": "file.changed"})
        await file("alarms/new", {"id": "tick", "every_ms": 1_000})
        await file("alarms/new", {"id": "soon", "after_ms": 1_500})
        goal = town.url("node", f"{AGENT}/goals/tea")
        async with town.http.put(goal, data=b'{"description": "a pot"}', headers=town.headers("node")) as answer:
            assert answer.status == 204
        await waiting(town, "event", 2)
        await waiting(town, "alarm")
        child = town.nodes.pop("node")
        child.process.send_signal(signal.SIGKILL)
        await child.process.wait()
        town.children.remove(child)
        await asyncio.sleep(1.6)
        await town.up("node")
        ticks = await waiting(town, "alarm", 2)
        ids = [tick["envelope_id"] for tick in ticks]
        assert len(set(ids)) == len(ids), "no alarm has two ticks"
        assert sum(name.startswith("alarm:soon:") for name in ids) <= 1

        async def soon() -> bool:
            alarms = await waiting(town, "alarm")
            return any(tick["envelope_id"].startswith("alarm:soon:") for tick in alarms)

        await until(soon, "the alarm whose time came while the node was dead")
        assert await call("one") == 200, "a delivery is known over a restart"
        await file(f"hooks/{made['id']}/delete", {})
        assert await call("two") == 404
        assert await town.get("node", f"{AGENT}/inbox/deadletter") == []
