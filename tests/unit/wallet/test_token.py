import base64
import subprocess
import sys

import cbor2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from wallet.cashu.proof import Dleq, Proof
from wallet.cashu.token import MAX_PROOFS, MAX_TEXT, Payment, decode, encode, from_payload, to_payload
from wallet.error import TokenMalformed, TokenOversized, TokenRejected

KEYSET = "01" + "ab" * 32
POINT = "02" + "79be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"


def proof(amount: int = 8, secret: str = "s1", dleq: bool = True) -> Proof:
    return Proof(KEYSET, amount, secret, POINT, Dleq("11" * 32, "22" * 32, "33" * 32) if dleq else None)


def cbor(body: object) -> str:
    return "cashuB" + base64.urlsafe_b64encode(cbor2.dumps(body)).decode().rstrip("=")


def test_a_token_reads_back_with_short_keyset_ids():
    found = decode(encode("https://mint.test", "sat", [proof(), proof(2, "s2", dleq=False)]))
    assert (found.mint, found.unit) == ("https://mint.test", "sat")
    assert [(p.amount, p.secret, p.c, p.keyset) for p in found.proofs] == [
        (8, "s1", POINT, KEYSET[:16]),
        (2, "s2", POINT, KEYSET[:16]),
    ]
    assert found.proofs[0].dleq == proof().dleq
    assert found.proofs[1].dleq is None


def test_the_library_reads_our_tokens_and_we_read_its(tmp_path):
    program = (
        "import sys; from cashu.core.base import TokenV4\n"
        "token = TokenV4.deserialize(sys.argv[1])\n"
        "assert token.amount == 10 and token.proofs[0].dleq.r == '33' * 32, token\n"
        "print(token.serialize(include_dleq=True))"
    )
    ours = encode("https://mint.test", "sat", [proof(), proof(2, "s2")])
    ran = subprocess.run(
        [sys.executable, "-c", program, ours], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert decode(ran.stdout) == decode(ours), ran.stderr


def test_a_payload_reads_back():
    payment = Payment("https://mint.test", "sat", (proof(),), "quote")
    assert from_payload(to_payload(payment)) == payment


GROUP = {"i": bytes.fromhex(KEYSET[:16]), "p": [{"a": 1, "s": "x", "c": bytes.fromhex(POINT)}]}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "cashuB",
        "cashuB!!!",
        "cashuAeyJ0b2tlbiI6W119",
        "creqA",
        cbor([]),
        cbor({"t": [GROUP], "u": "sat"}),
        cbor({"t": [], "m": "https://m", "u": "sat"}),
        cbor({"t": [GROUP, GROUP], "m": "https://m", "u": "sat"}),
        cbor({"t": [{**GROUP, "i": b"\1"}], "m": "https://m", "u": "sat"}),
        cbor({"t": [{**GROUP, "p": [{**GROUP["p"][0], "a": 0}]}], "m": "https://m", "u": "sat"}),
        cbor({"t": [{**GROUP, "p": [{**GROUP["p"][0], "a": 1.5}]}], "m": "https://m", "u": "sat"}),
        cbor({"t": [{**GROUP, "p": [{**GROUP["p"][0], "a": True}]}], "m": "https://m", "u": "sat"}),
        cbor({"t": [{**GROUP, "p": [{**GROUP["p"][0], "c": b"\2"}]}], "m": "https://m", "u": "sat"}),
        cbor({"t": [{**GROUP, "p": [{**GROUP["p"][0], "s": "x" * 2000}]}], "m": "https://m", "u": "sat"}),
        cbor({"t": [{**GROUP, "p": [{**GROUP["p"][0], "d": {"e": b"1"}}]}], "m": "https://m", "u": "sat"}),
        cbor({"t": [GROUP], "m": "https://m", "u": "sat"}) + "AAAA",
    ],
)
def test_anything_else_is_refused(text):
    with pytest.raises(TokenMalformed):
        decode(text)


def test_length_and_number_of_coins_are_capped():
    with pytest.raises(TokenOversized):
        decode("cashuB" + "A" * MAX_TEXT)
    many = [{"a": 1, "s": str(n), "c": bytes.fromhex(POINT)} for n in range(MAX_PROOFS + 1)]
    with pytest.raises(TokenOversized):
        decode(cbor({"t": [{**GROUP, "p": many}], "m": "https://m", "u": "sat"}))
    with pytest.raises(TokenOversized):
        from_payload({"mint": "m", "unit": "sat", "proofs": [{}] * (MAX_PROOFS + 1)})


@given(st.binary(max_size=200))
def test_no_bytes_raise_anything_but_a_rejection(raw):
    with pytest.raises(TokenRejected):
        decode("cashuB" + base64.urlsafe_b64encode(raw).decode().rstrip("="))


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["id", "mint", "unit", "proofs", "amount", "secret", "C", "dleq"]), inner)
    ),
    max_leaves=12,
)


@given(_JSON)
def test_no_json_raises_anything_but_a_rejection(body):
    with pytest.raises(TokenRejected):
        from_payload(body)


def test_no_repr_shows_a_secret():
    coin = proof(secret="very-secret")
    assert "very-secret" not in repr(Payment("m", "sat", (coin,), "id"))
    assert "33" * 32 not in repr(coin)


@pytest.mark.parametrize(
    "packed",
    [
        "c4821b360bcdace9d8000001",  # a decimal fraction out of all bounds
        "a16174c5821a7fffffff01",  # a float of 2^31 binary digits
        "d8236128",  # a regular expression that is none
        "d81c81d81d00",  # a list that holds itself
        "9b000000ffffffffff",  # a list of 2^40 items
        "9a7fffffff",
        "bbffffffffffffffff",
        "7affffffff",  # a text that is not there
        "5f4161ff",
        "ff",
        "1c",
        "81" * 30_000 + "00",
    ],
)
def test_no_cbor_makes_a_reader_fail_or_work_for_nothing(packed):
    text = base64.urlsafe_b64encode(bytes.fromhex(packed)).decode().rstrip("=")
    with pytest.raises(TokenRejected):
        decode(f"cashuB{text}")


@given(st.binary(max_size=60))
def test_whatever_bytes_a_token_has_it_is_one_or_is_refused(packed):
    try:
        decode("cashuB" + base64.urlsafe_b64encode(packed).decode().rstrip("="))
    except TokenRejected:
        return
