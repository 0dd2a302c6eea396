"""The mount over a whole node: an agent's money, a job bought by `echo`, its trace by `tail -f`."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.integration.mount.mount_part import Ground
from tests.market_part import market

JOB = '{"kind": 5050, "input": "hello"}'


async def sh(mount: Path, script: str, shell: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        shell, "-c", script, env={**os.environ, "A": f"{mount}/agents/agent", "T": f"{mount}.tail"},
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    out, _ = await asyncio.wait_for(process.communicate(), 30)
    return process.returncode or 0, out.decode()


async def test_a_node_is_used_by_any_program(tmp_path: Path, ground: Ground) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        mount = tmp_path / "tree"
        mount.mkdir()
        argv = ("-m", "cli.main", "mount", str(mount), "--home", str(town.homes["node"]))
        process = await asyncio.create_subprocess_exec(sys.executable, *argv, stdout=subprocess.PIPE)
        try:
            assert process.stdout is not None
            assert str(mount).encode() in await asyncio.wait_for(process.stdout.readline(), 60)
            code, out = await sh(mount, "cat $A/wallet/balance", "dash")
            assert (code, json.loads(out)["live_sat"]) == (0, 0)
            count = "ls $A/compute/jobs | grep -vc README"
            for shell in ("bash", "dash"):
                refused = await sh(mount, 'echo \'{"kind": 5050, "inptu": 1}\' > $A/compute/new || ' + count, shell)
                assert refused[1] == "0\n"
            for number, shell in enumerate(("bash", "dash"), 1):
                assert await sh(mount, f"echo '{JOB}' > $A/compute/new && {count}", shell) == (0, f"{number}\n")
            watch = (
                "tail -s 0.1 -n +1 -f $A/logs/trace > $T & sleep 0.5; echo > $A/ctl/tick;"
                "for try in $(seq 50); do grep manual $T && break; sleep 0.1; done; kill $!; wait"
            )
            assert '"manual"' in (await sh(mount, watch, "bash"))[1]
        finally:
            process.terminate()
            try:
                assert await asyncio.wait_for(process.wait(), 60) == 0
            finally:
                subprocess.run(
                    ["fusermount3", "-u", "-z", str(mount)], capture_output=True
                )  # nothing is to clean in it
