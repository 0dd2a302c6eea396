"""Which keys are asked for in which REQ, and how far was read for each."""

from collections.abc import Callable

from relays.audience import Audience
from relays.shard import Shards
from relays.subscription import BACKDATE_S, Spec, Stream

NOW = 1_800_000_000


def ignore(key: str) -> None:
    return None


def audience(*keys: str, backdated: bool = True) -> Audience:
    made = Audience("dm", frozenset({1059}), "p", ignore, ignore, backdated=backdated)
    for key in keys:
        made.add(key)
    return made


def asked(spec: Spec) -> set[str]:
    return set(spec.filters[0].tags["p"])


class Relay:
    """Carries out plans as a connection does."""

    def __init__(self, shards: Shards, capacity: int = 10) -> None:
        self.shards, self.capacity = shards, capacity
        self.open: dict[str, Stream] = {}
        self.may: Callable[[str], bool] | None = None

    def plan(self) -> list[tuple[Spec, int | None]]:
        plan = self.shards.plan(self.capacity, self.may)
        for name in plan.shut:
            del self.open[name]
        for spec, high in plan.open:
            stream = self.open[spec.name] = Stream(spec, high)
            stream.begin(spec.name, NOW, 0.0)
            self.shards.opened(stream)
        return plan.open

    def read(self) -> None:
        for stream in list(self.open.values()):
            if not stream.whole:
                stream.finish()
                for name in self.shards.read(stream):
                    del self.open[name]

    def keys(self) -> set[str]:
        return {key for stream in self.open.values() for key in asked(stream.spec)}


def test_keys_are_asked_for_in_as_few_requests_as_hold_them() -> None:
    keys = [str(n) for n in range(25)]
    relay = Relay(Shards(audience(*keys), None, {}))
    assert [len(asked(spec)) for spec, _ in relay.plan()] == [10, 10, 5]
    assert relay.keys() == set(keys)


def test_a_known_key_resumes_and_an_unknown_one_is_read_from_its_own_beginning() -> None:
    made = audience("old")
    made.add("new", NOW - 500)
    relay = Relay(Shards(made, NOW - 100, {"old": 0}))
    found = {next(iter(asked(spec))): (high, spec.filters[0].since) for spec, high in relay.plan()}
    assert found == {"old": (NOW - 100, 0), "new": (None, NOW - 500 - BACKDATE_S)}


def test_keys_that_come_while_others_are_read_wait_and_go_together() -> None:
    made = audience("a")
    shards = Shards(made, None, {})
    relay = Relay(shards)
    relay.plan()
    for key in ("b", "c"):
        made.add(key)
        shards.add(key)
        assert relay.plan() == []
    relay.read()
    ((spec, high),) = relay.plan()
    assert (asked(spec), high) == ({"b", "c"}, None)


def test_small_requests_are_joined_and_the_old_ones_stay_open_until_the_new_one_has_answered() -> None:
    made = audience("a")
    shards = Shards(made, None, {})
    relay = Relay(shards)
    for key in ("b", "c", "d"):
        relay.plan()
        relay.read()
        made.add(key)
        shards.add(key)
    relay.plan()
    relay.read()
    ((spec, high),) = relay.plan()
    assert spec.live
    assert high is not None
    assert len(relay.open) == 5
    relay.read()
    assert relay.keys() == {"a", "b", "c", "d"}
    assert len(relay.open) == 1


def test_a_key_is_as_far_as_all_only_when_it_was_read() -> None:
    shards = Shards(audience("a", "b"), None, {})
    relay = Relay(shards)
    relay.plan()
    assert shards.own == {}
    relay.read()
    assert shards.own == {"a": 0, "b": 0}
    shards.settle()
    assert shards.high == NOW


def test_a_key_that_may_not_be_asked_for_keeps_its_place_while_the_others_go_on() -> None:
    shards = Shards(audience("a", "b"), NOW - 9_000, {"a": 0, "b": 0})
    relay = Relay(shards)
    relay.may = lambda key: key == "a"
    relay.plan()
    relay.read()
    for stream in relay.open.values():
        stream.high = NOW
    shards.settle()
    assert (shards.high, shards.own) == (NOW, {"a": 0, "b": NOW - 9_000})
    relay.may = None
    ((spec, high),) = relay.plan()
    assert (asked(spec), high) == ({"b"}, NOW - 9_000)


def test_after_a_new_connection_everything_is_asked_for_again() -> None:
    shards = Shards(audience("a", "b"), None, {})
    relay = Relay(shards)
    relay.plan()
    shards.restart()
    relay.open.clear()
    relay.plan()
    assert relay.keys() == {"a", "b"}


def test_what_a_relay_perhaps_hid_does_not_count_as_read() -> None:
    shards = Shards(audience("a", "b"), None, {})
    relay = Relay(shards)
    relay.plan()
    relay.read()
    shards.doubt("a")
    assert shards.own == {"a": 0}


def test_a_key_that_left_is_forgotten() -> None:
    made = audience("a", "b")
    shards = Shards(made, None, {})
    relay = Relay(shards)
    relay.plan()
    relay.read()
    shards.changed.clear()
    made.remove("a")
    shards.remove("a")
    assert (shards.own, shards.changed) == ({"b": 0}, {"a"})
