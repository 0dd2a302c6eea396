"""What members of a company tell each other of themselves."""

import orjson

from core.clock import SystemClock
from node.share.company import Company
from node.storage.seat import Place, Roll, Seat


async def test_a_member_knows_which_agents_stand_in_the_configurations_of_the_others() -> None:
    def member(*agents: str) -> Company:
        return Company(
            "postgresql://nowhere/x", SystemClock(), lock="l", lease_s=15, renew_s=3, end=lambda _: None, agents=agents
        )

    here, there, alone = member("mine", "ours"), member("ours", "theirs"), member()
    told = [orjson.dumps(dict(one._about())).decode() for one in (here, there)]
    assert alone.named() == set()
    places = [Place(slot, 1) for slot in range(3)]
    older = Seat(places[2], 1_000, orjson.dumps({"host": "says nothing of agents"}).decode())
    seats = tuple(Seat(place, 1_000, about) for place, about in zip(places[:2], told, strict=True))
    here.member._place, here.member.roll = places[0], Roll(seats, places[0].id, 1)
    assert here.named() == {"ours", "theirs"}
    here.member.roll = Roll((*seats, older), places[0].id, 1)
    assert here.named() is None
