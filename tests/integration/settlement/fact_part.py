"""What relay, mints and the Lightning network tell of one job.

Nothing here comes from a node: requests, quotes and results are events of the relay, payments, vouchers and deposits
are opened with the seller's key; whether coins were spent, and by whose signature, is the mint's answer (NUT-07); what
became of an invoice stands with the mint that made it, the mint that paid it, and the network.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from relays.error import NotForUs
from relays.event import Event
from relays.key import Key
from relays.kind import GIFT_WRAP, JOB_FEEDBACK
from relays.nip17 import Rumor, unwrap
from relays.nip90 import Feedback, JobResult, Quote, read_answer
from tests.integration.settlement.method_part import Job
from tests.integration.settlement.mint_part import Mint
from tests.toy_lightning_part import ToyLightning
from wallet.cashu.curve import y_of
from wallet.cashu.signature import is_signed
from wallet.invoice import read_invoice


@dataclass(frozen=True, slots=True)
class Coins:
    """Coins that were handed over, each time's together, and what the mint says of them."""

    given: frozenset[tuple[str, ...]]
    states: frozenset[str]
    takers: frozenset[str]  # `seller`, `buyer`: whose signature has spent them
    preimages: frozenset[str]  # with which they were taken


@dataclass(frozen=True, slots=True)
class Bills:
    """The invoices of a job's quotes and results."""

    invoices: frozenset[str]
    payments: int  # over the network, of all of them
    melts: frozenset[str]  # their states where they were to be paid
    quotes: frozenset[str]  # of those that were paid, where they were made


@dataclass(frozen=True, slots=True)
class Facts:
    """What is told of one job."""

    requests: frozenset[str]
    results: frozenset[str]
    late: bool  # there is a result, and it came when its customer wanted none any more
    hashes: frozenset[str]  # that the results were sealed under
    owed: bool  # the seller has said that it keeps the money for the customer
    paid: Coins  # for this job alone
    deposit: Coins
    vouchers: frozenset[tuple[int, int]]  # number and total of each
    bills: Bills


@dataclass(frozen=True, slots=True)
class Witness:
    """Who can look, and at what.

    `events` and `seen` are all that ever was on the relay, and when; `seller` opens what was sealed for it, and
    `buyer` is who sent it. `mints` are the two sides'.
    """

    events: Mapping[str, Event]
    seen: Mapping[str, float]
    seller: Key
    buyer: str
    mints: Mapping[str, Mint]
    network: ToyLightning
    http: aiohttp.ClientSession

    async def facts(self, job: Job, deposit: str) -> Facts:
        """All of one job, and of the deposit that was opened for it."""
        events = list(self.events.values())
        requests = {one.id: one for one in events if one.kind == job.kind and job.text in one.values("i")}
        about = [one for one in events if requests.keys() & set(one.values("e"))]
        results = [one for one in about if one.kind == job.kind + 1_000]
        answers = [read_answer(one) for one in (*results, *(one for one in about if one.kind == JOB_FEEDBACK))]
        messages = self._messages(events)
        payloads = [_json(one) for one in messages if one.value("e") in requests]
        about_it = [one for one in messages if one.value("deposit") == deposit]
        opened = [_json(one) for one in about_it if one.value("prepaid") == "deposit"]
        return Facts(
            frozenset(requests),
            frozenset(one.id for one in results),
            bool(results) and all(self._is_late(one, requests) for one in results),
            frozenset(one.seal.hash for one in answers if isinstance(one, JobResult) and one.seal is not None),
            any(isinstance(one, Feedback) and "kept for you" in f"{one.info} {one.content}" for one in answers),
            await self._coins(payloads),
            await self._coins(opened),
            frozenset((one["voucher"]["seq"], one["voucher"]["total_msat"]) for one in payloads if "voucher" in one),
            self._bills({one.invoice for one in answers if isinstance(one, Quote | JobResult) and one.invoice}),
        )

    def _messages(self, events: Iterable[Event]) -> list[Rumor]:
        found = []
        for one in events:
            if one.kind != GIFT_WRAP or one.value("p") != self.seller.pubkey:
                continue
            try:
                rumor = unwrap(self.seller, one)
            except NotForUs:
                continue
            if rumor.sender == self.buyer:
                found.append(rumor)
        return found

    def _is_late(self, result: Event, requests: Mapping[str, Event]) -> bool:
        ends = [int(requests[one].value("deadline") or 0) for one in result.values("e") if one in requests]
        return self.seen[result.id] >= max(ends)

    async def _coins(self, payloads: Iterable[Mapping[str, Any]]) -> Coins:
        given = [one["proofs"] for one in payloads if "proofs" in one]
        secrets = {y_of(proof["secret"]): str(proof["secret"]) for proofs in given for proof in proofs}
        states = await self._states(sorted(secrets))
        witnesses = {one["Y"]: json.loads(one["witness"]) for one in states if one.get("witness")}
        spent = [one["Y"] for one in states if one["state"] == "SPENT"]
        return Coins(
            frozenset(tuple(sorted(y_of(proof["secret"]) for proof in proofs)) for proofs in given),
            frozenset(one["state"] for one in states),
            frozenset(_taker(secrets[y], witnesses.get(y, {})) for y in spent),
            frozenset(one["preimage"] for one in witnesses.values() if one.get("preimage")),
        )

    async def _states(self, ys: Sequence[str]) -> list[dict[str, Any]]:
        if not ys:
            return []
        async with self.http.post(f"{self.mints['buyer'].url}/v1/checkstate", json={"Ys": list(ys)}) as answer:
            answer.raise_for_status()
            return list((await answer.json())["states"])

    def _bills(self, invoices: set[str]) -> Bills:
        hashes = {one: read_invoice(one).payment_hash for one in invoices}
        paid = [one for one in invoices if self.network.times(hashes[one])]
        return Bills(
            frozenset(invoices),
            sum(self.network.times(hash_) for hash_ in hashes.values()),
            frozenset(self.mints["buyer"].paid(invoices).values()),
            frozenset(self.mints["seller"].issued(paid).values()),
        )


def _json(rumor: Rumor) -> dict[str, Any]:
    """A payment as it was handed over; other words of the customer are none."""
    return dict(orjson.loads(rumor.content)) if rumor.content.startswith("{") else {}


def _taker(secret: str, witness: Mapping[str, Any]) -> str:
    """Whose signature has spent a coin: that of whom it was locked to, or of whom it goes back to."""
    _, lock = json.loads(secret)
    refund = [key for tag in lock["tags"] if tag[0] == "refund" for key in tag[1:]]
    signatures = witness.get("signatures", [])
    if any(is_signed(secret, one, key) for one in signatures for key in refund):
        return "buyer"
    ours = [lock["data"], *(key for tag in lock["tags"] if tag[0] == "pubkeys" for key in tag[1:])]
    if any(is_signed(secret, one, key) for one in signatures for key in ours if len(key) == 66):
        return "seller"
    return "nobody"
