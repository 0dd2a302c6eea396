"""Who means harm where results are sold sealed (ADR 25): sellers that show junk, seal under another key, hold the key
back, or come at the last moment; customers that never sign, and one that wants its money back too early.
"""

import contextlib
import json
from hashlib import sha256
from typing import Any

from core.error import VendoError
from core.identifier import PubKey
from core.money import Msat
from dvm.seal import Pair, Sealed, hash_of, seal
from relays.error import NotForUs
from relays.event import Draft, Event
from relays.key import Key
from relays.kind import DM, GIFT_WRAP, JOB_FEEDBACK
from relays.nip17 import unwrap, wrap
from relays.nip90 import (
    Input,
    JobRequest,
    PayMethod,
    Quote,
    Seal,
    feedback_draft,
    quote_draft,
    read_answer,
    read_request,
    request_draft,
    result_draft,
)
from tests.model_mint import meets
from tests.simulation.adversary import EFFECT, PERMIT, Actor
from tests.simulation.script import PAID
from wallet.cashu.token import from_payload
from wallet.model import LockTerms, Unlock


def _locktime(payload: dict[str, Any]) -> int:
    tags = json.loads(payload["proofs"][0]["secret"])[1]["tags"]
    return int(next(tag[1] for tag in tags if tag[0] == "locktime"))


class SealRogue(Actor):
    """A seller of sealed results that is cheaper than the honest ones."""

    async def start(self) -> None:
        await super().start()
        self.mode = "A" if self.world.script.orders else "B"
        self.payloads: dict[str, dict[str, Any]] = {}

    def _preimage(self, request: JobRequest) -> bytes:
        return sha256(f"{self.style} {request.event_id}".encode()).digest()

    async def hear(self, event: Event) -> None:
        if event.kind == PAID and event.pubkey == self.world.buyer.key.pubkey:
            request = read_request(event)
            if request.modes:
                await self.pause()
                if self.style == "sealed_changer":
                    self.say(feedback_draft(request=request, status="processing", created_at=self.now))
                    await self.world.clock.sleep(2.2)
                self.act("quotes")
                self.say(self._sealed_quote(request))
        elif event.kind == GIFT_WRAP and event.value("p") == self.key.pubkey:
            try:
                rumor = unwrap(self.key, event)
            except NotForUs:
                return
            told = self.world.relay.events.get(rumor.value("e") or "")
            if told is None:
                return
            signatures = next((tag[1:] for tag in rumor.tags if tag[0] == "cosig"), None)
            request = read_request(told)
            if rumor.value("order"):
                self.act("ordered")
                await self.pause()
                self._show(request)
            elif signatures is None and self.mode == "A":
                self.act("paid")
                self.payloads[request.event_id] = json.loads(rumor.content)
                await getattr(self, f"signed_{self.style}")(request, ())
            elif signatures is None:
                self.act("paid")
                self.payloads[request.event_id] = json.loads(rumor.content)
                await self.pause()
                self._show(request)
            else:
                self.act("signed for")
                await getattr(self, f"signed_{self.style}")(request, signatures)

    def _sealed_quote(self, request: JobRequest) -> Draft:
        hash_ = hash_of(self._preimage(request))
        method = PayMethod(
            "htlc", self.world.mint.url, "sat", self.underworld.pubkey, self.mode, hash_, self.key.compressed
        )
        return quote_draft(
            request=request,
            quote_id=f"{self.style}-{request.event_id[:16]}",
            amount=Msat.of_sat(3),
            expires_at=self.now + 60,
            eta_s=1,
            methods=[method],
            created_at=self.now,
        )

    def _show(self, request: JobRequest) -> None:
        pair = Pair(self.key, request.seal_key, request.event_id)
        made = seal("a sealed text", self._preimage(request), pair)
        hash_ = hash_of(self._preimage(request))
        if self.style == "junk_seal":
            made = Sealed(made.content, "ab" * 32, made.pt_hash)
        elif self.style == "other_seal":
            made = seal("a sealed text", b"\7" * 32, pair)
        elif self.style == "empty_seal":
            made = seal("   ", self._preimage(request), pair)
        elif self.style == "switched_seal":
            hash_ = "cd" * 32
        elif self.style in ("silent_seal", "quitter_seal", "giver", "blank"):
            return self._unsealed(request)
        tag = Seal(hash_, self.mode, made.ct_hash, made.pt_hash, pair.public)
        self.say(result_draft(request=request, content=made.content, created_at=self.now, seal=tag))

    def _unsealed(self, request: JobRequest) -> None:
        """Something else than the sealed result."""
        if self.style == "quitter_seal":
            self.say(feedback_draft(request=request, status="error", created_at=self.now, info="changed my mind"))
        elif self.style != "silent_seal":
            content = "for nothing" if self.style == "giver" else "  "
            self.say(result_draft(request=request, content=content, created_at=self.now))

    async def _claim(self, request: JobRequest, signatures: tuple[str, ...]) -> None:
        unlock = Unlock(self._preimage(request).hex(), signatures)
        await self.underworld.claim(self.payloads[request.event_id], unlock)

    async def signed_other_seal(self, request: JobRequest, signatures: tuple[str, ...]) -> None:
        await self._claim(request, signatures)

    signed_empty_seal = signed_sealed_changer = signed_other_seal

    async def signed_keeper(self, request: JobRequest, signatures: tuple[str, ...]) -> None:
        """Never shows the key; after the locktime it tries the refund path with the signature that it was given."""
        if not signatures:
            return
        payload = self.payloads[request.event_id]
        locktime = _locktime(payload)
        await self.world.clock.sleep(locktime - self.world.clock.millis() / 1000 + 0.5)
        self.act("steals" if self._meets(payload, signatures) else "tries the refund path")

    def _meets(self, payload: dict[str, Any], signatures: tuple[str, ...]) -> bool:
        """The mint's own judgement, without spending anything."""
        coins = from_payload(payload).proofs
        return any(
            meets(coin.signed(json.dumps({"signatures": [signature]})), self.now)
            for coin, signature in zip(coins, signatures, strict=True)
        )

    async def signed_latecomer(self, request: JobRequest, signatures: tuple[str, ...]) -> None:
        """Takes the money at the very moment at which the buyer may take it back."""
        payload = self.payloads[request.event_id]
        locktime = _locktime(payload)
        left = locktime - self.world.clock.millis() / 1000
        chance = self.world.random
        await self.world.clock.sleep(left + chance.choice((-5.0, chance.random(), 4 * chance.random() - 1)))
        with contextlib.suppress(VendoError):  # it may be too late, which is the point
            await self._claim(request, signatures)

    async def signed_junk_seal(self, request: JobRequest, signatures: tuple[str, ...]) -> None:
        self.world.oddities.append("M2: somebody signed for a sealed text that is not the signed one")

    signed_switched_seal = signed_junk_seal


class SealStranger(Actor):
    """A customer that takes sealed results and does not keep to the order of things."""

    async def start(self) -> None:
        await super().start()
        self.seal_key, self.cosigner = Key(b"\x0a" * 32), self.underworld.wallet.cosign_pubkey(self.style)
        self.paid: dict[str, str] = {}
        self.world.spawn(self.ask())

    async def ask(self) -> None:
        await self.pause(1)
        self.say(
            request_draft(
                kind=PAID,
                inputs=[Input(f"{self.style} wants work")],
                created_at=self.now,
                bid=Msat(50_000),
                mints=[self.world.mint.url],
                modes=("A",) if self.style == "bad_payer" else ("B",),
                jobkey=(self.seal_key.compressed, self.cosigner),
            )
        )
        self.act("asks")

    async def hear(self, event: Event) -> None:
        if event.value("p") != self.key.pubkey:
            return
        answer = read_answer(event) if event.kind in (JOB_FEEDBACK, PAID + 1_000) else None
        if isinstance(answer, Quote) and answer.request_id not in self.paid:
            self.paid[answer.request_id] = f"{self.style}-lock"
            if self.style == "bad_payer":
                self.paid_quote = answer
                await self._send(answer.seller, answer, ("order", "A"))
            else:
                await self._pay(answer)
        elif event.kind == PAID + 1_000:
            self.act("has the sealed text")
            if self.style == "mis_signer":
                await self._send(event.pubkey, self.paid_quote, ("cosig", *("ab" * 64 for _ in range(self.coins))))
            elif self.style == "early_refunder":
                await self._take_back()
            elif self.style == "bad_payer":
                await self._pay(self.paid_quote)

    async def _pay(self, quote: Quote) -> None:
        method = next(one for one in quote.methods if one.mode)
        wallet, self.paid_quote = self.underworld.wallet, quote
        terms = LockTerms(
            self.world.mint.url,
            quote.amount,
            method.pubkey,
            self.now + 90,
            quote_id=quote.quote_id,
            hash="ab" * 32 if self.style == "bad_payer" else method.hash,
            cosigner="" if self.style == "bad_payer" else "another job" if self.style == "other_signer" else self.style,
        )
        locked = await wallet.lock(
            self.paid[quote.request_id], terms, Msat(quote.amount.value * 3 + 20_000), EFFECT, PERMIT
        )
        self.coins = len(locked.ys)
        self.act("pays")
        await self._send(quote.seller, quote, ("seal", method.mode), json.dumps(dict(locked.payload)))

    async def _send(self, seller: PubKey, quote: Quote, tag: tuple[str, ...], content: str = "") -> None:
        tags = (("p", seller), ("e", quote.request_id), ("quote", quote.quote_id), tag)
        self.world.relay.store(wrap(self.key, seller, Draft(DM, content, tags, self.now)))

    async def _take_back(self) -> None:
        """At once, which the mint refuses; and again when it may."""
        lock = self.paid[self.paid_quote.request_id]
        with contextlib.suppress(VendoError):
            await self.underworld.wallet.refund(f"early-{lock}", lock, EFFECT, PERMIT)
            self.world.oddities.append("M2: money came back before its locktime")
        await self.world.clock.sleep(95)
        with contextlib.suppress(VendoError):
            await self.underworld.wallet.refund(f"late-{lock}", lock, EFFECT, PERMIT)
            self.act("has it back")


SEAL_ROGUES = ("junk_seal", "switched_seal", "other_seal", "empty_seal", "keeper", "latecomer")
ORDER_ROGUES = ("silent_seal", "quitter_seal", "giver", "blank", "sealed_changer")  # only where work comes first
SEAL_STRANGERS = ("unsigned", "mis_signer", "other_signer", "early_refunder", "bad_payer")
SEAL_ADVERSARIES = SEAL_ROGUES + ORDER_ROGUES + SEAL_STRANGERS
