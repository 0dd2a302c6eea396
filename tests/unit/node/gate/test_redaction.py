"""Secrets that show by their form are taken out; what is public stays."""

import pytest

from node.gate.redaction import scrub
from relays.key import Key, new_words

SECRETS = [
    Key(b"\x01" * 32).nsec,
    Key(b"\x01" * 32).nsec.upper(),
    "cashuAeyJ0b2tlbiI6W3sibWludCI6Imh0dHA",
    "cashuBo2F0gaJhaUgA_9SLj17PgGFwgaNhYQFhc3hA-_==",
    "lnbc20u1p3y0x3hpp5743k2g0fsqqxj7n8qzuhns5gmkk4djeejk3wkp64ppevgekvc0jsdqcve5kzar2v9nr5gpqd4hkuetesp5ez2g297jduwc20t6lmqlsg3man0vf2jfd8ar9fh8fhn2g8yttfkqxqy9gcqcqzys",
    "LNBCRT1P0QQQQQQQQQQQQQQQQQQQQQQQQQ",
    "nostr+walletconnect://abc?relay=wss://r&secret=00ff",
    "bunker://abc?secret=1234",
    "Bearer abcdef0123456789",
    "sk-abcdefghijklmnopqrstuvwx",
]


@pytest.mark.parametrize("secret", SECRETS)
def test_a_secret_is_taken_out_of_the_text_around_it(secret: str) -> None:
    text = f'{{"note":"before {secret} after"}}'
    clean = scrub(text)
    assert secret.removeprefix("Bearer ") not in clean
    assert clean.startswith('{"note":"before ')
    assert clean.endswith(' after"}')
    assert "[redacted" in clean


def test_what_is_public_stays() -> None:
    public = f"{'ab' * 32} {Key(b'x' * 32).npub} wss://relay.example lnurl cashu nsec1 https://mint.example/v1/swap"
    assert scrub(public) == public


def test_known_secrets_are_found_by_value() -> None:
    words = new_words()
    assert words not in scrub(f"seed: {words}.", [words, ""])


@pytest.mark.parametrize("before", [r"key:\n", r"\t", r"\u000b", "key: ", ""])
def test_a_key_is_found_behind_an_escape_of_json_too(before: str) -> None:
    assert "abcdefghijklmnop" not in scrub(f'{{"text":"{before}sk-abcdefghijklmnopqrst"}}')
    assert scrub("a risk-abcdefghijklmnopqrst") == "a risk-abcdefghijklmnopqrst"
