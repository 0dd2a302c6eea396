"""Text on its way to nostr-sdk: unchanged, and not one byte at a time."""

import os
import time

import nostr_sdk
import pytest
from nostr_sdk import nostr_sdk as binding

from relays.binding import MENDED, _write
from relays.key import Key


def _bytewise(self, value):
    """What the binding does by itself."""
    with self._reserve(len(value)):
        for place, byte in enumerate(value):
            self.rbuf.data[self.rbuf.len + place] = byte


def _written(write, *parts: bytes) -> bytes:
    builder = binding._UniffiRustBufferBuilder()
    try:
        for part in parts:
            write(builder, part)
        return builder.rbuf.data[: builder.rbuf.len]
    finally:
        builder.discard()


def test_the_pinned_binding_is_the_one_that_was_looked_at():
    assert MENDED
    assert binding._UniffiRustBufferBuilder.write is _write


@pytest.mark.parametrize("sizes", [(0,), (1,), (0, 5, 0), (1, 2, 3, 300), (70_000,), (100, 70_000, 1)])
def test_the_same_bytes_arrive_as_one_by_one(sizes):
    parts = [os.urandom(size) for size in sizes]

    assert _written(_write, *parts) == _written(_bytewise, *parts) == b"".join(parts)


@pytest.mark.parametrize("text", ["a", "ß µ € 𝄞 \0 end", "x" * 60_000, "€" * 20_000])
def test_any_text_comes_back_from_encryption_as_it_was(text):
    one, other = Key.generate(), Key.generate()

    assert other.decrypt(one.pubkey, one.encrypt(other.pubkey, text)) == text


def test_an_empty_text_reaches_the_library_as_such():
    builder = nostr_sdk.EventBuilder(nostr_sdk.Kind(1), "")

    assert builder.finalize(nostr_sdk.Keys.generate()).content() == ""


def test_a_long_text_takes_a_small_part_of_the_time():
    text = os.urandom(200_000)

    def spent(write) -> float:
        begun = time.process_time()
        _written(write, text)
        return time.process_time() - begun

    assert 10 * min(spent(_write) for _ in range(3)) < min(spent(_bytewise) for _ in range(3))
