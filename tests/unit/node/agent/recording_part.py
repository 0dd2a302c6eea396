"""Recordings for tests: a trivial tick's, and any, as hypothesis draws them."""

from typing import Any

from hypothesis import strategies as st

from node.agent.replay.recording import ENVELOPE, End, Recording, Start
from node.agent.replay.tape import Fault, Step

ENVELOPE_OF_A_TICK: dict[str, Any] = {
    "envelope_id": "5f2b0c6c2f7a4f0f9d0a6f6f1c2d3e4f",
    "cause": "manual",
    "source": "control-plane",
    "sender": "operator",
    "payload": '{"reason":""}',
    "at": 1_790_000_000,
    "seq": None,
    "reply_to": "",
    "tries": 0,
}


def start_of(**changes: Any) -> Start:
    """The start of a trivial tick."""
    start = Start(
        "agent-0001", "0123456789abcdef0123456789abcdef", "counter", "ab" * 32, 1, '{"n":41}', "{}", ENVELOPE_OF_A_TICK,
        1_790_000_000_123, 1_790_000_030_123, (),
    )  # fmt: skip
    return start._replace(**changes)


TRIVIAL = Recording(start_of(), (), End(1, '{"n":42}'))

words = st.text(st.characters(exclude_categories=("Cs",)), max_size=12)
texts = st.one_of(words, st.integers(1, 6_000).map(lambda n: "word " * n), st.integers(0, 3_000).map(lambda n: "é" * n))
answers = st.one_of(
    st.none(),
    st.binary(max_size=20),
    texts.map(str.encode),
    st.integers(2_000, 5_000).map(lambda n: b"\xff" * n),
    st.builds(Fault, words, words, words, st.lists(st.tuples(words, st.one_of(words, st.integers(0, 9)))).map(tuple)),
)
steps = st.builds(Step, words, st.lists(texts.filter(lambda text: len(text) < 900), max_size=3).map(tuple), answers)
envelopes = st.fixed_dictionaries({name: st.one_of(words, st.integers(0, 9), st.none()) for name in ENVELOPE}).flatmap(
    lambda fields: texts.map(lambda payload: fields | {"payload": payload})
)
starts = st.builds(
    Start, words, words, words, words, st.integers(0, 9), texts, texts, envelopes, st.integers(0, 2**53),
    st.integers(0, 2**53), st.lists(words, max_size=2).map(tuple),
)  # fmt: skip
ends = st.one_of(st.builds(End, st.integers(0, 9), words), st.builds(End.failed, words, words))
recordings = st.builds(Recording, starts, st.lists(steps, max_size=6).map(tuple), ends, st.booleans())
