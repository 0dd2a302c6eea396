"""The wallet's memo: read back as it was written; anything else is refused; what is old never wins over what is new."""

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from relays.error import ForgedEvent
from relays.event import Event, verify
from relays.key import Key
from tests.property.test_relay_codec import JSON
from wallet.cashu.lock import Lock
from wallet.cashu.proof import Output, Proof
from wallet.error import MemoInvalid
from wallet.memo import (
    CHUNK,
    COUNTER_STEP,
    MAX_PARTS,
    Chunk,
    Memo,
    bodies,
    drafts,
    merged,
    open_event,
    read,
    rounded,
)
from wallet.payment import Kind
from wallet.pending import (
    MAX_INPUTS,
    Pending,
    coins_of,
    deposit_plan,
    melt_plan,
    pending_of,
    read_pending,
    take_plan,
)
from wallet.record import Plan

KEY, OTHER = Key(b"\x01" * 32), Key(b"\x02" * 32)
MINT, KEYSET, LIFE = "https://mint.example", "00" * 8, "ab" * 8
POINT, REFUND = KEY.compressed, OTHER.compressed
NAME = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=60)
AMOUNT, TIME = st.integers(1, 1 << 40), st.integers(1, 1 << 35)
COUNTERS = st.dictionaries(st.binary(min_size=8, max_size=8).map(bytes.hex), st.integers(0, 1 << 30), max_size=5)
MINTS = st.frozensets(st.sampled_from([(MINT, "sat"), ("http://127.0.0.1:3338", "sat"), (MINT, "usd")]))


def proof(n: int, amount: int = 8, locktime: int = 0) -> Proof:
    secret = Lock(POINT, locktime, REFUND).secret(str(n)) if locktime else f"{n:064x}"
    return Proof(KEYSET, amount, secret, POINT)


def output(n: int, amount: int = 8, *, gives: bool = False) -> Output:
    return Output(KEYSET, amount, f"{n:064x}", "11" * 32, POINT, gives)


def lock_plan(locktime: int, amount: int, tries: int = 1) -> Plan:
    terms = {"pubkey": POINT, "locktime": locktime, "refund": REFUND, "price": amount * 1000, "quote_id": "q"}
    groups = tuple((output(n, amount, gives=True), output(99, 1)) for n in range(tries))
    return Plan("digest", outputs=groups[-1], past=groups[:-1], terms=terms | {"ceiling": 5}, attempt=tries)


@st.composite
def entries(draw: st.DrawFn) -> Pending:
    op_id, amount, time = draw(NAME), draw(AMOUNT), draw(TIME)
    kind = draw(st.sampled_from([Kind.LOCK, Kind.DEPOSIT, Kind.MELT, Kind.CLAIM, Kind.RECEIVE]))
    if kind is Kind.LOCK:
        plan = lock_plan(time, amount, draw(st.integers(1, 4)))
    elif kind is Kind.DEPOSIT:
        plan = Plan("digest", key=("quote", op_id), quote=draw(NAME), expires=time, terms={"amount": amount})
    elif kind is Kind.MELT:
        inputs = tuple(proof(n) for n in range(draw(st.integers(1, 5))))
        outputs = tuple(output(n, 0) for n in range(draw(st.integers(0, 5))))
        plan = Plan("digest", inputs, outputs=outputs, fee=1, quote=draw(NAME), expires=time, terms={"msat": amount})
    else:
        inputs = tuple(proof(n, locktime=time) for n in range(draw(st.integers(1, 5))))
        plan = Plan("digest", inputs, ("wallet",), preimage="22" * 32, cosigned={inputs[0].secret: "33" * 64})
    (one,) = pending_of(op_id, kind, MINT, "sat", amount, plan)
    return one


MEMOS = st.builds(
    lambda mints, counters, found: Memo(mints, counters, tuple({one.op_id: one for one in found}.values())),
    MINTS,
    COUNTERS,
    st.lists(entries(), max_size=6),
)


def written(memo: Memo, life: str = LIFE, seq: int = 1, key: Key = KEY) -> list[Event]:
    parts, left_out = bodies(memo)
    assert left_out == 0
    return [key.sign(draft) for draft in drafts(parts, life, seq, 1_000, key)]


def plain(memo: Memo) -> tuple[object, ...]:
    known = set(memo.mints) | {(one.mint, one.unit) for one in memo.pending}
    return known, dict(memo.counters), sorted(orjson.dumps(one.to_dict()) for one in memo.pending)


@given(MEMOS)
def test_what_is_written_is_read_back(memo):
    events = written(memo)
    for event in events:
        verify(event)
        assert KEYSET not in event.to_json()
        assert MINT not in event.to_json()
    assert plain(merged(open_event(event, KEY) for event in events)) == plain(memo)


@given(MEMOS, MEMOS, st.randoms())
def test_of_several_relays_the_union_counts_and_of_each_operation_what_is_newest(old, new, random):
    chunks = [open_event(event, KEY) for event in (*written(old, seq=1), *written(new, seq=2), *written(old, seq=1))]
    random.shuffle(chunks)
    found = merged(chunks)
    by_id = {one.op_id: one for one in found.pending}
    assert by_id == {**{one.op_id: one for one in old.pending}, **{one.op_id: one for one in new.pending}}
    for keyset in {*old.counters, *new.counters}:
        assert found.counters[keyset] == max(old.counters.get(keyset, 0), new.counters.get(keyset, 0))
    assert merged(chunks, but=LIFE) == Memo()


@given(JSON)
def test_whatever_the_text_is_it_is_a_memo_or_refused(value):
    with pytest.raises(MemoInvalid):
        read(orjson.dumps(value).decode())


@given(st.text(max_size=200))
def test_whatever_is_no_json_is_refused(text):
    with pytest.raises(MemoInvalid):
        read(text)


def _paths(value, path=()):
    yield path
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for name, one in inner:
        yield from _paths(one, (*path, name))


@settings(max_examples=200)
@given(entries(), st.data())
def test_an_entry_of_which_a_part_is_something_else_is_refused_or_can_still_be_used(one, data):
    body = orjson.loads(orjson.dumps(one.to_dict()))
    path = data.draw(st.sampled_from([path for path in _paths(body) if path]))
    holder = body
    for name in path[:-1]:
        holder = holder[name]
    holder[path[-1]] = data.draw(JSON)
    try:
        found = read_pending(body)
    except MemoInvalid:
        return
    if found.kind is Kind.DEPOSIT:
        assert deposit_plan("d", found).copied
    elif found.kind is Kind.MELT:
        assert melt_plan(found).copied
    elif found.kind is not Kind.LOCK:
        assert take_plan("d", found, coins_of(found)).inputs


def test_a_memo_of_somebody_else_or_under_another_name_or_changed_is_refused():
    (event,) = written(Memo(mints=frozenset({(MINT, "sat")})))
    with pytest.raises(MemoInvalid):
        open_event(event, OTHER)
    (theirs,) = written(Memo(mints=frozenset({(MINT, "sat")})), key=OTHER)
    with pytest.raises(MemoInvalid):
        open_event(theirs, KEY)
    moved = Event(event.id, event.pubkey, event.created_at, event.kind, (("d", f"vendo-wallet/{LIFE}/1"),),
                  event.content, event.sig)  # fmt: skip
    with pytest.raises(MemoInvalid):
        open_event(moved, KEY)
    with pytest.raises(ForgedEvent):
        verify(moved)
    swapped = Event(event.id, event.pubkey, event.created_at, event.kind, event.tags, theirs.content, event.sig)
    with pytest.raises(MemoInvalid):
        open_event(swapped, KEY)


def test_a_huge_memo_is_refused_before_it_is_opened():
    (event,) = written(Memo())
    huge = Event(event.id, event.pubkey, event.created_at, event.kind, event.tags, "A" * 1_000_000, event.sig)
    with pytest.raises(MemoInvalid):
        open_event(huge, KEY)
    with pytest.raises(MemoInvalid):
        read(" " * 1_000_000)


def test_what_does_not_fit_is_left_out_and_locked_money_comes_before_unpaid_invoices():
    deposits = [
        Pending(f"{n}", Kind.DEPOSIT, MINT, "sat", 1, n, {"quote": "q" * 400, "key": "k", "expires": n, "until": 0})
        for n in range(3_000)
    ]
    (lock,) = pending_of("lock", Kind.LOCK, MINT, "sat", 8, lock_plan(1 << 30, 8))
    parts, left_out = bodies(Memo(pending=(*deposits, lock)))
    assert len(parts) == MAX_PARTS
    assert left_out > 0
    assert parts[0]["pending"][0]["id"] == "lock"
    for draft in drafts(parts, LIFE, 1, 1, KEY):
        assert len(KEY.sign(draft).to_json()) < 64_000
    assert all(len(orjson.dumps(part)) < CHUNK + 100 for part in parts)


def test_a_payment_of_many_coins_is_told_in_parts_and_one_that_is_too_large_is_left_out():
    plan = Plan("digest", tuple(proof(n, locktime=5_000) for n in range(2 * MAX_INPUTS + 1)), ("wallet",))
    parts = pending_of("claim", Kind.CLAIM, MINT, "sat", 0, plan)
    assert [len(coins_of(one)) for one in parts] == [MAX_INPUTS, MAX_INPUTS, 1]
    assert len({one.op_id for one in parts}) == 3
    assert {one.due for one in parts} == {5_000}
    assert bodies(Memo(pending=parts))[1] == 0
    many = Plan("d", tuple(proof(n) for n in range(200)), quote="q", terms={})
    assert bodies(Memo(pending=pending_of("melt", Kind.MELT, MINT, "sat", 1, many)))[1] == 1


def test_an_entry_that_cannot_be_read_spoils_no_other():
    (lock,) = pending_of("lock", Kind.LOCK, MINT, "sat", 8, lock_plan(1 << 30, 8))
    entries = [lock.to_dict(), {**lock.to_dict(), "kind": "zap"}, {**lock.to_dict(), "mint": "ftp://mint"}]
    body = {"v": 1, "life": LIFE, "seq": 1, "part": 0, "mints": [], "counters": [], "pending": entries}
    chunk = read(orjson.dumps(body).decode())
    assert (chunk.memo.pending, chunk.unread) == ((lock,), 2)
    with pytest.raises(MemoInvalid):
        read(orjson.dumps({**body, "v": 2}).decode())


def test_a_counter_is_told_rounded_up():
    assert [rounded(n) for n in (0, 1, COUNTER_STEP, COUNTER_STEP + 1)] == [0, 64, 64, 128]


def test_secrets_are_in_no_repr():
    plan = Plan("digest", (proof(7, locktime=5_000),), ("wallet",), preimage="22" * 32)
    (one,) = pending_of("claim", Kind.CLAIM, MINT, "sat", 8, plan)
    shown = repr(one) + repr(Memo(pending=(one,))) + repr(Chunk(LIFE, 1, 0, Memo(pending=(one,))))
    assert "22" * 32 not in shown
    assert "nonce" not in shown
