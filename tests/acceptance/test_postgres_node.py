"""A node on PostgreSQL as its operator sees it: made, looked at, run, restarted and checked with the same commands."""

import os
from pathlib import Path

import asyncpg
import pytest

from node.home import PASSWORD_VARIABLE
from tests.market_part import ECHO_FREE, Spec, market, run, vendo
from tests.postgres_part import fresh_database, own_server

pytestmark = [pytest.mark.needs("postgres"), pytest.mark.timeout(180)]
FILE = 'url = "sqlite:///node.db"'
SECRET = "operators-secret"


async def test_a_node_on_postgresql_is_run_restarted_and_checked(tmp_path: Path) -> None:
    url = await fresh_database(bare=True)
    spec = Spec(replace={FILE: f'url = "{url}"'})
    async with market(tmp_path, {"seller": ECHO_FREE, "buyer": spec}, mint=False) as town:
        doctor = await town.vendo("buyer", "doctor")
        (check,) = [one for one in doctor.json["checks"] if one["name"] == "database"]
        assert check["state"] == "ok"
        assert "PostgreSQL" in check["detail"]
        bought = await town.vendo("buyer", "buy", "--kind", "5050", "--input", "hello", "--key", "one")
        assert (bought.code, bought.json["result"]) == (0, "hello"), bought
        assert await town.down("buyer") == 0, town.log("buyer")
        verified = await town.vendo("buyer", "ledger", "verify")
        assert verified.json["ok"]
        assert verified.json["effects"] > 0
        await town.up("buyer")
        again = await town.vendo("buyer", "buy", "--kind", "5050", "--input", "hello", "--key", "one")
        assert again.json["job_id"] == bought.json["job_id"], "it was there before the restart"
        assert not (town.homes["buyer"] / "node.db").exists()
        key = await town.vendo("buyer", "key", "export", "agent", "--reveal")
        assert key.code == 0, key
        assert key.json["nsec"].startswith("nsec1")


async def test_a_password_is_taken_from_a_file_or_the_environment_and_shown_nowhere(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with own_server(tmp_path) as server:
        admin = await asyncpg.connect(server.url())
        await admin.execute(f"CREATE ROLE guest LOGIN PASSWORD '{SECRET}'")
        await admin.execute("CREATE DATABASE theirs OWNER guest")
        await admin.close()
        server.ask_for_passwords("guest")
        url = server.url("theirs", user="guest")
        refused = await vendo(
            "init",
            "--home",
            str(home),
            "--no-passphrase",
            "--yes",
            "--json",
            "--database",
            url.replace("@", f":{SECRET}@"),
        )
        assert refused.code == 78
        assert SECRET not in refused.out + refused.err
        made = await vendo("init", "--home", str(home), "--no-passphrase", "--yes", "--json", "--database", url)
        assert made.code == 0, made

        async def looked(**more: str) -> dict[str, str]:
            argv = [os.sys.executable, "-m", "cli.main", "doctor", "--home", str(home), "--json"]
            ran = await run(*argv, env=dict(os.environ) | more)
            assert SECRET not in ran.out + ran.err
            return next(check for check in ran.json["checks"] if check["name"] == "database")

        assert (await looked())["state"] == "fail"
        assert (await looked(**{PASSWORD_VARIABLE: f"{SECRET}?"}))["state"] == "fail"
        assert (await looked(**{PASSWORD_VARIABLE: SECRET}))["state"] == "ok"
        config, secret = home / "config.toml", tmp_path / "secret"
        config.write_text(config.read_text().replace('password_file = ""', f'password_file = "{secret}"'))
        assert "cannot be read" in (await looked())["detail"]
        secret.write_text(SECRET + "\n")
        assert "can be read by others" in (await looked())["detail"]
        secret.chmod(0o600)
        assert (await looked())["state"] == "ok"
        server.stop()
        server.start("fsync=off")
        unsafe = await looked()
        assert unsafe["state"] == "fail"
        assert "fsync is off" in unsafe["detail"]
