"""Who means harm: sellers that take money, lie or break off; outsiders who speak in other people's names; customers
that do not pay.

They are no nodes: they act at once on what the relay stores, and share one wallet, the underworld's.
"""

import contextlib
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import replace
from typing import Any

from core.effect import Permit
from core.error import VendoError
from core.identifier import EffectId, PubKey
from core.money import Msat
from node.storage.memory import MemoryDatabase
from relays.error import NotForUs
from relays.event import Draft, Event, digest
from relays.key import Key, Keyring
from relays.kind import DELETION, DM, GIFT_WRAP, JOB_FEEDBACK
from relays.nip17 import unwrap, wrap
from relays.nip90 import (
    Input,
    JobRequest,
    PayMethod,
    Quote,
    feedback_draft,
    quote_draft,
    read_answer,
    read_request,
    request_draft,
    result_draft,
)
from tests.model_mint import Fault, ModelMint
from tests.simulation.script import FREE, PAID
from tests.simulation.world import World
from wallet.error import MintRefused
from wallet.model import LockTerms, Unlock
from wallet.wallet import Wallet

EFFECT = EffectId("underworld")
PERMIT = Permit(EFFECT)
WORDS = "abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon abandon about"
_RING: list[Keyring] = []


class Quiet:
    """A connection to the mint on which nothing ever goes wrong."""

    def __init__(self, mint: ModelMint) -> None:
        self._mint, self.url = mint, mint.url

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        act = getattr(self._mint, name)

        async def go(*args: Any) -> Any:
            script, self._mint.script = self._mint.script, lambda _: Fault.NONE
            try:
                return await act(*args)
            finally:
                self._mint.script = script

        return go


class Underworld:
    """One wallet for all of them, and what they know."""

    def __init__(self, world: World) -> None:
        if not _RING:
            _RING.append(Keyring(WORDS))
        self.world = world
        self.db = MemoryDatabase(clock=world.clock)
        line: Any = Quiet(world.mint)
        self.wallet = Wallet(self.db, _RING[0], world.clock, lambda _: None, [line], permit_for=Permit)
        self.pubkey = self.wallet.key.compressed
        self.loot = 0
        self._number = 0

    async def fund(self, sat: int) -> None:
        await self.wallet.deposit("fund", self.world.mint.url, sat, EFFECT, PERMIT)
        await self.wallet.poll("fund")

    async def claim(self, payload: Mapping[str, Any], unlock: Unlock | None = None) -> None:
        self._number += 1
        name = f"claim-{self._number}"
        while True:
            try:
                received = await self.wallet.claim(name, payload, EFFECT, PERMIT, unlock=unlock)
            except MintRefused:  # a keyset that is newer than what the wallet has asked for
                await self.world.clock.sleep(6)
                continue
            self.loot += received.amount_sat
            return

    async def lock(self, pubkey: str, price: Msat, seconds: int, quote_id: str) -> dict[str, Any]:
        """A real token."""
        self._number += 1
        terms = LockTerms(
            self.world.mint.url, price, pubkey, self.world.clock.now() + seconds, quote_id=quote_id
        )  # fmt: skip
        ceiling = Msat(price.value * 3 + 20_000)
        locked = await self.wallet.lock(f"lock-{self._number}", terms, ceiling, EFFECT, PERMIT)
        return dict(locked.payload)

    @property
    def holdings(self) -> int:
        """What is theirs at the mint, locked to others and not taken included."""
        rows = self.db._rows("proof").rows.values()
        return sum(row["amount"] for row in rows if row["state"] != "spent" and not self.world.mint.is_spent(row["y"]))


class Actor(ABC):
    """Somebody outside."""

    def __init__(self, underworld: Underworld, style: str, number: int = 0) -> None:
        self.underworld, self.world, self.style = underworld, underworld.world, style
        self.key = Key(hashlib.sha256(f"{style} {number}".encode()).digest())

    async def start(self) -> None:
        self.world.relay.on_stored.append(self._heard)

    def _heard(self, event: Event) -> None:
        if event.pubkey != self.key.pubkey:
            self.world.spawn(self.hear(event))

    @abstractmethod
    async def hear(self, event: Event) -> None:
        """Each style answers in its own way."""

    def say(self, draft: Draft) -> Event:
        event = self.key.sign(draft)
        self.world.relay.store(event)
        return event

    def act(self, what: str = "") -> None:
        """Count that it came to this."""
        self.world.acted[f"{self.style} {what}".strip()] += 1

    async def pause(self, most: float = 0.5) -> None:
        await self.world.clock.sleep(self.world.random.random() * most)

    @property
    def now(self) -> int:
        return self.world.clock.now()

    def quote(
        self, request: JobRequest, sat: int, *, name: str = "", key: str = "", mint: str = "", ttl: int = 60
    ) -> Draft:
        methods = [PayMethod("cashu", mint or self.world.mint.url, "sat", key or self.underworld.pubkey)]
        return quote_draft(
            request=request,
            quote_id=name or f"{self.style}-{request.event_id[:16]}",
            amount=Msat.of_sat(sat),
            expires_at=self.now + ttl,
            eta_s=1,
            methods=methods,
            created_at=self.now,
        )


class Rogue(Actor):
    """A seller that is cheaper than the honest ones, and what it does once it is paid depends on its style."""

    async def hear(self, event: Event) -> None:
        if event.kind == PAID and event.pubkey == self.world.buyer.key.pubkey:
            await self.pause()
            await getattr(self, f"asked_{self.style}", self.asked)(read_request(event))
        elif event.kind == GIFT_WRAP and event.value("p") == self.key.pubkey:
            try:
                rumor = unwrap(self.key, event)
            except NotForUs:
                return
            request = self.world.relay.events.get(rumor.value("e") or "")
            self.act("paid")
            if request is not None:
                await self.pause()
                await getattr(self, f"paid_{self.style}")(read_request(request), json.loads(rumor.content))

    async def asked(self, request: JobRequest) -> None:
        self.act("quotes")
        self.say(self.quote(request, 3))

    async def asked_greedy(self, request: JobRequest) -> None:
        self.act()
        top = (request.bid or Msat(10_000)).sat_up()
        self.say(self.quote(request, top * 3, name="far too much"))
        self.say(self.quote(request, 10**9, name="a fortune"))

    async def asked_liar(self, request: JobRequest) -> None:
        """Quotes that do not add up."""
        self.act()
        good = self.quote(request, 2)
        other = tuple(("amount", "1000") if tag[0] == "amount" else tag for tag in good.tags)
        self.say(replace(good, tags=other))
        self.say(self.quote(request, 2, name="q-mint", mint="https://elsewhere.test"))
        self.say(self.quote(request, 2, name="q-key", key="02" + "ff" * 32))
        self.say(self.quote(request, 2, name="q-old", ttl=-5))
        self.say(self.quote(request, 0, name="q-nothing"))
        self.say(replace(good, tags=tuple(tag for tag in good.tags if tag[0] != "amount")))

    async def asked_twoface(self, request: JobRequest) -> None:
        """One name, two prices; and both want to be paid."""
        self.act()
        self.say(self.quote(request, 4, name="one name"))
        await self.pause()
        self.say(self.quote(request, 2, name="one name"))
        self.say(self.quote(request, 3, name="another"))

    async def asked_generous(self, request: JobRequest) -> None:
        self.act()
        await self.pause(3)
        self.say(result_draft(request=request, content="a gift", created_at=self.now, amount=Msat(0)))

    async def asked_promiser(self, request: JobRequest) -> None:
        """Says `processing`, states no price, and delivers late or never."""
        self.act()
        self.say(feedback_draft(request=request, status="processing", created_at=self.now))
        await self.world.clock.sleep(2.5)
        if self.world.random.random() < 0.6:
            self.act("delivers")
            self.say(result_draft(request=request, content="by hand", created_at=self.now))

    async def asked_donor(self, request: JobRequest) -> None:
        """Delivers at once, and says nothing of a price."""
        self.act()
        self.say(result_draft(request=request, content="for nothing", created_at=self.now))

    async def asked_changer(self, request: JobRequest) -> None:
        """Promises for free, and then wants money."""
        self.act()
        self.say(feedback_draft(request=request, status="processing", created_at=self.now))
        await self.world.clock.sleep(2.2)
        self.say(self.quote(request, 3))

    async def asked_plain(self, request: JobRequest) -> None:
        """As plain machines do: an invoice, or a bill after the work."""
        self.act()
        draft = feedback_draft(request=request, status="payment-required", created_at=self.now, amount=Msat(2_000))
        self.say(draft)
        self.say(result_draft(request=request, content="pay me", created_at=self.now, amount=Msat(2_000)))
        self.say(feedback_draft(request=request, status="error", created_at=self.now, info="no"))

    async def paid_changer(self, request: JobRequest, payload: dict[str, Any]) -> None:
        await self.paid_twoface(request, payload)

    async def paid_thief(self, request: JobRequest, payload: dict[str, Any]) -> None:
        await self.underworld.claim(payload)

    async def paid_garbage(self, request: JobRequest, payload: dict[str, Any]) -> None:
        self.say(result_draft(request=request, content="   ", created_at=self.now))
        await self.underworld.claim(payload)

    async def paid_sleeper(self, request: JobRequest, payload: dict[str, Any]) -> None:
        return None

    async def paid_quitter(self, request: JobRequest, payload: dict[str, Any]) -> None:
        self.say(feedback_draft(request=request, status="error", created_at=self.now, info="changed my mind"))

    async def paid_racer(self, request: JobRequest, payload: dict[str, Any]) -> None:
        """Takes the money at the very moment at which the buyer may take it back."""
        locktime = int(dict(json.loads(payload["proofs"][0]["secret"])[1]["tags"][1:2])["locktime"])
        left = locktime - self.world.clock.millis() / 1000
        chance = self.world.random
        await self.world.clock.sleep(left + chance.choice((chance.random(), 4 * chance.random() - 1)))
        with contextlib.suppress(VendoError):  # it may be too late, which is the point
            await self.underworld.claim(payload)

    async def paid_late(self, request: JobRequest, payload: dict[str, Any]) -> None:
        await self.world.clock.sleep(10)
        self.say(result_draft(request=request, content="at last", created_at=self.now))
        await self.underworld.claim(payload)

    async def paid_twoface(self, request: JobRequest, payload: dict[str, Any]) -> None:
        self.say(result_draft(request=request, content="two faces", created_at=self.now))
        self.say(result_draft(request=request, content="the other face", created_at=self.now))
        await self.underworld.claim(payload)

    async def paid_greedy(self, request: JobRequest, payload: dict[str, Any]) -> None:
        await self.underworld.claim(payload)

    paid_liar = paid_generous = paid_promiser = paid_plain = paid_donor = paid_greedy


class Outsider(Actor):
    """Speaks of jobs that are not its own: with its own key (impostor), or in other people's names (forger)."""

    async def hear(self, event: Event) -> None:
        if event.kind == PAID and event.pubkey == self.world.buyer.key.pubkey:
            request = read_request(event)
            for seller in self.world.sellers:
                if self.style == "forger":
                    self.act("quote")
                    self.forge(seller.key.pubkey, self.quote(request, 1))
            self.elsewhere(request)
        elif event.kind == GIFT_WRAP:
            seller = next((one for one in self.world.sellers if one.key.pubkey == event.value("p")), None)
            if seller is not None:
                await self.speak(seller.key.pubkey)

    def elsewhere(self, request: JobRequest) -> None:
        """An answer that is for somebody else, and one to another request that names this one too."""
        gift = result_draft(request=request, content="not for you", created_at=self.now, amount=Msat(0))
        other = tuple(("p", "ab" * 32) if tag[0] == "p" else tag for tag in gift.tags)
        self.act("elsewhere")
        if self.style == "impostor":
            self.say(replace(gift, tags=other))
            self.say(replace(gift, tags=(("e", "cd" * 32), *gift.tags)))

    async def speak(self, seller: PubKey) -> None:
        """Somebody was paid: now is the time to speak in its place."""
        await self.pause(0.2)
        for event in list(self.world.relay.events.values()):
            if event.kind != PAID or event.pubkey != self.world.buyer.key.pubkey:
                continue
            request = read_request(event)
            drafts = (
                result_draft(request=request, content="stolen", created_at=self.now),
                feedback_draft(request=request, status="error", created_at=self.now, info="gone"),
                feedback_draft(request=request, status="success", created_at=self.now, receipt=("mint", "02" * 33)),
            )
            self.act("speaks")
            for draft in drafts:
                if self.style == "forger":
                    self.forge(seller, draft)
                else:
                    self.say(draft)

    def forge(self, author: PubKey, draft: Draft) -> None:
        """With a right id and somebody's signature of something else."""
        signature = self.key.sign(draft).sig
        hashed = digest(author, draft).hex()
        kind: Any = type(self.key.pubkey)
        forged = Event(hashed, kind(author), draft.created_at, draft.kind, draft.tags, draft.content, signature)
        self.world.relay.inject(forged)


class Stranger(Actor):
    """A customer that does not pay, or pays badly; only `fair` and `twice` pay as they should."""

    MANY = 10

    async def start(self) -> None:
        await super().start()
        self.token: dict[str, Any] | None = None
        self.world.spawn(self.ask())

    async def ask(self) -> None:
        await self.pause(1)
        kind, number = (FREE if self.style in ("freeflood", "url") else PAID), 1
        if self.style in ("flood", "freeflood"):
            number = self.MANY
        elif self.style == "reuse":
            number = 2
        data = ("http://169.254.169.254/", "url") if self.style == "url" else (f"{self.style} wants work", "text")
        for place in range(number):
            draft = request_draft(
                kind=kind,
                inputs=[Input(data[0] + ("" if self.style == "url" else f" {place}"), data[1])],
                created_at=self.now,
                bid=Msat(50_000),
                mints=[self.world.mint.url],
            )
            event = self.say(draft)
            self.act("asks")
            await self.pause(0.3)
            if self.style == "deleter":
                thief = Key(b"\x05" * 32)
                gone = Draft(DELETION, "", (("e", event.id), ("k", str(PAID))), self.now)
                self.world.relay.store(thief.sign(gone))
                await self.pause(3)
                self.say(gone)

    async def hear(self, event: Event) -> None:
        if event.kind != JOB_FEEDBACK or event.value("p") != self.key.pubkey:
            return
        answer = read_answer(event)
        if not isinstance(answer, Quote):
            return
        await self.pause()
        pay = getattr(self, f"pay_{self.style}", None)
        if pay is not None:
            self.act("pays")
            await pay(answer)

    async def send(self, quote: Quote, payload: object, *, key: Key | None = None, times: int = 1) -> None:
        tags = (("p", quote.seller), ("e", quote.request_id), ("quote", quote.quote_id))
        for _ in range(times):
            draft = Draft(DM, json.dumps(payload), tags, self.now)
            self.world.relay.store(wrap(key or self.key, quote.seller, draft))

    async def token_for(
        self, quote: Quote, *, price: Msat | None = None, key: str = "", seconds: int = 90
    ) -> dict[str, Any]:
        pubkey = key or quote.methods[0].pubkey
        return await self.underworld.lock(pubkey, price or quote.amount, seconds, quote.quote_id)

    async def pay_fair(self, quote: Quote) -> None:
        await self.send(quote, await self.token_for(quote))

    async def pay_twice(self, quote: Quote) -> None:
        await self.send(quote, await self.token_for(quote), times=2)

    async def pay_refunder(self, quote: Quote) -> None:
        """Pays, and takes the money back as soon as it may."""
        payload = await self.token_for(quote, seconds=80)
        lock = f"lock-{self.underworld._number}"
        await self.send(quote, payload)
        await self.world.clock.sleep(82)
        with contextlib.suppress(VendoError):
            await self.underworld.wallet.refund(f"refund-{lock}", lock, EFFECT, PERMIT)
            self.act("has it back")

    async def pay_small(self, quote: Quote) -> None:
        await self.send(quote, await self.token_for(quote, price=Msat(quote.amount.value // 2)))

    async def pay_wrongkey(self, quote: Quote) -> None:
        await self.send(quote, await self.token_for(quote, key=self.underworld.pubkey))

    async def pay_short(self, quote: Quote) -> None:
        await self.send(quote, await self.token_for(quote, seconds=4))

    async def pay_reuse(self, quote: Quote) -> None:
        if self.token is None:
            self.token = {}
            self.token = await self.token_for(quote)
        while not self.token:
            await self.world.clock.sleep(0.1)
        await self.send(quote, {**self.token, "id": quote.quote_id})

    async def pay_spent(self, quote: Quote) -> None:
        """Locked so that both may spend it, and spent before it is sent."""
        payload = await self.token_for(quote, key=self.underworld.pubkey)
        await self.underworld.claim(payload)
        await self.send(quote, payload)

    async def pay_forged(self, quote: Quote) -> None:
        """A forged coin behind good ones."""
        payload = await self.token_for(quote)
        last = payload["proofs"][-1]
        await self.send(
            quote, {**payload, "proofs": [*payload["proofs"][:-1], {**last, "C": payload["proofs"][0]["C"]}]}
        )

    async def pay_fattened(self, quote: Quote) -> None:
        """Half of the price, and coins that say they are worth more."""
        payload = await self.token_for(quote, price=Msat(quote.amount.value // 2))
        richer = [{**proof, "amount": proof["amount"] * 4} for proof in payload["proofs"]]
        await self.send(quote, {**payload, "proofs": richer})

    async def pay_nodleq(self, quote: Quote) -> None:
        payload = await self.token_for(quote)
        bare = [{name: value for name, value in proof.items() if name != "dleq"} for proof in payload["proofs"]]
        await self.send(quote, {**payload, "proofs": bare})

    async def pay_third(self, quote: Quote) -> None:
        await self.send(quote, await self.token_for(quote), key=Key(b"\x06" * 32))

    async def pay_junk(self, quote: Quote) -> None:
        for payload in ({}, [], "x", {"proofs": []}, {"mint": "https://elsewhere.test", "unit": "sat", "proofs": [1]}):
            await self.send(quote, payload)

    async def pay_tardy(self, quote: Quote) -> None:
        await self.world.clock.sleep(max(0, quote.expires_at - self.now) + 2)
        await self.send(quote, await self.token_for(quote))


ROGUES = (
    "thief", "garbage", "sleeper", "quitter", "racer", "late", "greedy", "liar", "twoface", "generous", "promiser",
    "changer", "plain", "donor",
)  # fmt: skip
OUTSIDERS = ("impostor", "forger")
STRANGERS = (
    "flood", "freeflood", "url", "deleter", "fair", "twice", "small", "wrongkey", "short", "reuse", "spent", "forged",
    "fattened", "nodleq", "third", "junk", "tardy", "refunder",
)  # fmt: skip
ADVERSARIES = ROGUES + OUTSIDERS + STRANGERS


def enlist(world: World) -> Underworld:
    """Make those that the script names."""
    underworld = Underworld(world)
    for style in world.script.adversaries:
        if style not in ADVERSARIES:
            continue
        maker = Rogue if style in ROGUES else Outsider if style in OUTSIDERS else Stranger
        world.actors.append(maker(underworld, style))
    return underworld
