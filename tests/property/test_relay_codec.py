"""Whatever comes over the wire: it is read back as it was written, or it is malformed; never anything else."""

import orjson
from hypothesis import example, given
from hypothesis import strategies as st

from core.error import InvalidInput
from core.money import Msat
from relays.error import ForgedEvent, MalformedEvent
from relays.event import Draft, Event, parse, parse_json, verified
from relays.filter import Filter, parse_filter
from relays.key import Key
from relays.message import Delivered, Publish, Request, encode, encode_raw, parse_client, parse_frame, parse_relay
from relays.nip89 import read_announcement
from relays.nip90 import (
    Input,
    PayMethod,
    Quote,
    quote_draft,
    read_answer,
    read_request,
    request_draft,
    result_draft,
)
from relays.private_job import reveal

KEY, WALLET = Key(b"\x01" * 32), Key(b"\x02" * 32)
TEXT = st.text(st.characters(codec="utf-8"), max_size=40)
HEX = st.binary(min_size=32, max_size=32).map(bytes.hex)
TIME = st.integers(0, (1 << 53) - 1)
TAGS = st.lists(st.lists(TEXT, min_size=1, max_size=5).map(tuple), max_size=6).map(tuple)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=8), inner, max_size=5),
    max_leaves=20,
)
LABELS = st.sampled_from(["EVENT", "OK", "EOSE", "CLOSED", "AUTH", "NOTICE", "COUNT", "REQ", "CLOSE", "X"])
NAMES = st.sampled_from(
    ["i", "e", "p", "k", "d", "param", "bid", "amount", "status", "quote", "pay", "relays", "request", "eta", "price",
     "deadline", "expiration", "receipt", "encrypted", "output"]
)  # fmt: skip
WORDS = TEXT | HEX | st.sampled_from(["cashu", "sat", "msat", "job", "payment-required", "wss://x", "5050", "0", "-1"])
JOB_TAGS = st.lists(st.tuples(NAMES, st.lists(WORDS, max_size=5)).map(lambda pair: (pair[0], *pair[1])), max_size=12)


@st.composite
def events(draw: st.DrawFn) -> Event:
    return KEY.sign(Draft(draw(st.integers(0, 65_535)), draw(TEXT), draw(TAGS), draw(TIME)))


@st.composite
def filters(draw: st.DrawFn) -> Filter:
    return Filter(
        ids=draw(st.none() | st.frozensets(HEX, max_size=3)),
        authors=draw(st.none() | st.frozensets(HEX, max_size=3)),
        kinds=draw(st.none() | st.frozensets(st.integers(0, 65_535), max_size=3)),
        tags=draw(st.dictionaries(st.sampled_from("aepdtZ"), st.frozensets(TEXT, max_size=3), max_size=3)),
        since=draw(TIME),
        until=draw(TIME),
        limit=draw(st.integers(0, 5_000)),
        search=draw(TEXT),
    )


@given(events())
def test_an_event_survives_the_wire(event: Event) -> None:
    frame = parse_relay(encode("EVENT", "s", event))
    assert isinstance(frame, Delivered)
    assert verified(frame.value) == event
    published = parse_client(encode_raw("EVENT", None, event.to_json()))
    assert isinstance(published, Publish)
    assert verified(published.value) == event


@given(st.lists(filters(), min_size=1, max_size=4))
def test_filters_survive_the_wire(wanted: list[Filter]) -> None:
    assert parse_client(encode("REQ", "s", *wanted)) == Request("s", tuple(wanted))


@given(st.binary(max_size=200) | st.text(max_size=200))
@example("[" * 100_000)
@example(b'["EVENT","\xff",{}]')
@example('["EOSE","\\ud800"]')
def test_junk_is_malformed_and_nothing_else(raw: str | bytes) -> None:
    for read in (parse_frame, parse_relay, parse_client, parse_json):
        try:
            read(raw)
        except MalformedEvent:
            continue


@given(LABELS, st.lists(JSON, max_size=5))
def test_well_formed_nonsense_is_malformed_and_nothing_else(label: str, items: list[object]) -> None:
    raw = orjson.dumps([label, *[_small(item) for item in items]])
    for read in (parse_relay, parse_client):
        try:
            read(raw)
        except MalformedEvent:
            continue


def _small(value: object) -> object:
    """Within what orjson can write; text may still be anything that is Unicode."""
    if isinstance(value, int) and not isinstance(value, bool):
        return max(-(2**62), min(2**62, value))
    if isinstance(value, str):
        return value.encode("utf-8", "replace").decode()
    if isinstance(value, list):
        return [_small(item) for item in value]
    if isinstance(value, dict):
        return {_small(key): _small(item) for key, item in value.items()}
    return value


@given(st.dictionaries(st.sampled_from(["id", "pubkey", "created_at", "kind", "tags", "content", "sig"]), JSON))
def test_nonsense_in_an_events_fields_is_malformed_or_forged(value: dict[str, object]) -> None:
    whole = KEY.sign(Draft(1, "", (), 1)).to_dict() | {"tags": []} | value
    try:
        assert verified(whole) == parse(whole)
    except (MalformedEvent, ForgedEvent):
        return


@given(st.dictionaries(st.sampled_from(["ids", "authors", "kinds", "#e", "#ee", "since", "limit", "x"]), JSON))
def test_nonsense_in_a_filter_is_malformed(value: dict[str, object]) -> None:
    try:
        parse_filter(value)
    except MalformedEvent:
        return


@given(st.sampled_from([5050, 5001, 6050, 6300, 7000, 31990, 1]), JOB_TAGS, TEXT)
def test_any_tags_are_read_or_malformed(kind: int, tags: list[tuple[str, ...]], content: str) -> None:
    event = Event("0" * 64, KEY.pubkey, 1, kind, tuple(tags), content, "0" * 128)
    for read in (read_request, read_answer, read_announcement):
        try:
            read(event)
        except MalformedEvent:
            continue
    reveal(event, content)


@given(JSON)
def test_anything_may_be_inside_an_encrypted_event(inner: object) -> None:
    event = KEY.sign(Draft(5050, "", (("encrypted",),), 1))
    read_request(reveal(event, orjson.dumps(_small(inner)).decode()))


@given(
    st.lists(st.tuples(TEXT, st.sampled_from(["text", "url", "event", "job"]), TEXT, TEXT), max_size=4),
    st.none() | st.integers(0, 10**14),
    st.lists(st.lists(TEXT, min_size=2, max_size=4).map(tuple), max_size=3),
    st.integers(5_000, 5_999),
)
def test_requests_and_results_survive_the_wire(
    inputs: list[tuple[str, str, str, str]], bid: int | None, params: list[tuple[str, ...]], kind: int
) -> None:
    wanted = [Input(*item) for item in inputs]
    price = None if bid is None else Msat(bid)
    draft = request_draft(kind=kind, inputs=wanted, created_at=5, params=params, bid=price)
    job = read_request(verified(orjson.loads(KEY.sign(draft).to_json())))
    assert (list(job.inputs), job.bid, job.kind) == (wanted, price, kind)
    assert [item[1:] for item in job.params] == [item[1:] for item in params]
    answer = read_answer(KEY.sign(result_draft(request=job, content="x", created_at=6)))
    assert answer.request_id == job.event_id


@given(
    st.text("abc123", min_size=1, max_size=40),
    st.integers(0, 10**14),
    st.integers(0, 10**12),
    st.integers(0, 10**6),
    st.lists(st.text("abc.", min_size=1, max_size=20), max_size=3),
    st.integers(0, 8),
)
def test_a_quote_survives_the_wire_and_no_changed_term_does(
    quote_id: str, msat: int, expires: int, eta: int, hosts: list[str], change: int
) -> None:
    job = read_request(KEY.sign(request_draft(kind=5050, inputs=[Input("x")], created_at=5)))
    methods = tuple(PayMethod("cashu", f"https://{host}", "sat", WALLET.compressed) for host in hosts)
    event = KEY.sign(
        quote_draft(
            request=job,
            quote_id=quote_id,
            amount=Msat(msat),
            expires_at=expires,
            eta_s=eta,
            methods=methods,
            created_at=6,
        )
    )
    read = read_answer(event)
    assert isinstance(read, Quote)
    assert (read.quote_id, read.amount, read.expires_at, read.eta_s) == (quote_id, Msat(msat), expires, eta)
    assert read.methods == methods
    tags = [list(tag) for tag in event.tags]
    at = change % len(tags)
    if tags[at][0] not in ("amount", "pay", "e"):
        return
    tags[at][1] = "f" * 64 if tags[at][0] == "e" else tags[at][1] + "1"
    changed = KEY.sign(Draft(7000, "", tuple(map(tuple, tags)), 6))
    try:
        other = read_answer(changed)
    except InvalidInput:
        return
    assert other == read
