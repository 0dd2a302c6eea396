"""What NIP-77 fixes to the byte, and where reconciliation refuses to go on."""

import hashlib
import tracemalloc

import pytest

from relays import negentropy
from relays.error import MalformedSync
from relays.negentropy import MAX_MESSAGE_BYTES, MAX_ROUNDS, Initiator, Vector, respond

ONE = "11" * 32


def test_an_empty_side_opens_with_an_empty_list_up_to_infinity() -> None:
    assert Initiator(Vector([])).start() == "61" + "00" + "00" + "02" + "00"


def test_a_single_item_is_named_by_its_id() -> None:
    assert Initiator(Vector([(5, ONE)])).start() == "61" + "00" + "00" + "02" + "01" + ONE


def test_the_fingerprint_is_the_hash_of_the_little_endian_sum_and_the_count() -> None:
    total = (int.from_bytes(b"\x11" * 32, "little") + int.from_bytes(b"\xff" * 32, "little")) % (1 << 256)
    expected = hashlib.sha256(total.to_bytes(32, "little") + b"\x02").digest()[:16]
    assert Vector([(5, ONE), (6, "ff" * 32)]).fingerprint(0, 2) == expected


def test_fingerprints_of_any_range_equal_their_definition_over_block_borders() -> None:
    items = [(n, hashlib.sha256(bytes([n])).hexdigest()) for n in range(100)]
    vector = Vector(items)
    for low, high in ((0, 100), (31, 33), (32, 64), (63, 97), (50, 50)):
        total = sum(int.from_bytes(bytes.fromhex(one), "little") for _, one in items[low:high]) % (1 << 256)
        assert (
            vector.fingerprint(low, high)
            == hashlib.sha256(total.to_bytes(32, "little") + bytes([high - low])).digest()[:16]
        )


def test_bounds_are_as_short_as_they_can_be() -> None:
    vector = Vector([(5, "aa" * 32), (5, "aab0" + "00" * 30), (9, "00" * 32)])
    assert vector.bound(1) == (5, b"\xaa\xb0")
    assert vector.bound(2) == (9, b"")


def test_another_version_is_answered_with_ours_alone_and_ends_our_own_side() -> None:
    assert respond(Vector([]), "62000002") == "61"
    with pytest.raises(MalformedSync):
        Initiator(Vector([])).receive("62")
    with pytest.raises(MalformedSync):
        respond(Vector([]), "7100")


def test_a_bare_version_byte_from_the_other_side_means_agreement() -> None:
    here = Initiator(Vector([(1, ONE)]))
    here.start()
    step = here.receive("61")
    assert (step.reply, step.have, step.need) == (None, [], [])


@pytest.mark.parametrize("message", ["", "6", "zz", "61" + "0500" + "05", "61" * (MAX_MESSAGE_BYTES + 1)])
def test_what_is_no_message_is_refused(message: str) -> None:
    with pytest.raises(MalformedSync):
        respond(Vector([]), message)


def test_ranges_that_go_back_are_refused() -> None:
    with pytest.raises(MalformedSync, match="order"):
        respond(Vector([]), "61" + "0901ff00" + "010100" + "00")


def test_a_relay_that_never_agrees_is_given_up() -> None:
    here = Initiator(Vector((n, f"{n:064x}") for n in range(64)))
    lie = "61" + "0000" + "01" + "00" * 16  # one range, a fingerprint that nothing has
    for _ in range(MAX_ROUNDS):
        assert here.receive(lie).reply is not None
    with pytest.raises(MalformedSync, match="end"):
        here.receive(lie)


@pytest.mark.parametrize("item", [(-1, ONE), (1 << 53, ONE), (5, "AA" * 32), (5, "aa"), (True, ONE)])
def test_what_is_no_item_is_refused(item: tuple[int, str]) -> None:
    with pytest.raises(MalformedSync):
        Vector([item])


def test_a_frame_too_small_for_progress_is_refused() -> None:
    with pytest.raises(MalformedSync):
        Initiator(Vector([]), 4_095)


def test_a_held_item_takes_few_bytes() -> None:
    def items() -> list[tuple[int, str]]:
        return [(n, f"{n:064x}") for n in range(20_000)]

    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        vector = Vector(iter(items()))
        grown = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert len(vector) == 20_000
    assert grown / len(vector) < 56


def test_a_relay_that_makes_up_ids_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(negentropy, "MAX_DIFFERENCES", 100)
    here = Initiator(Vector([]))
    for page in range(4):
        made_up = "".join(f"{page * 25 + n:064x}" for n in range(25))
        assert len(here.receive("61" + "0000" + "02" + "19" + made_up).need) == 25
        assert here.receive("61" + "0000" + "02" + "19" + made_up).need == [], "what was told is not told again"
    with pytest.raises(MalformedSync, match="differ"):
        here.receive("61" + "0000" + "02" + "01" + "ff" * 32)
