"""`[relay]`: what is refused, and what the relay is told."""

import tomllib
from pathlib import Path

import pytest
from pydantic import ValidationError

from node.config import Config, parse, render
from node.error import ConfigInvalid
from node.hosting import RelaySection, settings_of
from relays.embedded.rate import Rate
from relays.embedded.setting import RelaySettings
from relays.key import Key

KEY = Key(b"\3" * 32)
FULL = RelaySection(
    host="0.0.0.0",
    port=7000,
    public_url="wss://relay.example.com",
    keys=(KEY.npub,),
    write_by=("key", "pow"),
    kinds=("1", "5000-5999"),
    denied_addresses=("203.0.113.0/24",),
    trusted=(KEY.pubkey,),
    retention=({"kinds": [1], "time": 60},),
    trim=0.9,
    events_per_minute=60,
)


def test_the_relay_is_told_what_the_section_says():
    told = settings_of(FULL, Path("/srv"), pubkey="aa", version="1", mints=("https://mint.example.com",))
    assert (told.path, told.host, told.port) == (Path("/srv/relay.db"), "0.0.0.0", 7000)
    assert told.access.keys == told.access.trusted == {KEY.pubkey}
    assert told.access.kinds == ((1, 1), (5_000, 5_999))
    assert told.access.private is True
    assert told.rates.events == Rate(60, 20)
    assert (told.limits.trim, told.limits.store_bytes) == (0.9, 4_096 << 20)
    assert told.description.public_url == "wss://relay.example.com"
    assert list(told.description.retention) == [{"kinds": [1], "time": 60}]


def test_settings_survive_the_way_to_another_process():
    told = settings_of(FULL, Path("/srv"), mints=("https://mint.example.com",))
    line = told.to_json()
    assert b"\n" not in line
    assert RelaySettings.of_json(line) == told


@pytest.mark.parametrize(
    "bad",
    [
        {"share_port": True, "host": "0.0.0.0"},
        {"share_port": True, "host": "192.168.1.1"},
        {"share_port": True, "public_url": "wss://relay.example.com"},
        {"public_url": "https://relay.example.com"},
        {"public_url": "relay.example.com"},
        {"keys": ["npub1junk"]},
        {"trusted": ["zz"]},
        {"write_by": ["key"]},
        {"write_by": ["money"]},
        {"read_by": "key"},
        {"kinds": ["70000"]},
        {"kinds": ["9-3"]},
        {"kinds": ["x"]},
        {"addresses": ["10.0.0.1/8"]},
        {"proxies": ["localhost"]},
        {"unlimited": ["everyone"]},
        {"retention": [{"kind": 1}]},
        {"trim": 0.05},
        {"pow_bits": 0},
        {"price_sat": 0},
        {"port": 70_000},
        {"what": 1},
    ],
)
def test_what_cannot_be_meant_is_refused(bad):
    with pytest.raises(ValidationError):
        RelaySection.model_validate(bad)


def text(change="", relay="", port=8080):
    return render(owner=KEY.npub, relays=("ws://127.0.0.1:7777",), mints=(), port=port).replace(change, relay, 1)


def test_the_file_that_init_writes_holds_the_defaults():
    written = Config.model_validate(tomllib.loads(text("", "")))
    assert written.relay == RelaySection()


@pytest.mark.parametrize(
    ("change", "relay", "port"),
    [("write_by = []", 'write_by = ["payment"]', 8080), ("share_port = false", "share_port = true", 0)],
)
def test_payments_need_a_mint_and_a_shared_port_a_number(change, relay, port):
    with pytest.raises(ConfigInvalid):
        parse(text(change, relay, port))
