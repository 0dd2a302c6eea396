"""A whole node beside a real relay: what it says of itself in public, and what its operator sees of the relay."""

from pathlib import Path

from relays.nip65 import read_dm_relays, read_relay_list
from tests.market_part import ECHO_FREE, Market, market, until


async def _row(town: Market) -> dict[str, object]:
    rows = await town.get("node", "node/nostr/relays")
    assert [row["url"] for row in rows] == [town.relay]
    return dict(rows[0])


async def _metrics(town: Market) -> list[str]:
    base = town.nodes["node"].said["control"]
    async with town.http.get(f"{base}/metrics", headers=town.headers("node")) as answer:
        assert answer.status == 200
        return (await answer.text()).splitlines()


async def test_the_operator_sees_how_the_relay_is_until_it_dies_and_the_world_sees_the_node(tmp_path: Path) -> None:
    async with market(tmp_path, {"node": ECHO_FREE}, mint=False) as town:
        author = town.rings["node"].node.pubkey

        async def has_announced() -> bool:
            return {0, 10002, 10050, 11998, 31990} <= {one.kind for one in await town.events() if one.pubkey == author}

        await until(has_announced, "what the node says of itself")
        own = {one.kind: one for one in await town.events() if one.pubkey == author}
        assert read_relay_list(own[10002]).write == read_dm_relays(own[10050]) == (town.relay,)
        assert own[31990].value("d") == own[11998].value("d")

        async def is_known() -> bool:
            row = await _row(town)
            return bool(row["up"] and row["information"] and row["round_trip"])

        await until(is_known, "what the relay says of itself")
        row = await _row(town)
        information = row["information"]
        assert isinstance(information, dict)
        assert 77 in information["supported_nips"]
        listed = await town.vendo("node", "relay", "list")
        assert listed.code == 0
        assert set(listed.json[0]) == set(row)
        assert f'vendo_relay_up{{relay="{town.relay}"}} 1' in await _metrics(town)

        assert town.relay_child is not None
        await town.relay_child.kill()
        town.children.remove(town.relay_child)

        async def is_down() -> bool:
            return not (await _row(town))["up"]

        await until(is_down, "a relay that is down")
        assert f'vendo_relay_up{{relay="{town.relay}"}} 0' in await _metrics(town)
        assert (await _row(town))["last_error"]
