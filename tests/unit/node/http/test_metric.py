"""Prometheus' text format: what a scraper reads is what the pool counted."""

import re
from dataclasses import fields

from node.http.metric import family, relay_metrics
from relays.health import RelayHealth

SAMPLE = re.compile(
    r'^([a-z][a-z0-9_]*)(?:\{relay="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,quantile="([0-9.]+)")?\})? (-?[0-9.e+-]+)$'
)


def read(text: str) -> dict[tuple[str, str], float]:
    """Parse as a scraper does: every line is a comment or a sample, and each type is said before its samples."""
    found: dict[tuple[str, str], float] = {}
    typed: set[str] = set()
    for line in text.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert kind in ("gauge", "counter")
            assert kind != "counter" or name.endswith("_total")
            assert name not in typed, "a family is in one piece"
            typed.add(name)
        elif not line.startswith("# HELP "):
            match = SAMPLE.match(line)
            assert match, line
            assert match[1] in typed
            found[match[1] + (match[3] or ""), match[2] or ""] = float(match[4])
    return found


def test_every_number_of_every_relay_of_ours_is_there_under_its_name() -> None:
    one = RelayHealth("wss://one", up=True, received=7, in_flight=2, stopped={"notes": "blocked: no"}, last_error="x")
    two = RelayHealth("wss://two", forged=3)
    found = read(relay_metrics([(one, True), (two, True)]))
    assert found["vendo_relay_up", "wss://one"] == 1
    assert found["vendo_relay_up", "wss://two"] == 0
    assert found["vendo_relay_received_total", "wss://one"] == 7
    assert found["vendo_relay_forged_total", "wss://two"] == 3
    assert found["vendo_relay_in_flight", "wss://one"] == 2
    assert found["vendo_relay_stopped", "wss://one"] == 1
    for seconds in (0.010, 0.020, 0.500):
        one.delay.add(seconds)
    found = read(relay_metrics([(one, True), (two, True)]))
    assert found["vendo_relay_delay_seconds0.5", "wss://one"] == 0.02
    assert found["vendo_relay_delay_seconds0.99", "wss://one"] == 0.5
    assert ("vendo_relay_delay_seconds0.5", "wss://two") not in found
    assert not any("last_error" in name or "url" in name for name, _ in found)


def test_each_number_says_what_it_means() -> None:
    state = RelayHealth("wss://one")
    state.delay.add(1.0)
    text = relay_metrics([(state, True)])
    for one in fields(RelayHealth):
        name = f"vendo_relay_{one.name}"
        if re.search(rf"^# TYPE {name}(_total|_seconds)? ", text, re.M):
            assert re.search(rf"^# HELP {name}(_total|_seconds)? \S", text, re.M), (
                f"RelayHealth does not explain {one.name}"
            )


def test_relays_that_others_named_are_counted_and_not_named() -> None:
    strangers = [(RelayHealth(f"wss://x{n}", up=n < 2), False) for n in range(5)]
    text = relay_metrics([(RelayHealth("wss://one"), True), *strangers])
    assert "wss://x" not in text
    assert read(text)["vendo_relay_others_up", ""] == 2


def test_a_name_cannot_break_out_of_its_label() -> None:
    text = family("x", "gauge", "a\nb", [({"relay": 'ws://a"} 1\nevil 2\\'}, 1)])
    assert text.splitlines() == ["# HELP x a\\nb", "# TYPE x gauge", 'x{relay="ws://a\\"} 1\\nevil 2\\\\"} 1']


def test_a_node_without_relays_still_answers() -> None:
    assert read(relay_metrics([])) == {("vendo_relay_others_up", ""): 0}
