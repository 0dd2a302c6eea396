"""Identities of a running node: keys locked at rest, imported, rotated in public, and never shown to a token."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cli.demo.person import Person
from cli.demo.wire import watching
from cli.main import run as command
from node import home
from node.identity.passphrase import make_file
from relays.event import Draft, parse, verify
from relays.key import Key
from relays.kind import DM_RELAYS, METADATA
from relays.nip49 import decrypt_key
from relays.succession import PREDECESSOR, SUCCESSOR, read_succession
from tests.market_part import Market, Ran, Spec, market, run, until

COST = "scrypt_log_n = 10"


def lock(town: Market, name: str) -> Path:
    """Encrypt a home that is there, at a cost that a test can pay, with a passphrase in a file."""
    path, file = town.homes[name], town.folder / f"{name}.passphrase"
    settings = path / "config.toml"
    text = settings.read_text(encoding="utf-8").replace("scrypt_log_n = 16", COST)
    settings.write_text(text.replace('passphrase_file = ""', f'passphrase_file = "{file}"'), encoding="utf-8")
    home.lock_keys(path, town.rings[name], make_file(file), 10)
    return file


async def test_a_locked_node_starts_with_its_file_and_with_no_other_passphrase(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": Spec(start=False)}, mint=False) as town:
        file = lock(town, "node")
        assert town.rings["node"].words.split()[0] not in (town.homes["node"] / "keys.json").read_text()
        child = await town.up("node")
        assert child.said["npub"] == town.rings["node"].node.npub
        await town.down("node")
        right, before = file.read_text(), (town.homes["node"] / "keys.json").read_bytes()
        file.write_text("another\n")
        ran = await town.vendo("node", "up")
        assert (ran.code, ran.error_code) == (77, "key.passphrase")
        assert (town.homes["node"] / "keys.json").read_bytes() == before
        file.write_text(right)
        assert (await town.vendo("node", "ledger", "verify")).code == 0


class KeyCommand:
    """`vendo key` in this process against a node in another: a new process for each would take most of the time."""

    def __init__(self, home: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self._home, self._capsys = home, capsys

    def __call__(self, *argv: str) -> Any:
        self.code = command(["key", *argv, "--home", str(self._home), "--json"])
        said = json.loads(self._capsys.readouterr().out)
        return said["error"]["code"] if self.code else said


async def test_keys_are_shown_without_secrets_imported_exported_given_up_and_used_to_sign(tmp_path, capsys) -> None:
    async with market(tmp_path, {"node": ""}, mint=False) as town:
        key_command, ring = KeyCommand(town.homes["node"], capsys), town.rings["node"]
        assert {row["name"]: row["pubkey"] for row in key_command("list")} == {
            "operator": ring.operator.pubkey, "node": ring.node.pubkey, "agent": ring.agent("agent").pubkey,
        }  # fmt: skip
        key, file, secret = Key.generate(), tmp_path / "nsec", tmp_path / "p"
        file.write_text(key.nsec)
        made = key_command("import", "guest", "--file", str(file))
        assert (made["pubkey"], made["source"]) == (key.pubkey, "imported")
        exported = key_command("export", "guest", "--passphrase-file", str(secret))
        assert decrypt_key(exported["ncryptsec"], secret.read_text().strip()).secret == key.secret
        assert key.nsec not in str(exported)
        file.write_text(exported["ncryptsec"])
        more = ("--file", str(file), "--passphrase-file", str(secret))
        assert key_command("import", "twin", *more) == "key.exists"
        assert key_command("show", "guest")["keys"][0]["npub"] == key.npub
        assert key_command("export", "agent", "--reveal")["nsec"] == ring.agent("agent").nsec
        assert key_command("new", "spare")["pubkey"] == ring.agent("spare").pubkey
        assert key_command("retire", "agent") == "key.in_use"
        assert key_command("retire", "spare")["state"] == "deleted"
        assert key_command("show", "nobody") == "fs.not_found"
        status, answer = await town.call("node", "agent/identity/sign", {"kind": 1, "content": "hello"}, "s1")
        assert status < 300, answer
        event = parse(answer)
        verify(event)
        assert event.pubkey == ring.agent("agent").pubkey
        status, refused = await town.call("node", "agent/identity/sign", {"kind": 5, "content": ""}, "s2")
        assert (status, refused["code"]) == (403, "signer.kind")
        await town.down("node")
        assert command(["ledger", "verify", "--home", str(town.homes["node"])]) == 0, "the signature is in the ledger"
        assert key.nsec not in town.log("node") + file.read_text()


async def test_a_rotated_agent_says_so_with_both_keys_and_opens_what_is_sent_to_the_old_one(tmp_path: Path) -> None:
    owner = Key.generate()
    async with (
        market(tmp_path, {"node": Spec(owner=owner.npub)}, mint=False) as town,
        watching(town.http, town.relay) as wire,
    ):
        person = Person(wire)
        person.key = owner
        old, new = (town.rings["node"].agent("agent", epoch) for epoch in (0, 1))
        await wire.until(lambda event: event.kind == DM_RELAYS and event.pubkey == old.pubkey, 20)
        here = Draft(DM_RELAYS, "", (("relay", town.relay),), int(time.time()))  # else nobody knows where to write to
        await wire.publish(owner.sign(here))
        ran = await town.vendo("node", "key", "rotate", "agent", "--key", "r1")
        assert (ran.code, ran.json["state"], ran.json["new"]) == (0, "done", new.pubkey), ran.err
        assert (await town.vendo("node", "key", "rotate", "agent", "--key", "r1")).json == ran.json
        first = await wire.until(lambda event: event.value("d") == SUCCESSOR, 20)
        second = await wire.until(lambda event: event.value("d") == PREDECESSOR, 20)
        proved = read_succession(first, second)
        assert (proved.old, proved.new) == (old.pubkey, new.pubkey)
        assert new.npub in (await person.hear(old.pubkey, 20)).content
        for kind in (METADATA, DM_RELAYS):
            await wire.until(lambda event, kind=kind: event.kind == kind and event.pubkey == new.pubkey, 20)
        for key, text in ((old, "to the old key"), (new, "to the new key")):
            await person.say(key.pubkey, text)
            await until(lambda text=text: _received(town, text), f"the agent to take {text!r}")
        await town.down("node")
        await town.up("node")
        shown = await town.vendo("node", "cat", "--agent", "agent", "/identity/pubkey")
        assert shown.json.strip() == new.pubkey
        await person.say(old.pubkey, "after a restart")
        await until(lambda: _received(town, "after a restart"), "the old key to be heard after a restart")


async def _received(town: Market, text: str) -> bool:
    rows = await town.get("node", "agent/nostr/messages")
    return any(text in str(row) for row in (rows if isinstance(rows, list) else rows.values()))


@pytest.mark.parametrize("choice", ["file", "environment", "none"])
async def test_init_encrypts_unless_it_is_told_not_to(tmp_path: Path, choice: str) -> None:
    argv = ["init", "--home", str(tmp_path / "h"), "--relay", "ws://127.0.0.1:9", "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "VENDO_PASSPHRASE"}
    if choice == "file":
        argv += ["--passphrase-file", str(tmp_path / "p")]
    if choice == "environment":
        environment["VENDO_PASSPHRASE"] = "from outside"
    ran = await _vendo(*argv, environment=environment)
    assert ran.code == 0, ran.err
    raw = (tmp_path / "h" / "keys.json").read_text()
    assert "ncryptsec1" in raw
    assert ran.json["words"] not in raw
    if choice != "environment":
        assert home.open_keyring(tmp_path / "h").words == ran.json["words"]
    assert (tmp_path / "h" / "passphrase").exists() == (choice == "none")


async def _vendo(*argv: str, environment: dict[str, str]) -> Ran:
    return await run(sys.executable, "-m", "cli.main", *argv, env=environment)
