"""Relay addresses."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from core.error import InvalidInput
from relays.address import canonical, is_nameable, is_public, is_relay_url
from relays.embedded.authority import Name


@pytest.mark.parametrize(
    ("given", "spelled"),
    [
        ("wss://Relay.Example.COM/", "wss://relay.example.com"),
        ("WSS://relay.example.com:443", "wss://relay.example.com"),
        (" ws://127.0.0.1:7777/ ", "ws://127.0.0.1:7777"),
        ("ws://r.example/path/", "ws://r.example/path/"),
        ("ws://r.example/?a=b", "ws://r.example/?a=b"),
        ("ws://r.example/#x", "ws://r.example"),
    ],
)
def test_one_relay_has_one_spelling(given: str, spelled: str) -> None:
    assert canonical(given) == spelled
    assert canonical(spelled) == spelled


@pytest.mark.parametrize(
    "bad", ["", "http://x", "relay.example", "wss://", "wss://u:p@x", "wss://u@x", "ws://x:99999", "ws://" + "x" * 600]
)
def test_other_addresses_are_refused(bad: str) -> None:
    assert not is_relay_url(bad)
    with pytest.raises(InvalidInput):
        canonical(bad)


def test_only_the_public_internet_is_public() -> None:
    inside = ["127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254", "0.0.0.0", "::1", "fe80::1%eth0", "fd00::1",
              "::ffff:127.0.0.1", "224.0.0.1", "100.64.0.1", "name", "64:ff9b::7f00:1", "64:ff9b::10.1.2.3",
              "2002:7f00:1::1", "2002:a9fe:a9fe::1"]  # fmt: skip
    assert [host for host in inside if is_public(host)] == []
    assert is_public("8.8.8.8")
    assert is_public("2606:4700::1111")
    assert is_public("64:ff9b::8.8.8.8")


@pytest.mark.parametrize(
    "url",
    ["wss://relay.example", "wss://relay.example./x", "ws://8.8.8.8:7777", "wss://[2606:4700::1111]", "wss://xn--bcher-kva.example"],
)  # fmt: skip
def test_a_stranger_may_name_a_relay_on_the_public_internet(url: str) -> None:
    assert is_nameable(url)


@pytest.mark.parametrize(
    "url",
    ["ws://127.0.0.1:7777", "ws://localhost:7777", "wss://db.localhost", "ws://printer.local", "wss://vault.internal",
     "ws://router", "ws://169.254.169.254/latest", "ws://[::1]:7777", "ws://[::ffff:10.0.0.1]", "ws://2130706433",
     "ws://0x7f000001", "ws://127.1", "wss://abc.onion", "ws://LOCALHOST.", "https://relay.example", "nonsense"],
)  # fmt: skip
def test_a_stranger_names_nothing_inside_our_network(url: str) -> None:
    assert not is_nameable(url)


_PIECES = ["ws://", "wss://", "[", "]", "::1", "%", "%25", "%zz", "@", ":", "/", "?", "#", "a", "é", "xn--", "xn--a",
           "。", "\u200d", "\0", "\n", " ", "..", "127.1", "0x7f", "65536", "-1", "ß", "İ", "a" * 70]  # fmt: skip


@given(st.lists(st.sampled_from(_PIECES), min_size=1, max_size=6))
@example(["xn--a"])
@example(["@%25][@ "])
@example(["[:-1]"])
def test_no_text_of_a_stranger_is_more_than_refused(pieces: list[str]) -> None:
    """One that raises something else ends whoever reads it: the relay's writer, for one."""
    url = "ws://" + "".join(pieces)
    if is_relay_url(url):
        assert canonical(url)
    assert is_nameable(url) in (True, False)
    assert Name.of(url) is None or Name.of(url)
