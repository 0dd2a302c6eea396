"""Backups of real nodes: taken while they work, and restored when their money has gone on without the copy."""

import asyncio
import json
import signal
from pathlib import Path

from node import home
from relays.kind import JOB_FEEDBACK
from tests.market_part import PATIENT, SUMMARY_21, Market, Ran, Spec, market, until, vendo

TEXT = (
    "The market opened early. Sellers came from the hills with bread and cheese. Buyers came from the town with coins. "
    "By noon everything was sold, and everybody went home content."
)
FREE_TEXT = TEXT.replace("market", "fair")


async def take(town: Market, name: str, file: Path) -> Ran:
    ran = await town.vendo(name, "backup", str(file))
    assert ran.code == 0, ran
    return ran


async def put_back(town: Market, name: str, file: Path, *more: str) -> Ran:
    ran = await vendo("restore", str(file), "--home", str(town.homes[name]), "--replace", "--json", *more)
    assert ran.code == 0, ran
    return ran


async def lose(town: Market, name: str) -> None:
    """The machine is gone, in the middle of whatever it did."""
    child = town.nodes.pop(name)
    child.process.send_signal(signal.SIGKILL)
    await child.process.wait()
    town.children.remove(child)


async def settled(town: Market, name: str) -> dict:
    async def known():
        found = await town.get(name, "node/upkeep/restored")
        return found if "settled_at" in found else None

    return await until(known, "every mint to say what has happened")


async def buy(town: Market, name: str, text: str, key: str) -> dict:
    ran = await town.vendo(
        name, "buy", "--kind", "5001", "--input", text, "--param", "max_sentences=1", "--key", key, timeout=90
    )
    assert ran.code == 0, ran
    return ran.json


async def _earned(town: Market, jobs: int) -> int:
    """What the seller has, once it has claimed its pay for so many jobs."""

    async def claimed():
        receipts = [one for one in await town.events() if one.kind == JOB_FEEDBACK and one.all("receipt")]
        return len(receipts) == jobs

    await until(claimed, "the seller to have its money")
    return (await town.balance("seller"))["live"]


async def whole(town: Market, name: str) -> None:
    """The books agree with the mint, and the ledger with itself."""
    audit = await town.vendo(name, "wallet", "audit")
    assert (audit.code, audit.json["clean"]) == (0, True), audit.out
    verified = await town.vendo(name, "ledger", "verify")
    assert verified.code == 0, verified.out


async def test_an_old_copy_pays_nothing_twice_and_has_what_the_mint_says(tmp_path):
    nodes = {"seller": SUMMARY_21, "buyer": Spec(replace=PATIENT), "friend": Spec()}
    async with market(tmp_path, nodes) as town:
        await town.fund("buyer", 500)
        await buy(town, "buyer", TEXT, "before")
        shown = (await take(town, "buyer", tmp_path / "copy")).json
        assert shown["stopped"] is False
        assert shown["npub"] == town.rings["buyer"].node.npub

        # life goes on, and the copy knows nothing of it
        bought = await buy(town, "buyer", FREE_TEXT, "after")
        token = (await town.vendo("buyer", "wallet", "send", "33")).json["token"]
        assert (await town.vendo("friend", "wallet", "receive", token)).code == 0
        await town.fund("buyer", 64)
        truth, earned = (await town.balance("buyer"))["live"], await _earned(town, jobs=2)
        wraps = len(await town.wraps_to(town.rings["seller"].node.pubkey))
        await lose(town, "buyer")

        put = (await put_back(town, "buyer", tmp_path / "copy")).json
        assert Path(put["before"]).is_dir()
        await town.up("buyer")
        known = await settled(town, "buyer")
        assert known["money_moved"] is True
        assert (await town.balance("buyer")) == {"live": truth, "reserved": 0, "locked": 0}
        await whole(town, "buyer")
        assert (await town.balance("seller"))["live"] == earned
        assert len(await town.wraps_to(town.rings["seller"].node.pubkey)) == wraps

        # and it works: what the copy knows under its key is not done again, and new work is
        again = await buy(town, "buyer", TEXT, "before")
        assert again["job_id"] != bought["job_id"]
        assert (await town.balance("buyer"))["live"] == truth
        await buy(town, "buyer", TEXT + " Then it rained.", "new")
        assert (await town.balance("buyer"))["live"] < truth
        await whole(town, "buyer")


async def test_a_node_that_moves_after_it_was_stopped_goes_on_as_if_nothing_was(tmp_path):
    async with market(tmp_path, {"one": Spec()}) as town:
        await town.fund("one", 100)
        await town.down("one")
        shown = (await take(town, "one", tmp_path / "copy")).json
        assert shown["stopped"] is True
        ran = await vendo("restore", str(tmp_path / "copy"), "--home", str(tmp_path / "two"), "--moved", "--json")
        assert ran.code == 0
        town.homes["two"], town.rings["two"] = tmp_path / "two", home.open_keyring(tmp_path / "two")
        await town.up("two")
        known = await settled(town, "two")
        assert (known["money_moved"], known["waited"], known["jobs"]) == (False, 0, 0)
        assert (await town.balance("two"))["live"] == 100
        await whole(town, "two")


async def test_what_waited_and_what_was_said_meanwhile_is_not_acted_upon(tmp_path):
    """A question that waits in the copy was answered since: the restored agent does not answer it again by itself."""
    async with market(tmp_path, {"seller": SUMMARY_21, "buyer": Spec(replace=PATIENT)}) as town:
        await town.fund("buyer", 200)
        await town.vendo("buyer", "pause")  # so that what is asked waits
        sent = await town.vendo("buyer", "send", "agent", f"summarize: {TEXT}")
        assert sent.code == 0
        await take(town, "buyer", tmp_path / "copy")
        await town.vendo("buyer", "resume")

        async def paid():
            balance = await town.balance("buyer")
            return balance["live"] < 180 and not balance["reserved"] and not balance["locked"]

        await until(paid, "the job to be paid", 120)
        truth = (await town.balance("buyer"))["live"]
        await lose(town, "buyer")
        await put_back(town, "buyer", tmp_path / "copy")
        await town.up("buyer")
        known = await settled(town, "buyer")
        assert known["waited"] == 1
        assert (await town.vendo("buyer", "resume")).code == 0
        await asyncio.sleep(3)
        assert (await town.balance("buyer"))["live"] == truth
        dead = await town.get("buyer", "agent/inbox/deadletter")
        assert "backup.waited" in json.dumps(dead)
