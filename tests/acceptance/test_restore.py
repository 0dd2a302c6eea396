"""A lost node is found again from its words."""

from node import home
from tests.market_part import market, vendo


async def test_a_lost_home_is_made_again_from_its_words_with_all_its_coins(tmp_path):
    async with market(tmp_path, {"lost": ""}) as town:
        await town.fund("lost", 500)
        sent = await town.vendo("lost", "wallet", "send", "100")
        assert sent.code == 0
        left = (await town.balance("lost"))["live"]
        await town.down("lost")
        words = tmp_path / "words"
        words.write_text(town.rings["lost"].words)

        made = await vendo(
            "init", "--home", str(tmp_path / "again"), "--relay", town.relay, "--mint", town.mint,
            "--port", "0", "--words", str(words), "--yes", "--no-passphrase", "--json",
        )  # fmt: skip
        assert made.code == 0
        town.homes["again"], town.rings["again"] = tmp_path / "again", home.open_keyring(tmp_path / "again")
        assert town.rings["again"].node.pubkey == town.rings["lost"].node.pubkey
        await town.up("again")
        assert (await town.balance("again"))["live"] == 0
        found = await town.vendo("again", "wallet", "restore")
        assert found.code == 0
        assert (await town.balance("again"))["live"] >= left
        audit = await town.vendo("again", "wallet", "audit")
        assert (audit.code, audit.json["clean"]) == (0, True)


async def test_words_that_fail_their_checksum_make_no_home(tmp_path):
    words = tmp_path / "words"
    words.write_text("abandon " * 12)
    made = await vendo("init", "--home", str(tmp_path / "h"), "--words", str(words), "--no-passphrase", "--json")
    assert made.code == 64
    assert made.error_code == "input.invalid"
    assert not (tmp_path / "h").exists()
