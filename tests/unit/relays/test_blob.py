"""Pointers to large results: what is read of them, whoever wrote them; and lists of file servers."""

import orjson
import pytest

from core.error import InvalidInput
from relays.blob import (
    MAX_PLACES,
    MAX_SERVERS,
    Pointer,
    check_server,
    hash_of,
    place,
    read_pointer,
    read_servers,
    servers_draft,
)
from relays.error import MalformedEvent, NotForUs
from relays.event import Draft
from relays.file_message import encrypt_file
from relays.key import Key

KEY, NONCE = bytes(range(32)), bytes(range(12))
TEXT = b"a long story"
STORED = encrypt_file(TEXT, KEY, NONCE)
X, OX = hash_of(STORED), hash_of(TEXT)
URL = f"https://blossom.example/{X}"
GOOD = Pointer((URL, f"http://cdn.example:8080/{X}.txt"), X, len(STORED), "text/plain", NONCE, OX, KEY)
MOST = 1_000


def changed(**fields: object) -> str:
    value = orjson.loads(GOOD.to_json()) | fields
    return orjson.dumps({name: item for name, item in value.items() if item is not None}).decode()


def test_a_pointer_says_where_the_bytes_lie_and_opens_them() -> None:
    read = read_pointer(GOOD.to_json(), MOST)
    assert read == GOOD
    assert read.open(STORED) == TEXT
    assert KEY.hex() not in repr(read)
    assert set(orjson.loads(GOOD.to_json())) == {
        "url", "fallback", "file-type", "encryption-algorithm", "decryption-nonce", "decryption-key", "x", "ox", "size",
    }  # fmt: skip


def test_a_sealed_pointer_shows_neither_key_nor_hash_of_the_text_until_it_is_opened() -> None:
    sealed = Pointer(GOOD.urls, X, len(STORED), "text/plain", NONCE, OX, KEY, "c2VhbGVk")
    text = sealed.to_json()
    assert KEY.hex() not in text
    assert OX not in text
    read = read_pointer(text, MOST)
    assert (read.key, read.ox, read.sealed) == (b"", "", "c2VhbGVk")
    assert read.with_secret(GOOD.secret()) == GOOD


@pytest.mark.parametrize(
    "text",
    [
        "", "null", "[]", '"x"', "{", "1", "{}", "x" * 10_000, "[" * 5_000,
        changed(x=None), changed(x=X.upper()), changed(x=X[:-1]), changed(x=1), changed(x=X[:-1] + "\n"),
        changed(size=None), changed(size=0), changed(size=16), changed(size=-1), changed(size=True), changed(size="99"),
        changed(size=MOST + 17), changed(size=1 << 62), changed(size=1.5), changed(size=[]),
        changed(**{"encryption-algorithm": "rot13"}), changed(**{"encryption-algorithm": None}),
        changed(**{"encryption-algorithm": ["aes-gcm"]}),
        changed(**{"decryption-nonce": ""}), changed(**{"decryption-nonce": "00" * 16}),
        changed(**{"decryption-nonce": None}), changed(**{"decryption-nonce": "0g" * 12}),
        changed(**{"decryption-key": None}), changed(**{"decryption-key": "00" * 16}), changed(**{"decryption-key": 7}),
        changed(ox=None), changed(ox="zz"), changed(ox=[]),
        changed(sealed="c2VhbGVk"),  # and a key in clear beside it
        changed(sealed="", **{"decryption-key": None, "ox": None}),
        changed(sealed="not base64!", **{"decryption-key": None, "ox": None}),
        changed(sealed=["c2VhbGVk"], **{"decryption-key": None, "ox": None}),
        changed(sealed="A" * 3_000, **{"decryption-key": None, "ox": None}),
        changed(fallback="https://blossom.example"), changed(fallback={}),
    ],
)  # fmt: skip
def test_what_is_no_pointer_is_refused(text: str) -> None:
    with pytest.raises(MalformedEvent):
        read_pointer(text, MOST)


@pytest.mark.parametrize(
    "url",
    [
        None, 5, [], "", f"ftp://a.example/{X}", f"file:///{X}", f"javascript:{X}", f"//a.example/{X}", f"/{X}",
        f"https:///{X}", f"https://me:secret@a.example/{X}", f"https://me@a.example/{X}", f"https://a.example:99999/{X}",
        f"https://a.example:0/{X}", "https://a.example/", f"https://a.example/{'0' * 64}", f"https://a.example/{X}/delete",
        f"https://a.example/?x={X}", f"https://a.example/pay#{X}", f"https://a.example/{X} ", f"https://a.example/\n{X}",
        f"https://a.example/é/{X}", f"https://[::1/{X}", f"https://a.example/{'a/' * 300}{X}", f"HTTPS://a.example/{X}",
    ],
)  # fmt: skip
def test_an_address_that_could_lead_anywhere_is_passed_over(url: object) -> None:
    with pytest.raises(MalformedEvent):
        read_pointer(changed(url=url, fallback=[]), MOST)
    assert read_pointer(changed(url=url, fallback=[URL]), MOST).urls == (URL,)


def test_only_the_first_few_addresses_count_and_each_once() -> None:
    more = [f"https://b{number}.example/{X}" for number in range(50)]
    assert read_pointer(changed(fallback=[URL, URL, *more]), MOST).urls == (URL, more[0])
    assert len(read_pointer(changed(fallback=more), MOST).urls) == MAX_PLACES


@pytest.mark.parametrize("mime", [None, 5, "text", "text/plain; charset=utf-8", "a/" + "b" * 99, "te\nxt/plain"])
def test_a_type_that_is_none_becomes_plain_text(mime: object) -> None:
    assert read_pointer(changed(**{"file-type": mime}), MOST).mime == "text/plain"


@pytest.mark.parametrize("stored", [b"", STORED[:-1], STORED + b"\0", bytes(len(STORED)), TEXT])
def test_other_bytes_than_were_announced_are_not_opened(stored: bytes) -> None:
    with pytest.raises(NotForUs):
        GOOD.open(stored)


def test_a_key_or_a_hash_that_is_a_lie_opens_nothing() -> None:
    for fields in ({"decryption-key": "00" * 32}, {"decryption-nonce": "00" * 12}, {"ox": "0" * 64}):
        with pytest.raises(NotForUs):
            read_pointer(changed(**fields), MOST).open(STORED)


@pytest.mark.parametrize(
    "secret", ["", "{}", "no json", orjson.dumps({"x": "0" * 64, "ox": OX, "decryption-key": KEY.hex()}).decode()]
)
def test_what_was_sealed_must_be_a_key_for_these_very_bytes(secret: str) -> None:
    with pytest.raises(MalformedEvent):
        GOOD.with_secret(secret)


def test_a_list_of_servers_is_read_as_far_as_it_is_one() -> None:
    key = Key.generate()
    event = key.sign(servers_draft(["https://a.example/", "http://b.example:3000/sub"], 5))
    assert read_servers(event) == ("https://a.example", "http://b.example:3000/sub")
    assert place("https://a.example/", X) == f"https://a.example/{X}"
    odd = [("server",), ("server", "ftp://a.example"), ("server", "https://me@a.example"), ("r", "https://c.example")]
    many = [("server", f"https://s{number}.example") for number in range(99)]
    assert read_servers(key.sign(Draft(10063, "", tuple(odd + many), 5))) == tuple(
        f"https://s{number}.example" for number in range(MAX_SERVERS)
    )
    with pytest.raises(MalformedEvent):
        read_servers(key.sign(Draft(10002, "", (), 5)))


@pytest.mark.parametrize("url", ["", "a.example", "ws://a.example", "https://a.example?x=1", "https://a.example#x"])
def test_what_is_no_server_is_not_put_on_our_list(url: str) -> None:
    with pytest.raises(InvalidInput):
        check_server(url)
