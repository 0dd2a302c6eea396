"""What a paid job leaves behind for others: a third node finds out who delivered and who only took the money."""

import asyncio
import time
from collections.abc import AsyncIterator
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import orjson
import pytest
import pytest_asyncio

from core.clock import SystemClock
from core.effect import Permit
from core.money import Msat
from dvm.receipt import wallet_text
from node.storage.memory import MemoryDatabase
from relays.error import NotForUs
from relays.event import Event
from relays.key import Key, Keyring, new_words
from relays.kind import LABEL, is_request
from relays.nip17 import Rumor, unwrap
from relays.nip89 import Announcement, announcement_draft
from relays.nip90 import PayMethod, quote_draft, read_request, result_draft
from tests.market_part import PATIENT, SUMMARY_21, Market, Spec, market, until
from tests.wallet_part import EFFECT, PERMIT, allow
from wallet.cashu.mint import MintClient
from wallet.wallet import Wallet

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(240)]
CLOCK = SystemClock()
PRICE = Msat.of_sat(21)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def town(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Market]:
    nodes = {"seller": Spec(SUMMARY_21), "buyer": Spec(replace=PATIENT), "reader": Spec()}
    async with market(tmp_path_factory.mktemp("reputation"), nodes) as opened:
        await opened.fund("buyer", 500)
        yield opened


class Thief:
    """Quotes, takes the money at the mint, and delivers nothing."""

    def __init__(self, town: Market) -> None:
        self.town, self.key, self.ring = town, Key.generate(), Keyring(new_words())
        mint = MintClient(town.mint, town.http, allow)
        self.wallet = Wallet(MemoryDatabase(), self.ring, CLOCK, allow, [mint], permit_for=Permit)

    async def send(self, event: Event) -> None:
        async with self.town.http.ws_connect(self.town.relay) as link:
            await link.send_str('["EVENT",' + event.to_json() + "]")
            while orjson.loads((await link.receive(timeout=30)).data)[0] != "OK":
                pass

    async def announce(self, kind: int, to: str) -> None:
        """Let a node know us: its window for quotes then closes when we have answered."""
        pubkey, now = self.key.pubkey, int(time.time())
        draft = announcement_draft(Announcement(pubkey, "it", (kind,), {kind: PRICE}, (), "it", "", now))
        await self.send(self.key.sign(draft))

        async def known() -> bool:
            return any(one["id"] == pubkey for one in await self.town.get(to, "node/compute/providers"))

        await until(known, "the announcement to be read")

    async def asked(self, kind: int) -> Event:
        async def found() -> Event | None:
            return next((one for one in await self.town.events() if is_request(one.kind) and one.kind == kind), None)

        event = await until(found, "the request")
        assert isinstance(event, Event)
        return event

    async def rob(self, kind: int) -> Event:
        """The request whose money it took."""
        request = await self.asked(kind)
        now = int(time.time())
        pay = PayMethod("cashu", self.town.mint, "sat", self.wallet.key.compressed)
        draft = quote_draft(
            request=read_request(request),
            quote_id="theirs",
            amount=PRICE,
            expires_at=now + 60,
            eta_s=1,
            methods=[pay],
            created_at=now,
        )
        held = self.wallet.key.sign_digest(sha256(wallet_text(self.key.pubkey, "theirs").encode()).digest()).hex()
        await self.send(self.key.sign(replace(draft, tags=(*draft.tags, ("walletsig", held)))))
        rumor = await until(self._paid, "the payment")
        assert isinstance(rumor, Rumor)
        await self.wallet.claim("claim", orjson.loads(rumor.content), EFFECT, PERMIT)
        return request

    async def _paid(self) -> Rumor | None:
        for event in await self.town.wraps_to(self.key.pubkey):
            try:
                return unwrap(self.key, event)
            except NotForUs:
                continue
        return None


async def _labels(town: Market, seller: str) -> list[Event]:
    return [one for one in await town.events() if one.kind == LABEL and one.value("p") == seller]


async def test_a_third_node_finds_that_a_seller_delivered_for_money(town: Market, tmp_path: Path) -> None:
    text = tmp_path / "text"
    text.write_text("Receipts tell who delivered. " * 30, encoding="utf-8")
    bought = await town.vendo("buyer", "buy", "--kind", "5001", "--input-file", str(text))
    assert bought.code == 0, bought.err
    seller = town.rings["seller"].node.pubkey
    (label,) = await until(lambda: _labels(town, seller), "the receipt")
    assert label.pubkey == town.rings["buyer"].node.pubkey
    found = await town.vendo("reader", "reputation", town.rings["seller"].node.npub)
    assert found.code == 0, found.err
    assert found.json["score"] > 500
    assert found.json["delivered_msat"] >= PRICE.value
    (receipt,) = found.json["receipts"]
    assert (receipt["event_id"], receipt["verdict"], receipt["mint"]) == (label.id, "delivered", town.mint)
    assert (await town.vendo("reader", "reputation", Key.generate().npub)).json["score"] == 500
    assert (await town.vendo("reader", "reputation", "nobody")).code != 0


async def test_who_takes_the_money_and_delivers_nothing_is_known_for_it(town: Market) -> None:
    thief = Thief(town)
    await thief.announce(5999, "buyer")
    job = asyncio.create_task(
        town.vendo("buyer", "buy", "--kind", "5999", "--input", "do it", "--timeout", "15", timeout=120)
    )
    request = await thief.rob(5999)
    assert (await job).code != 0
    (label,) = await until(lambda: _labels(town, thief.key.pubkey), "the receipt")
    found = await town.vendo("reader", "reputation", thief.key.npub)
    assert found.json["score"] < 500
    assert [one["verdict"] for one in found.json["receipts"]] == ["undelivered"]
    assert found.json["receipts"][0]["event_id"] == label.id
    # Where a signed result stands on the relays one word is against the other, and none counts.
    whole = read_request(request)
    await thief.send(thief.key.sign(result_draft(request=whole, content="here", created_at=int(time.time()))))
    doubtful = await town.vendo("seller", "reputation", thief.key.npub)
    assert (doubtful.json["score"], doubtful.json["receipts"]) == (500, [])
