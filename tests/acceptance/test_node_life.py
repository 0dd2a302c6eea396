"""A node as a process: one per home, ready and drained, paused for good, and whole when the outside is away."""

import asyncio
import json
import os
import sys
from pathlib import Path

from tests.market_part import ECHO_FREE, SUMMARY_21, Market, Spec, dead_address, market, until, vendo

UNKNOWN_KIND = ("buy", "--kind", "5999", "--input", "x", "--max-usd", "0.01")
# No seller and no built-in provider is waited for longer than a test has time.
QUICK = {"quote_window_ms = 1500": "quote_window_ms = 300", "timeout_s = 60": "timeout_s = 5"}


async def test_up_says_one_json_line_and_sigterm_drains_it_to_exit_0(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ECHO_FREE}, mint=False) as town:
        child = town.nodes["node"]
        assert set(child.said) == {"npub", "control", "relays", "pid"}
        assert child.said["npub"] == town.rings["node"].node.npub
        assert child.said["pid"] == child.process.pid
        assert town.relay in json.dumps(child.said["relays"])
        assert child.said["control"].startswith("http://127.0.0.1:")
        assert (await town.vendo("node", "status")).code == 0
        assert await town.down("node") == 0, town.log("node")
        assert child.process.stdout is not None
        assert await child.process.stdout.read() == b"", "nothing follows the one line"
        assert not (town.homes["node"] / "control.json").exists()
        ran = await town.vendo("node", "status")
        assert (ran.code, ran.error_code) == (69, "cli.not_running")


async def test_a_second_up_on_one_home_names_the_first_ones_pid(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        ran = await town.vendo("node", "up", timeout=30)
        assert ran.code != 0
        assert str(town.nodes["node"].process.pid) in ran.out + ran.err
        assert "node.running" in ran.out + ran.err
        assert (await town.vendo("node", "status")).code == 0, "the first one goes on"


async def test_two_ups_at_the_same_moment_leave_one_node(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": Spec(start=False)}, mint=False) as town:
        argv = [sys.executable, "-m", "cli.main", "up", "--home", str(town.homes["node"])]
        both = [
            await asyncio.create_subprocess_exec(
                *argv, stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
            )
            for _ in range(2)
        ]
        try:
            waits = [asyncio.create_task(one.wait()) for one in both]
            done, _ = await asyncio.wait(waits, timeout=120, return_when=asyncio.FIRST_COMPLETED)
            assert len(done) == 1
            assert done.pop().result() != 0
            ran = await until(lambda: _running(town), "the other one to answer")
            assert ran
        finally:
            for one in both:
                if one.returncode is None:
                    one.terminate()
                await asyncio.wait_for(one.communicate(), 60)
        assert sorted(one.returncode == 0 for one in both) == [False, True]


async def _running(town: Market) -> bool:
    return (await town.vendo("node", "status")).code == 0


async def test_a_pause_is_still_there_after_a_restart(tmp_path: Path) -> None:
    async with market(tmp_path, {"seller": ECHO_FREE, "buyer": ""}, mint=False) as town:
        assert (await town.vendo("buyer", "pause")).code == 0
        refused = await town.vendo("buyer", "buy", "--kind", "5050", "--input", "hello", "--key", "one")
        assert refused.code == 77
        assert refused.error_code == "node.paused"
        assert await town.down("buyer") == 0
        await town.up("buyer")
        again = await town.vendo("buyer", "buy", "--kind", "5050", "--input", "hello", "--key", "two")
        assert again.error_code == "node.paused"
        assert await town.requests("buyer") == []
        assert (await town.vendo("buyer", "resume")).code == 0
        bought = await town.vendo("buyer", "buy", "--kind", "5050", "--input", "hello", "--key", "three")
        assert bought.code == 0, bought
        assert bought.json["result"] == "hello"
        assert len(await town.requests("buyer")) == 1
        assert (await town.vendo("buyer", "ledger", "verify")).code == 0


async def test_an_unreachable_relay_stops_nothing_else_and_is_named(tmp_path: Path) -> None:
    gone = dead_address("ws")
    async with market(tmp_path, {"node": Spec(relays=[gone], replace=QUICK)}, mint=False) as town:
        doctor = await town.vendo("node", "doctor")
        assert doctor.code == 69, "it is the only one"
        assert any(gone in check["name"] and check["state"] == "fail" for check in doctor.json["checks"])
        status = await town.vendo("node", "status")
        assert status.code == 0
        assert gone in status.out, "status says how the relay is"
        ran = await town.vendo("node", *UNKNOWN_KIND, "--timeout", "3")
        assert ran.code != 0
        assert ran.json["error"]["message"]
        assert await town.requests() == []
        assert await town.down("node") == 0, town.log("node")


async def test_a_relay_that_comes_back_is_used_again(tmp_path: Path) -> None:
    async with market(tmp_path, {"seller": ECHO_FREE, "buyer": Spec(replace=QUICK)}, mint=False) as town:
        assert town.relay_child is not None
        await town.relay_child.kill()
        town.children.remove(town.relay_child)
        port = town.relay.rsplit(":", 1)[1]
        argv = [sys.executable, "-m", "cli.relay", "--home", str(tmp_path / "relay"), "--port", port]
        again = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE, env=dict(os.environ))
        try:
            assert again.stdout is not None
            await asyncio.wait_for(again.stdout.readline(), 120)
            bought = await town.vendo("buyer", "buy", "--kind", "5050", "--input", "hello again", "--timeout", "30")
            assert bought.code == 0, bought
            assert bought.json["result"] == "hello again"
        finally:
            again.terminate()
            await asyncio.wait_for(again.communicate(), 60)


async def test_an_unreachable_mint_gets_a_clear_error_and_changes_nothing(tmp_path: Path) -> None:
    gone = dead_address("http")
    async with market(tmp_path, {"node": Spec(mints=[gone])}, mint=False) as town:
        assert (await town.vendo("node", "status")).code == 0
        ran = await town.vendo("node", "wallet", "deposit", "100")
        assert ran.code in (69, 75), ran
        assert gone in ran.json["error"]["message"] or "mint" in ran.json["error"]["message"].lower()
        assert await town.balance("node") == {"live": 0, "reserved": 0, "locked": 0}
        doctor = await town.vendo("node", "doctor")
        assert any(gone in check["name"] and check["state"] == "fail" for check in doctor.json["checks"])
        assert (await town.vendo("node", "ledger", "verify")).code == 0
        assert await town.down("node") == 0, town.log("node")


async def test_a_mint_that_dies_takes_no_money_and_no_job_with_it(tmp_path: Path) -> None:
    nodes = {"seller": ECHO_FREE + SUMMARY_21, "buyer": Spec(replace=QUICK)}
    async with market(tmp_path, nodes) as town:
        await town.fund("buyer", 200)
        assert town.mint_child is not None
        await town.mint_child.kill()
        ran = await town.vendo("buyer", "wallet", "send", "5", timeout=90)
        assert ran.code in (69, 75), ran
        await town.call(
            "buyer", "node/compute/new", {"kind": 5001, "input": "A text. Of two.", "max_usd": "0.05"}, "one"
        )
        echoed = await town.vendo("buyer", "buy", "--kind", "5050", "--input", "still here")
        assert echoed.code == 0, echoed
        assert echoed.json["result"] == "still here", "what needs no mint goes on"
        assert sum((await town.balance("buyer")).values()) == 200, "what is in doubt is not written off"
        assert (await town.vendo("buyer", "ledger", "verify")).code == 0
        for name in ("buyer", "seller"):
            assert await town.down(name) == 0, town.log(name)


async def test_a_home_without_a_node_and_a_damaged_config_are_named(tmp_path: Path) -> None:
    ran = await vendo("up", "--home", str(tmp_path / "nothing"), "--json")
    assert ran.code == 78
    assert "home.missing" in ran.out + ran.err
    async with market(
        tmp_path, {"node": Spec("\n[[sell]]\nkind = 4999\nprice_msat = -1\n", start=False)}, mint=False
    ) as town:
        ran = await town.vendo("node", "up")
        assert ran.code == 78
        assert "config.invalid" in ran.out + ran.err
        assert "sell.0.kind" in ran.out + ran.err
