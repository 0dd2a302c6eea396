"""The mint client against a server that says whatever a test wants."""

import asyncio
import gzip
from collections.abc import AsyncIterator

import aiohttp
import orjson
import pytest
from aiohttp import web

from core.error import InvalidInput, Unpermitted
from tests.wallet_part import BUYER_WORDS, PERMIT, HandClock, allow, make_wallet
from wallet.cashu import mint as module
from wallet.cashu.address import canonical_url
from wallet.cashu.keyset import KeysetInfo
from wallet.cashu.limit import Limit
from wallet.cashu.mint import MAX_ANSWER, MintClient, connect
from wallet.cashu.port import MeltState
from wallet.cashu.proof import Output
from wallet.error import MintBusy, MintLied, MintRejected, MintSilent, MintUnreachable

KEYSET = "01" + "ab" * 32
POINT = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
OUTPUT = Output(KEYSET, 1, "secret", "11" * 32, POINT)
MELTED = {"quote": "a", "amount": 5, "fee_reserve": 2, "state": "PAID", "payment_preimage": "ab", "unit": "sat"}
SIGNED = {"id": KEYSET, "amount": 1, "C_": POINT}


class Server:
    """Answers every request with the same thing."""

    def __init__(self) -> None:
        self.status, self.body, self.delay = 200, b"{}", 0.0
        self.drop = False
        self.encoding = "identity"
        self.requests: list[str] = []
        self.url = ""

    async def answer(self, request: web.Request) -> web.Response:
        self.requests.append(request.path)
        if self.drop:
            assert request.transport is not None
            request.transport.close()
        await asyncio.sleep(self.delay)
        headers = {"Location": "http://127.0.0.1:1/", "Content-Encoding": self.encoding}
        return web.Response(status=self.status, body=self.body, headers=headers)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    yield made
    await runner.cleanup()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"detail":"proofs already spent","code":11001}', MintRejected),
        (404, b"not json", MintRejected),
        (429, b"{}", MintBusy),
        (408, b"{}", MintSilent),
        (500, b'{"code":11001}', MintSilent),
        (302, b"{}", MintSilent),
        (200, b"", MintSilent),
        (200, b"[]", MintSilent),
        (200, b'{"signatures":[{"id":"x","amount":"1","C_":"02"}]}', MintSilent),
        (200, b'{"signatures":[{"id":"x","amount":-1,"C_":"02"}]}', MintSilent),
        (200, b'{"signatures":[{"id":"x","amount":1,"C_":"zz"}]}', MintSilent),
        (200, b" " * (MAX_ANSWER + 1), MintSilent),
    ],
)
async def test_what_a_failure_means_is_in_its_type(server, http, status, body, error):
    server.status, server.body = status, body
    with pytest.raises(error):
        await MintClient(server.url, http, allow).swap([], [OUTPUT], PERMIT)
    assert server.requests == ["/v1/swap"]


async def test_codes_are_read_and_texts_are_not(server, http):
    server.status, server.body = 400, b'{"detail":"outputs already signed","code":0}'
    with pytest.raises(MintRejected) as caught:
        await MintClient(server.url, http, allow).swap([], [OUTPUT], PERMIT)
    assert caught.value.mint_code == 0
    assert "outputs" not in str(caught.value)


async def test_a_broken_connection_and_a_time_out_are_silence_not_refusal(server, http, monkeypatch):
    server.drop = True
    with pytest.raises(MintSilent):
        await MintClient(server.url, http, allow).swap([], [OUTPUT], PERMIT)
    server.drop, server.delay = False, 1.0
    monkeypatch.setattr(module, "_TIMEOUT", aiohttp.ClientTimeout(total=0.1))
    with pytest.raises(MintSilent):
        await MintClient(server.url, http, allow).swap([], [OUTPUT], PERMIT)
    assert len(server.requests) == 2


async def test_a_compressed_answer_is_not_unpacked(server, http):
    server.body, server.encoding = gzip.compress(b" " * 10_000_000), "gzip"
    with pytest.raises(MintSilent):
        await MintClient(server.url, http, allow).swap([], [OUTPUT], PERMIT)


async def test_no_connection_means_never_sent(http):
    with pytest.raises(MintUnreachable):
        await MintClient("http://127.0.0.1:1", http, allow).swap([], [OUTPUT], PERMIT)


async def test_nothing_is_sent_without_a_permit(server, http):
    def refuse(_) -> None:
        raise Unpermitted

    mint = MintClient(server.url, http, refuse)
    for attempt in (
        mint.swap([], [OUTPUT], PERMIT),
        mint.mint("quote", [OUTPUT], "", PERMIT),
        mint.request_quote(1, "sat", POINT, PERMIT),
        mint.request_melt("lnbc1x", "sat", PERMIT),
        mint.melt("quote", [], [OUTPUT], PERMIT),
    ):
        with pytest.raises(Unpermitted):
            await attempt
    assert server.requests == []


async def test_answers_to_other_questions_are_lies(server, http):
    mint = MintClient(server.url, http, allow)
    server.body = b'{"states":[{"Y":"02","state":"UNSPENT"}]}'
    with pytest.raises(MintLied):
        await mint.states([POINT])
    server.body = b'{"outputs":[{"B_":"02"}],"signatures":[{"id":"x","amount":1,"C_":"02"}]}'
    with pytest.raises(MintLied):
        await mint.restore([OUTPUT])
    server.body = b'{"quote":"b","request":"lnbc","state":"PAID"}'
    with pytest.raises(MintLied):
        await mint.quote("a")
    server.body = orjson.dumps({**MELTED, "quote": "b"})
    with pytest.raises(MintLied):
        await mint.melt_quote("a")
    with pytest.raises(MintLied):
        await mint.melt("a", [], [OUTPUT], PERMIT)
    server.body = orjson.dumps({"keysets": [{"id": KEYSET, "unit": "sat", "active": True, "keys": {"1": POINT}}]})
    with pytest.raises(MintLied):
        await mint.keys(KeysetInfo(KEYSET, "sat", True, 0))


async def test_keysets_of_unknown_forms_are_left_out(server, http):
    server.body = orjson.dumps(
        {
            "keysets": [
                {"id": KEYSET, "unit": "sat", "active": True, "input_fee_ppk": 100},
                {"id": "9mlfd5vCzgGl", "unit": "sat"},
                {"id": "01zz", "unit": "sat"},
                {"id": "01" + "cd" * 32, "unit": "sat", "input_fee_ppk": -5},
            ]
        }
    )
    assert await MintClient(server.url, http, allow).keysets() == (KeysetInfo(KEYSET, "sat", True, 100),)


@pytest.mark.parametrize(
    ("url", "canonical"),
    [
        ("https://Mint.Example/", "https://mint.example"),
        ("HTTPS://mint.example:3338/Bitcoin/", "https://mint.example:3338/Bitcoin"),
        ("http://127.0.0.1:3338", "http://127.0.0.1:3338"),
        ("http://localhost:3338", "http://localhost:3338"),
    ],
)
def test_one_mint_has_one_address(url, canonical):
    assert canonical_url(url) == canonical


@pytest.mark.parametrize(
    "url",
    [
        "",
        "mint.example",
        "http://mint.example",
        "http://localhost.evil.test",
        "http://127.0.0.1.evil.test",
        "https://127.0.0.1@evil.test",
        "https://mint.example?x=1",
        "https://mint.example#x",
        "ftp://mint.example",
        "file:///etc/passwd",
        "https://[",
        "https://℀.example",
    ],
)
def test_other_addresses_are_refused(url):
    with pytest.raises(InvalidInput):
        canonical_url(url)


async def test_a_mint_that_is_configured_twice_is_one(http):
    assert [mint.url for mint in connect(["https://a.test/", "https://A.test"], http, allow)] == ["https://a.test"]


async def test_a_melt_quote_is_read_with_its_receipt_and_change(server, http):
    mint = MintClient(server.url, http, allow)
    server.body = orjson.dumps({**MELTED, "change": [SIGNED], "expiry": 9, "paid": True, "fee_paid": 1})
    found = await mint.melt_quote("a")
    assert (found.amount, found.fee_reserve, found.state, found.expiry) == (5, 2, MeltState.PAID, 9)
    assert (found.preimage, [signature.amount for signature in found.change]) == ("ab", [1])
    server.body = orjson.dumps({**MELTED, "payment_preimage": "", "change": None, "state": "PENDING"})
    found = await mint.melt("a", [], [], PERMIT)
    assert (found.preimage, found.change, found.state) == (None, (), MeltState.PENDING)
    assert server.requests == ["/v1/melt/quote/bolt11/a", "/v1/melt/bolt11"]


@pytest.mark.parametrize(
    "bent",
    [
        {"amount": 0},
        {"amount": "5"},
        {"fee_reserve": -1},
        {"expiry": -1},
        {"expiry": 1 << 63},
        {"fee_reserve": None},
        {"state": "SPENT"},
        {"state": None},
        {"quote": "../x"},
        {"payment_preimage": "a" * 300},
        {"change": [SIGNED] * 100},
        {"change": [{**SIGNED, "amount": -1}]},
    ],
)
async def test_a_melt_quote_that_is_none_is_no_answer(server, http, bent):
    server.body = orjson.dumps({**MELTED, **bent})
    mint = MintClient(server.url, http, allow)
    for asked in (mint.melt_quote("a"), mint.melt("a", [], [], PERMIT), mint.request_melt("lnbc1x", "sat", PERMIT)):
        with pytest.raises(MintSilent):
            await asked


async def test_limits_are_read_and_what_is_not_understood_is_no_limit(server, http):
    mint = MintClient(server.url, http, allow)
    one = {"method": "bolt11", "unit": "sat", "min_amount": 5, "max_amount": 50}
    server.body = orjson.dumps(
        {
            "name": "m",
            "nuts": {
                "4": {"methods": [{"method": "bolt12", "unit": "sat", "max_amount": 1}, one, {"unit": 3}]},
                "5": {"methods": [{"method": "bolt11", "unit": "sat"}], "disabled": True},
            },
        }
    )
    limits = await mint.limits()
    assert limits.deposit("sat") == Limit(5, 50)
    assert limits.withdrawal("sat") == Limit(disabled=True)
    assert limits.deposit("usd") == Limit()
    for nuts in ({}, {"4": [], "5": 7}, {"4": {"methods": {}}}):
        server.body = orjson.dumps({"nuts": nuts})
        assert (await mint.limits()).deposit("sat") == Limit()


@pytest.mark.parametrize("absurd", [99_999_999_999_999_999_999_999, 1 << 64, 1 << 63, -1, -(1 << 70)])
@pytest.mark.parametrize("field", ["min_amount", "max_amount"])
async def test_a_limit_that_is_no_amount_is_none_and_what_is_known_of_all_mints_can_be_told(
    server, http, absurd, field
):
    # Written by hand: orjson does not write such a number, in which lies the danger.
    method = f'{{"method":"bolt11","unit":"sat","{field}":{absurd}}}'
    about = f'"nuts":{{"4":{{"methods":[{method}]}},"5":{{"methods":[{method}]}}}}'
    keyset = f'{{"id":"{KEYSET}","unit":"sat","active":true}}'
    server.body = f'{{"keysets":[{keyset}],{about}}}'.encode()
    mint = MintClient(server.url, http, allow)
    assert (await mint.limits()).deposit("sat") == Limit()
    wallet = make_wallet(BUYER_WORDS, [mint], HandClock())
    (offer,) = await wallet.foreign.offers(mint.url)
    told = orjson.loads(orjson.dumps(offer))
    assert (told["unit"], told["least_deposit"], told["most_withdrawal"]) == ("sat", None, None)


async def test_the_greatest_amount_is_a_limit(server, http):
    method = {"method": "bolt11", "unit": "sat", "min_amount": 0, "max_amount": (1 << 63) - 1}
    server.body = orjson.dumps({"nuts": {"4": {"methods": [method]}}})
    limits = await MintClient(server.url, http, allow).limits()
    assert limits.deposit("sat") == Limit(0, (1 << 63) - 1)


async def test_what_one_coin_was_spent_with_never_makes_the_others_unreadable(server, http):
    other = "03" + POINT[2:]
    shown = '{"preimage": "' + "5e" * 32 + '", "padding": "' + "x" * 5_000 + '"}'
    states = [
        {"Y": POINT, "state": "SPENT", "witness": "x" * 70_000},
        {"Y": other, "state": "SPENT", "witness": shown},
    ]
    server.body = orjson.dumps({"states": states})
    found = await MintClient(server.url, http, allow).states([POINT, other])
    assert (found[POINT].witness, found[other].witness) == (None, shown)
