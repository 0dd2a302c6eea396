"""Files in messages: what goes round, and what a hostile one cannot do."""

from dataclasses import replace
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.identifier import PubKey
from relays.error import MalformedEvent, NotForUs
from relays.event import Tags
from relays.file_message import FileMessage, decrypt_file, encrypt_file, file_draft, read_file_message
from relays.key import Key
from relays.nip17 import Rumor, rumor_id

ALICE, BOB = Key.generate(), Key.generate()
SECRET, NONCE = b"k" * 32, b"n" * 12


def _message(data: bytes = b"hello") -> tuple[FileMessage, bytes]:
    stored = encrypt_file(data, SECRET, NONCE)
    x, ox = sha256(stored).hexdigest(), sha256(data).hexdigest()
    urls = (f"https://a.example/{x}", f"https://b.example/{x}")
    return FileMessage(urls, "text/plain", SECRET, NONCE, x, ox, len(stored)), stored


def _rumor(content: str, tags: Tags, kind: int = 15) -> Rumor:
    return Rumor(ALICE.pubkey, kind, content, tags, 1, "0" * 64)


def _sent(message: FileMessage) -> Rumor:
    draft = file_draft(message, BOB.pubkey, 1)
    return Rumor(ALICE.pubkey, draft.kind, draft.content, draft.tags, 1, rumor_id(ALICE.pubkey, draft))


@given(st.binary(min_size=1, max_size=2_000))
def test_a_file_goes_round(data: bytes) -> None:
    message, stored = _message(data)
    assert data not in stored or len(data) < 4
    read = read_file_message(_sent(message))
    assert read == message
    assert decrypt_file(read, stored) == data


def test_a_key_is_not_shown() -> None:
    message, _ = _message()
    assert SECRET.hex() not in repr(message)
    assert str(SECRET) not in repr(message)


def test_other_bytes_than_were_announced_are_not_decrypted() -> None:
    message, stored = _message()
    with pytest.raises(NotForUs, match="other bytes"):
        decrypt_file(message, stored + b"x")
    changed = bytes([stored[0] ^ 1]) + stored[1:]
    with pytest.raises(NotForUs, match="does not open"):
        decrypt_file(replace(message, x=sha256(changed).hexdigest()), changed)
    with pytest.raises(NotForUs, match="another one"):
        decrypt_file(replace(message, ox="0" * 64), stored)


def _changed(name: str, value: str | None) -> Rumor:
    rumor = _sent(_message()[0])
    tags = tuple(tag for tag in rumor.tags if tag[0] != name) + (((name, value),) if value is not None else ())
    return replace(rumor, tags=tags)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("encryption-algorithm", "none"),
        ("encryption-algorithm", None),
        ("decryption-key", None),
        ("decryption-key", "zz" * 32),
        ("decryption-key", "aa" * 31),
        ("decryption-nonce", "aa"),
        ("x", None),
        ("x", "A" * 64),
        ("ox", "short"),
        ("fallback", "file:///etc/passwd"),
    ],
)
def test_what_lacks_something_or_lies_is_no_file_message(name: str, value: str | None) -> None:
    with pytest.raises(MalformedEvent):
        read_file_message(_changed(name, value))


@pytest.mark.parametrize("url", ["", "ftp://a/b", "file:///etc/passwd", "https://a/" + "x" * 2_000, "javascript:1"])
def test_only_web_addresses_are_read(url: str) -> None:
    with pytest.raises(MalformedEvent):
        read_file_message(replace(_sent(_message()[0]), content=url))


def test_a_type_that_is_none_is_plain_bytes_and_a_size_that_is_none_is_nothing() -> None:
    assert read_file_message(_changed("file-type", "../../x")).mime == "application/octet-stream"
    assert read_file_message(_changed("size", "-1")).size == 0
    assert read_file_message(_changed("size", "9" * 40)).size == 0


def test_another_kind_is_none() -> None:
    with pytest.raises(MalformedEvent):
        read_file_message(_rumor("https://a.example/x", (), kind=14))


def test_the_receiver_is_named() -> None:
    assert _sent(_message()[0]).value("p") == PubKey(BOB.pubkey)
