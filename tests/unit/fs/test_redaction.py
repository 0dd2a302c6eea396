"""No planted secret of any class survives, wherever it stands; what is harmless stays as it is."""

import base64
import hashlib
import time
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mnemonic import Mnemonic

from fs.redaction import HIDDEN, MAX_DEPTH, Redaction, is_secret_name
from relays.key import Key

WORDS = Mnemonic("english")
REDACTION = Redaction(is_word=frozenset(WORDS.wordlist).__contains__)
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
ALNUM = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


def noise(seed: int, alphabet: str, length: int) -> str:
    """Letters as random ones are: a function of the seed."""
    stream = hashlib.shake_128(seed.to_bytes(8, "big")).digest(2 * length)
    return "".join(alphabet[int.from_bytes(stream[2 * n : 2 * n + 2], "big") % len(alphabet)] for n in range(length))


def raw(seed: int, length: int = 32) -> bytes:
    return hashlib.shake_256(seed.to_bytes(8, "big")).digest(length)


def part(seed: int) -> str:
    return base64.urlsafe_b64encode(raw(seed, 24)).decode().rstrip("=")


CLASSES = {
    "nsec": lambda n: Key(raw(n)).nsec,
    "NSEC": lambda n: Key(raw(n)).nsec.upper(),
    "ncryptsec": lambda n: "ncryptsec1" + noise(n, BECH32, 60),
    "cashuA": lambda n: "cashuA" + noise(n, ALNUM, 50),
    "cashuB": lambda n: "cashuB" + noise(n, ALNUM + "-_", 50) + "==",
    "invoice": lambda n: "lnbc20u1" + noise(n, BECH32, 90),
    "test invoice": lambda n: "lntb1500n1" + noise(n, BECH32, 90),
    "regtest invoice": lambda n: "lnbcrt10m1" + noise(n, BECH32, 90),
    "wallet connect": lambda n: f"nostr+walletconnect://{raw(n).hex()}?relay=wss://r.example&secret={raw(n + 1).hex()}",
    "bunker": lambda n: f"bunker://{raw(n).hex()}?secret={noise(n, ALNUM, 12)}",
    "nostrconnect": lambda n: f"nostrconnect://{raw(n).hex()}?secret={noise(n, ALNUM, 8)}",
    "bearer": lambda n: "Bearer " + noise(n, ALNUM + "._-", 30),
    "basic": lambda n: "Authorization: Basic " + base64.b64encode(b"me:" + raw(n, 9)).decode(),
    "sk": lambda n: "sk-" + noise(n, ALNUM, 40) + "7",
    "sk-proj": lambda n: f"sk-proj-{noise(n, ALNUM, 24)}_{noise(n + 1, ALNUM, 24)}",
    "ghp": lambda n: "ghp_" + noise(n, ALNUM, 36),
    "pat": lambda n: "github_pat_" + noise(n, ALNUM + "_", 60),
    "slack": lambda n: "xoxb-" + noise(n, ALNUM, 24),
    "webhook": lambda n: "whsec_" + base64.b64encode(raw(n)).decode(),
    "turn": lambda n: "vendo_turn_" + base64.urlsafe_b64encode(raw(n)).decode().rstrip("="),
    "xprv": lambda n: "xprv" + noise(n, ALNUM.replace("0", "").replace("O", "").replace("I", "").replace("l", ""), 100),
    "jwt": lambda n: "eyJ" + ".".join(part(n + k) for k in range(3)),
    "pem": lambda n: (
        f"-----BEGIN EC PRIVATE KEY-----\n{base64.b64encode(raw(n)).decode()}\n-----END EC PRIVATE KEY-----"
    ),
    "hex": lambda n: raw(n).hex(),
    "HEX": lambda n: raw(n, 40).hex().upper(),
    "base64": lambda n: base64.b64encode(raw(n)).decode(),
    "base64url": lambda n: base64.urlsafe_b64encode(raw(n, 48)).decode(),
    "words": lambda n: WORDS.to_mnemonic(raw(n, 16)),
    "24 words, numbered": lambda n: "\n".join(
        f"{k}. {word}" for k, word in enumerate(WORDS.to_mnemonic(raw(n)).split(), 1)
    ),
    "url": lambda n: f"https://me:{noise(n, ALNUM, 9)}@mint.example/v1",
    "query": lambda n: f"https://mint.example/v1?a=1&access_token={noise(n, ALNUM, 12)}",
    "setting": lambda n: f"DB_PASSWORD={noise(n, ALNUM, 10)}",
}
CORE = {
    # what of a class must not be left; by default the whole without its first 10 characters
    "bearer": lambda text: text.removeprefix("Bearer "),
    "basic": lambda text: text.rpartition(" ")[2],
    "url": lambda text: text.partition("me:")[2].partition("@")[0],
    "query": lambda text: text.rpartition("=")[2],
    "setting": lambda text: text.rpartition("=")[2],
    "pem": lambda text: text.splitlines()[1],
}
HARMLESS = [
    "The agent used 1200 tokens and 3 secrets of the trade.",
    "a bearer of good news, and basic understanding of state-of-the-art tokens",
    "tokens: input 12, output 30; password policies are described in the manual",
    "Tick 42 took 120 ms; see https://example.org/docs/2026/report-of-the-year.html#numbers",
    "/usr/share/doc/some-package/examples/configuration-of-everything/README.txt",
    "/Users/me/Documents/Work/vendo/tests/unit",
    "scikit: sk-learn-contrib; risk-averse-investors-of-the-world; lnurl cashu nsec1 npub1 connect",
    "550e8400-e29b-41d4-a716-446655440000",
    f"nostr:{Key(b'x' * 32).npub} wrote to wss://relay.example:7777/path",
    "someVeryOrdinaryName = other_name_of_a_thing_that_is_rather_long_but_plain",
    "2026-11-22T03:00:00Z agent.failed gate.refused budget.exceeded store.conflict",
    "Überraschung: 1 234 567 µs — «тест» 試験 🎉",
    '{"tokens": 12, "max_tokens": 100, "ok": true, "note": "no secrets here"}',
    "time will show that people who know much about money often say nothing",
]
SEEDS = st.integers(0, 1 << 40)
AROUND = st.text(max_size=30)


def core_of(name: str, secret: str) -> str:
    return CORE[name](secret) if name in CORE else secret[10:]


def survives(name: str, secret: str, shown: str) -> bool:
    """Whether so much of a secret is left that somebody could use it."""
    if "words" in name:
        return secret in shown or sum(word in shown.split() for word in secret.split() if word.isalpha()) > 3
    return core_of(name, secret) in shown


@pytest.mark.parametrize("name", CLASSES)
@given(seed=SEEDS, before=AROUND, after=AROUND)
@settings(max_examples=15)
def test_no_secret_survives_anywhere_in_a_text(name: str, seed: int, before: str, after: str) -> None:
    secret = CLASSES[name](seed)
    for text in (secret, f"before {secret} after", f'"{secret}"', f"({secret}),", f"{before} {secret} {after}"):
        shown = REDACTION.text(text)
        assert not survives(name, secret, shown), shown
        assert REDACTION.text(shown) == shown


GLUED = sorted(CLASSES.keys() - {"bearer", "basic", "words", "24 words, numbered", "setting", "query"})


@pytest.mark.parametrize("name", GLUED)
@given(seed=SEEDS, before=st.sampled_from(["a", "Zz", "x" * 100, "0", "é", "_", "{\\n", "="]))
@settings(max_examples=10)
def test_a_secret_that_stands_behind_something_else_is_found(name: str, seed: int, before: str) -> None:
    secret = CLASSES[name](seed)
    shown = REDACTION.text(before + secret)
    assert core_of(name, secret) not in shown, shown
    assert REDACTION.text(shown) == shown


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 60), 1 << 60) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=12,
)


def planted(value: Any, secret: str, path: list[int]) -> Any:
    """The same JSON with a secret somewhere in it."""
    for step in path:
        if step % 3 == 0:
            value = [value, secret]
        elif step % 3 == 1:
            value = {"a": value, "note": f"so: {secret}."}
        else:
            value = {"inner": orjson.dumps([value, {"b": secret}]).decode(), secret: 1}
    return value


@given(
    name=st.sampled_from(sorted(CLASSES.keys() - {"24 words, numbered", "words"})),
    seed=SEEDS,
    value=JSON,
    path=st.lists(st.integers(0, 8), min_size=1, max_size=6),
)
def test_no_secret_survives_at_any_depth_of_json(name: str, seed: int, value: Any, path: list[int]) -> None:
    secret = CLASSES[name](seed)
    shown = REDACTION.value(planted(value, secret, path))
    assert core_of(name, secret) not in orjson.dumps(shown).decode()
    assert REDACTION.value(shown) == shown


@given(JSON)
def test_redaction_of_redacted_json_changes_nothing(value: Any) -> None:
    shown = REDACTION.value(value)
    assert REDACTION.value(shown) == shown


@given(st.text(alphabet=st.sampled_from("abesktokn=:/@._-+ [\"'{}]1AQzf\\"), max_size=200))
@settings(max_examples=300)
def test_redaction_of_redacted_text_changes_nothing(text: str) -> None:
    shown = REDACTION.text(text)
    assert REDACTION.text(shown) == shown


@pytest.mark.parametrize("text", HARMLESS)
def test_harmless_texts_stay_as_they_are(text: str) -> None:
    assert REDACTION.text(text) == text
    assert REDACTION.value({"a": [text]}) == {"a": [text]}


def test_words_of_a_seed_in_a_list_are_found() -> None:
    words = WORDS.to_mnemonic(raw(5, 16)).split()
    assert REDACTION.value({"x": words}) == {"x": HIDDEN}
    assert REDACTION.value({"x": words[:5]}) == {"x": words[:5]}


@pytest.mark.parametrize(
    "name",
    [
        "token",
        "access_token",
        "apiKey",
        "API_KEY",
        "client-secret",
        "password",
        "PASSWORD",
        "dbPasswd",
        "authorization",
        "private_key",
        "privKey",
        "nsec",
        "seed",
        "seed_words",
        "mnemonic",
        "preimage",
        "payment_preimage",
        "credentials",
        "secretKey",
        "seckey",
        "sessionToken",
        "jwt",
        "cookie",
        "refreshtoken",
    ],
)
def test_a_field_that_is_called_like_a_secret_is_hidden_whatever_it_holds(name: str) -> None:
    assert is_secret_name(name)
    assert REDACTION.value({name: "short"}) == {name: HIDDEN}
    assert REDACTION.value({"a": [{name: {"deep": ["x"]}}]}) == {"a": [{name: HIDDEN}]}
    assert REDACTION.value({name: None}) == {name: None}


@pytest.mark.parametrize(
    "name", ["tokens", "input_tokens", "max_tokens", "author", "tokenizer", "secretary", "monkey", "turkey", "status"]
)
def test_a_field_that_only_sounds_like_one_keeps_its_number(name: str) -> None:
    assert REDACTION.value({name: 12}) == {name: 12}


def test_public_ids_stay_under_their_names_and_where_they_are_known() -> None:
    key = raw(1).hex()
    assert REDACTION.value({"pubkey": key, "note": key}) == {"pubkey": key, "note": HIDDEN}
    known = Redaction(is_public=frozenset({key}).__contains__)
    assert known.value({"note": f"from {key}"}) == {"note": f"from {key}"}
    assert Redaction(known=("hunter2",)).text("my hunter2!") == f"my {HIDDEN}!"


def test_what_is_no_json_and_what_lies_too_deep_is_hidden() -> None:
    assert REDACTION.value({"a": b"bytes", "b": object()}) == {"a": HIDDEN, "b": HIDDEN}
    deep: Any = "sk-" + "a1" * 20
    for _ in range(10_000):
        deep = [deep]
    shown = REDACTION.value(deep)
    for _ in range(MAX_DEPTH):
        (shown,) = shown
    assert shown == HIDDEN


LONG = 100_000
HOSTILE = [
    (piece * (LONG // len(piece) + 1))[:LONG]
    for piece in (
        "a",
        "eyJ",
        "sk-",
        "nsec1",
        "://",
        "a:",
        "authorization:",
        "Bearer ",
        "-----BEGIN PRIVATE KEY-----",
        "password=",
        "token: ",
        "abandon " * 9 + "zzz ",
        "0123456789abcdef" * 3 + "g",
        "[",
        '{"a":',
        "aA0",
        "\\",
        "bunker:",
        "eyJ.",
    )
] + ["lnbc" + "1" * LONG, "http://" + "a:" * LONG, "[" * 900 + "]" * 900, "x y " * (1 << 18)]


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:24])
def test_hostile_texts_take_time_in_proportion(text: str) -> None:
    began = time.process_time()
    REDACTION.text(text)
    assert time.process_time() - began < 15, "a megabyte takes a second or two, and not hours"


def test_json_within_json_within_json_is_looked_into() -> None:
    text = "password hidden"
    value: Any = {"password": "x1"}
    for _ in range(6):
        value = {"inner": orjson.dumps(value).decode(), "t": text}
    shown = REDACTION.value(value)
    assert "x1" not in orjson.dumps(shown).decode()
    assert shown["t"] == text
