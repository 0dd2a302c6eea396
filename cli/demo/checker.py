"""What really happened, from the relay's stored events and the mint's answers alone.

It never asks a node. The demo made the nodes' keys, so it can open the payments that travelled encrypted, and
restore each wallet from its seed words at the mint (NUT-09, NUT-13) to see what it truly holds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from core.clock import SystemClock
from core.effect import Permit
from core.error import Unpermitted
from core.identifier import PubKey
from core.money import Msat
from dvm.nonce import leading_zero_bits
from node.storage.memory import MemoryDatabase
from relays.error import NotForUs
from relays.event import Event
from relays.key import Key, Keyring
from relays.kind import GIFT_WRAP, JOB_FEEDBACK, is_request, result_of
from relays.nip17 import unwrap
from relays.nip90 import Quote, read_answer
from wallet.cashu.curve import y_of
from wallet.cashu.mint import connect
from wallet.wallet import Wallet


@dataclass(frozen=True, slots=True)
class Party:
    """A node of the demo: who it is on the wire."""

    name: str
    key: Key

    @property
    def pubkey(self) -> PubKey:
        """Its node key, which signs jobs, quotes and results."""
        return self.key.pubkey


@dataclass(frozen=True, slots=True)
class Payment:
    """Ecash that the buyer handed to a seller, read from the wrap on the relay."""

    event_id: str
    seller: str
    request_id: str
    quote_id: str
    proofs: tuple[Mapping[str, Any], ...]
    ys: tuple[str, ...]
    sat: int
    locked_to: frozenset[str]
    refundable: bool


@dataclass(frozen=True, slots=True)
class JobFacts:
    """One job, as the relay and the mint tell it."""

    request: Event
    bid: Msat
    quotes: tuple[Quote, ...]
    payments: tuple[Payment, ...]
    results: tuple[Event, ...]
    states: Mapping[str, str]  # Y -> UNSPENT, PENDING or SPENT
    claim_fee_sat: int


class Mint:
    """The two questions that the checker asks a mint."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http, self._url = http, url

    async def states(self, ys: Sequence[str]) -> dict[str, str]:
        """NUT-07 state of each Y."""
        async with self._http.post(self._url + "/v1/checkstate", json={"Ys": list(ys)}) as answer:
            answer.raise_for_status()
            return {one["Y"]: one["state"] for one in (await answer.json())["states"]}

    async def fees(self) -> dict[str, int]:
        """NUT-02 input_fee_ppk of each keyset."""
        async with self._http.get(self._url + "/v1/keysets") as answer:
            answer.raise_for_status()
            return {one["id"]: int(one.get("input_fee_ppk") or 0) for one in (await answer.json())["keysets"]}


def _payment(event: Event, seller: Party, buyer: PubKey) -> Payment | None:
    try:
        rumor = unwrap(seller.key, event)
    except NotForUs:
        return None
    if rumor.sender != buyer:
        return None
    payload = orjson.loads(rumor.content)
    proofs = tuple(payload["proofs"])
    secrets = [orjson.loads(proof["secret"]) for proof in proofs]
    tags = [{tag[0]: tag[1:] for tag in secret[1].get("tags", [])} for secret in secrets]
    request = next(tag[1] for tag in rumor.tags if tag[0] == "e")
    return Payment(
        event_id=event.id,
        seller=seller.name,
        request_id=request,
        quote_id=payload["id"],
        proofs=proofs,
        ys=tuple(y_of(proof["secret"]) for proof in proofs),
        sat=sum(proof["amount"] for proof in proofs),
        locked_to=frozenset(secret[1]["data"] for secret in secrets if secret[0] == "P2PK"),
        refundable=all(tag.get("refund") and tag.get("locktime") for tag in tags),
    )


def _quotes(events: Sequence[Event], request: Event, sellers: Mapping[PubKey, Party]) -> tuple[Quote, ...]:
    answers = (
        read_answer(event)
        for event in events
        if event.kind == JOB_FEEDBACK and event.pubkey in sellers and request.id in event.values("e")
    )
    return tuple(answer for answer in answers if isinstance(answer, Quote))


async def restored_balance(ring: Keyring, url: str, http: aiohttp.ClientSession) -> int:
    """What a wallet holds in sat, by its seed words and the mint alone: a new database, filled by NUT-09 and NUT-07."""
    clock = SystemClock()
    wallet = Wallet(
        MemoryDatabase(clock=clock), ring, clock, _reads_only, connect([url], http, _reads_only), permit_for=Permit
    )
    await wallet.restore(url)
    return sum(one.live for one in await wallet.balance() if one.unit == "sat")


def _reads_only(permit: Permit) -> None:
    raise Unpermitted("The checker changes nothing.")


async def read_jobs(events: Sequence[Event], buyer: PubKey, sellers: Sequence[Party], mint: Mint) -> list[JobFacts]:
    """Every job that the buyer asked for, oldest first."""
    by_key = {seller.pubkey: seller for seller in sellers}
    fees = await mint.fees()
    jobs = []
    for request in (event for event in events if is_request(event.kind) and event.pubkey == buyer):
        payments = [
            payment
            for event in events
            if event.kind == GIFT_WRAP and event.value("p") in by_key
            if (payment := _payment(event, by_key[PubKey(event.value("p") or "")], buyer)) is not None
            and payment.request_id == request.id
        ]
        ys = sorted({y for payment in payments for y in payment.ys})
        ppk = sum(
            fees.get(proof["id"], _short(fees, proof["id"])) for payment in payments[:1] for proof in payment.proofs
        )
        jobs.append(
            JobFacts(
                request=request,
                bid=Msat(int(request.value("bid") or 0)),
                quotes=_quotes(events, request, by_key),
                payments=tuple(payments),
                results=tuple(
                    event
                    for event in events
                    if event.kind == result_of(request.kind)
                    and event.pubkey in by_key
                    and request.id in event.values("e")
                ),
                states=await mint.states(ys) if ys else {},
                claim_fee_sat=-(-ppk // 1000),
            )
        )
    return jobs


def _short(fees: Mapping[str, int], keyset: str) -> int:
    return next((ppk for full, ppk in fees.items() if full.startswith(keyset)), 0)


def judge(job: JobFacts, sellers: Sequence[Party], receipts: Sequence[Event]) -> dict[str, bool]:
    """Each promise of DESIGN §6 that this job shows, true or false."""
    names = {seller.pubkey: seller.name for seller in sellers}
    if not job.payments:
        return {"nothing_was_paid": not job.states and not job.results}
    distinct = {payment.ys for payment in job.payments}
    payment = job.payments[0]
    quote = next((one for one in job.quotes if one.quote_id == payment.quote_id), None)
    if quote is None:
        return {"paid_an_existing_quote": False}
    within = [one for one in job.quotes if one.amount.value <= job.bid.value]
    net = payment.sat - job.claim_fee_sat
    chosen = [event for event in job.results if event.pubkey == quote.seller]
    return {
        "paid_an_existing_quote": names[quote.seller] == payment.seller,
        "both_sellers_quoted": len({one.seller for one in job.quotes}) == len(sellers),
        "chosen_is_cheapest_admissible": quote.amount.value == min(one.amount.value for one in within),
        "paid_exactly_once": len(distinct) == 1 and set(job.states.values()) == {"SPENT"},
        "locked_to_the_quoted_wallet_key": payment.locked_to == {method.pubkey for method in quote.methods[:1]},
        "refundable_to_the_buyer": payment.refundable,
        "seller_gets_the_quoted_price": Msat.of_sat(net).value >= quote.amount.value and net == quote.amount.sat_up(),
        "within_the_reservation": Msat.of_sat(payment.sat).value <= job.bid.value + 3_000,
        "delivered_by_the_chosen_seller": len({event.id for event in chosen}) == 1 and len(job.results) == 1,
        "result_is_real": bool(chosen) and _real(job.request, chosen[0]),
        "receipt_names_the_spent_coins": any(
            event.pubkey == quote.seller and set(payment.ys) == set(next(iter(event.all("receipt")), ())[2:])
            for event in receipts
            if job.request.id in event.values("e")
        ),
    }


def _real(request: Event, result: Event) -> bool:
    if request.kind == 5970:
        bits = int(next(tag[2] for tag in request.all("param") if tag[1] == "pow"))
        mined = orjson.loads(result.content)
        return leading_zero_bits(mined["id"]) >= bits
    source = request.value("i") or ""
    return 0 < len(result.content) < len(source) and result.content[:40] in source
