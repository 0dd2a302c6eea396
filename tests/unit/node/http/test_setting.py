"""`[http]`: what may be set, and where the control plane must not listen."""

import re
import tomllib
from pathlib import Path

import pytest

from node import config
from node.error import ConfigInvalid
from node.http.rate import Rate
from node.http.setting import split_name
from relays.key import Key

OWNER = Key(b"\x01" * 32)
BASE = config.render(owner=OWNER.npub, relays=("ws://127.0.0.1:1",), mints=(), port=8080)
PAGE = Path(__file__).parents[4] / "docs" / "how-to" / "open-the-control-plane.md"
TLS = 'tls_cert = "c.pem"\ntls_key = "k.pem"\n'
NAMED = 'names = ["node.example"]\n'


def parsed(http: str = "", host: str = "127.0.0.1", more: str = "") -> config.Config:
    text = re.sub(r"^\[http\].*?(?=^\[)", f"[http]\n{http}\n", BASE, flags=re.M | re.S)
    return config.parse(text.replace('host = "127.0.0.1"', f'host = "{host}"', 1) + more)


def test_the_file_that_init_writes_has_the_defaults() -> None:
    section = config.parse(BASE).http
    assert section == parsed().http
    assert not section.is_open
    assert section.rates().operator == Rate(20_000, 40_000)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_this_machine_needs_nothing(host: str) -> None:
    assert parsed(host=host).node.host == host


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "2001:db8::7", "127.0.0.2"])
@pytest.mark.parametrize("http", [NAMED + TLS, NAMED + "behind_proxy = true\n"])
def test_another_address_needs_an_encrypted_way_in_and_a_name(host: str, http: str) -> None:
    assert parsed(http, host).node.host == host
    with pytest.raises(ConfigInvalid, match="encrypted way in"):
        parsed("", host)


@pytest.mark.parametrize(
    ("http", "why"),
    [
        (NAMED, "names"), (TLS, "names"), ("behind_proxy = true\n", "names"),
        (NAMED + 'tls_cert = "c.pem"\n', "belong together"), (NAMED + 'tls_key = "c.pem"\n', "belong together"),
        (NAMED + TLS + "behind_proxy = true\n", "either"),
        (TLS + 'names = ["Node.example"]\n', "a name is like"), (TLS + 'names = ["https://node.example"]\n', "a name"),
        (TLS + 'names = ["node.example:0"]\n', "a name"), (TLS + 'names = ["node.example:70000"]\n', "a name"),
        (TLS + 'names = ["*"]\n', "a name"), (TLS + 'names = [""]\n', "a name"), (TLS + 'names = ["a/b"]\n', "a name"),
        ('nostr = [{npub = "npub1x", role = "operator"}]\n', "nostr"),
        (f'nostr = [{{npub = "{OWNER.npub}"}}]\n', "role"),
        (f'nostr = [{{npub = "{OWNER.npub}", role = "public"}}]\n', "role"),
        (f'nostr = [{{npub = "{OWNER.npub}", role = "agent"}}]\n', "names its agent"),
        (f'nostr = [{{npub = "{OWNER.npub}", role = "operator", agent = "a"}}]\n', "names none"),
        (f'nostr = [{{npub = "{OWNER.npub}", role = "agent", agent = "../a"}}]\n', "agent"),
        (f'nostr = [{{npub = "{OWNER.npub}", role = "operator"}}, {{npub = "{OWNER.pubkey}", role = "operator"}}]\n',
         "twice"),
        ("agent_per_second = -1\n", "agent_per_second"), ("public_burst = 0\n", "public_burst"),
        ("other = 1\n", "other"),
    ],
)  # fmt: skip
def test_what_makes_no_sense_is_refused_with_a_reason(http: str, why: str) -> None:
    with pytest.raises(ConfigInvalid, match=why) as caught:
        parsed(http)
    assert caught.value.advice


@pytest.mark.parametrize("host", ["localhost", "node.example", "", "0", "127.0.0.1:80", "[::1]"])
def test_a_host_that_is_no_address_is_refused(host: str) -> None:
    with pytest.raises(ConfigInvalid, match="is an address"):
        parsed(NAMED + TLS, host)


def test_the_relay_shares_no_port_that_others_reach() -> None:
    shared = BASE.replace("share_port = false", "share_port = true")
    config.parse(shared)
    named = shared.replace("names = []", 'names = ["node.example"]')
    with pytest.raises(ConfigInvalid, match="share_port"):
        config.parse(named.replace("behind_proxy = false", "behind_proxy = true"))


def test_a_key_is_whose_the_setting_says() -> None:
    other = Key(b"\x02" * 32)
    theirs = f'{{npub = "{other.pubkey}", role = "agent", agent = "a"}}'
    section = parsed(f'nostr = [{{npub = "{OWNER.npub}", role = "operator"}}, {theirs}]').http
    grants = section.signers()
    assert (grants[OWNER.pubkey].caller, grants[other.pubkey].caller) == ("operator", "agent:a")


@pytest.mark.parametrize(
    ("name", "parts"),
    [
        ("node.example", ("node.example", 443)), ("node.example:8443", ("node.example", 8443)),
        ("192.0.2.7:8443", ("192.0.2.7", 8443)), ("[2001:db8::7]:8443", ("[2001:db8::7]", 8443)), ("a", ("a", 443)),
    ],
)  # fmt: skip
def test_a_name_is_a_host_and_a_port(name: str, parts: tuple[str, int]) -> None:
    assert split_name(name) == parts


def test_what_the_page_shows_is_a_configuration() -> None:
    blocks = re.findall(r"^```toml\n(.*?)^```", PAGE.read_text(), re.M | re.S)
    assert len(blocks) == 3
    keys = iter((OWNER.npub, Key(b"\x02" * 32).npub))
    nostr, node, proxy = (tomllib.loads(re.sub("npub1…", lambda _: next(keys), block)) for block in blocks)
    base = tomllib.loads(BASE)
    for shown in (nostr, node, proxy):
        whole = {**base, "http": shown["http"], "node": {**base["node"], **shown.get("node", {})}}
        assert config.Config.model_validate(whole).http
