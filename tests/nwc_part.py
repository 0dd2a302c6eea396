"""A Lightning wallet that is asked over Nostr (NIP-47): true invoices and preimages, money in memory, and faults.

`Ledger` is the money: what it was asked to pay is counted by payment hash, once for each request that it took, so that
a second request for the same invoice shows as a second payment. `WalletService` puts it on a relay, written on
nostr-sdk's own types over a websocket of its own, as other people's wallets are.
"""

import asyncio
import contextlib
import hashlib
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import nostr_sdk as sdk
from bolt11 import Bolt11, MilliSatoshi, Tags, decode, encode

METHODS = "pay_invoice get_balance get_info make_invoice lookup_invoice list_transactions notifications"
NODE_KEY = "11" * 32


def bolt11_invoice(
    preimage: bytes, msat: int | None, now: int, expiry_s: int = 3_600, currency: str = "bc", blocks: int = 18
) -> str:
    """A signed invoice that this preimage proves to be paid."""
    payment_hash = hashlib.sha256(preimage).hexdigest()
    about = {"payment_hash": payment_hash, "payment_secret": "22" * 32, "description": "for a test"}
    tags = Tags.from_dict({**about, "expire_time": expiry_s, "min_final_cltv_expiry": blocks})
    amount = None if msat is None else MilliSatoshi(msat)
    return encode(Bolt11(currency, now, tags, amount), NODE_KEY)


@dataclass
class Entry:
    """A payment or an invoice of the wallet."""

    direction: str
    invoice: str
    preimage: str
    amount: int
    created_at: int
    state: str = "pending"
    fees: int = 0
    settled_at: int | None = None
    settles_at: float | None = None  # it is still under way until then

    def to_dict(self, payment_hash: str) -> dict[str, Any]:
        known = self.direction == "incoming" or self.state == "settled"  # a payee knows its preimage from the start
        return {
            "type": self.direction,
            "state": self.state,
            "invoice": self.invoice,
            "preimage": self.preimage if known else None,
            "payment_hash": payment_hash,
            "amount": self.amount,
            "fees_paid": self.fees,
            "created_at": self.created_at,
            "settled_at": self.settled_at,
        }


@dataclass
class Knobs:
    """What goes wrong. Methods are named as in NIP-47."""

    refuse: str = ""  # a code with which payments are turned away before any try
    lie: float | None = None  # payments are called failed, and settle so many seconds later
    hides: float = 0.0  # a payment under way is not shown by look-ups for so long
    hold: float | None = None  # payments take so many seconds, and the answer comes when they are done
    wrong_preimage: bool = False
    no_fee: bool = False
    fee: int = 1_000
    drop: set[str] = field(default_factory=set)  # what is done and not answered
    deaf: set[str] = field(default_factory=set)  # what is not done at all
    slow: float = 0.0
    duplicate: bool = False
    stranger: bool = False  # somebody else answers first
    legacy: bool = False  # NIP-04 and nothing else
    methods: str = METHODS
    blind: bool = False  # look-ups find invoices and no payments


class WalletError(Exception):
    def __init__(self, code: str) -> None:
        self.code = code


class Ledger:
    """The money of one wallet, and the world's preimages. `now` gives the time in seconds."""

    def __init__(self, now: Callable[[], float], balance: int = 1_000_000_000) -> None:
        self.now, self.balance, self.knobs = now, balance, Knobs()
        self.entries: dict[str, Entry] = {}
        self.preimages: dict[str, str] = {}  # of others' invoices
        self.tried: Counter[str] = Counter()  # how often a payment was begun
        self.requests: dict[str, str] = {}  # of each payment that was begun: the request that asked for it
        self.paid: Counter[str] = Counter()  # how often it was settled
        self.settled: Callable[[str, Entry], None] = lambda payment_hash, entry: None

    def foreign(self, msat: int | None = 21_000, expiry_s: int = 3_600, currency: str = "bc", blocks: int = 18) -> str:
        """An invoice of somebody else."""
        preimage = os.urandom(32)
        self.preimages[hashlib.sha256(preimage).hexdigest()] = preimage.hex()
        return bolt11_invoice(preimage, msat, int(self.now()), expiry_s, currency, blocks)

    def receive(self, invoice: str) -> None:
        """Somebody pays an invoice of ours."""
        payment_hash = decode(invoice).payment_hash
        self._settle(payment_hash, self.entries[payment_hash])

    def tick(self) -> None:
        """What was under way and is due."""
        for payment_hash, entry in self.entries.items():
            if entry.state != "settled" and entry.settles_at is not None and entry.settles_at <= self.now():
                self._settle(payment_hash, entry)

    def _settle(self, payment_hash: str, entry: Entry) -> None:
        entry.state, entry.settled_at, entry.settles_at = "settled", int(self.now()), None
        if entry.direction == "outgoing":
            self.balance -= entry.amount + entry.fees
            self.paid[payment_hash] += 1
        else:
            self.balance += entry.amount
        self.settled(payment_hash, entry)

    # ---- commands

    def handle(self, method: str, params: dict[str, Any], request: str = "") -> dict[str, Any]:
        """The result of a command, or WalletError. `request` is its id: the same again is the same payment."""
        self.tick()
        match method:
            case "get_info":
                return {"alias": "test", "network": "mainnet", "methods": METHODS.split(), "notifications": []}
            case "get_balance":
                return {"balance": self.balance}
            case "make_invoice":
                return self._make(params)
            case "pay_invoice":
                return self._pay(params["invoice"], request)
            case "lookup_invoice":
                return self._look(params["payment_hash"])
            case "list_transactions":
                return {"transactions": [one.to_dict(name) for name, one in reversed(self.entries.items())][:50]}
        raise WalletError("NOT_IMPLEMENTED")

    def _make(self, params: dict[str, Any]) -> dict[str, Any]:
        preimage, now = os.urandom(32), int(self.now())
        invoice = bolt11_invoice(preimage, params["amount"], now, params.get("expiry", 3_600))
        payment_hash = hashlib.sha256(preimage).hexdigest()
        self.entries[payment_hash] = Entry("incoming", invoice, preimage.hex(), params["amount"], now)
        return self.entries[payment_hash].to_dict(payment_hash)

    def _pay(self, invoice: str, request: str) -> dict[str, Any]:
        found, knobs = decode(invoice), self.knobs
        payment_hash, amount = found.payment_hash, int(found.amount_msat or 0)
        if request and self.requests.get(payment_hash) == request:
            entry = self.entries[payment_hash]
            if entry.state == "settled":
                return self._proof(entry)
            raise WalletError("OTHER")
        if knobs.refuse:
            raise WalletError(knobs.refuse)
        if amount + knobs.fee > self.balance:
            raise WalletError("INSUFFICIENT_BALANCE")
        if found.date + (found.expiry or 3_600) <= self.now():
            raise WalletError("PAYMENT_FAILED")
        preimage = self.preimages.get(payment_hash, "")
        if not preimage:
            raise WalletError("PAYMENT_FAILED")  # nobody there
        self.tried[payment_hash] += 1
        self.requests[payment_hash] = request
        entry = self.entries[payment_hash] = Entry("outgoing", invoice, preimage, amount, int(self.now()))
        entry.fees = knobs.fee
        if knobs.lie is not None:
            entry.settles_at = self.now() + knobs.lie
            raise WalletError("PAYMENT_FAILED")
        if knobs.hold is not None:
            entry.settles_at = self.now() + knobs.hold
            raise WalletError("INTERNAL")
        self._settle(payment_hash, entry)
        return self._proof(entry)

    def _proof(self, entry: Entry) -> dict[str, Any]:
        preimage = "00" * 32 if self.knobs.wrong_preimage else entry.preimage
        return {"preimage": preimage} if self.knobs.no_fee else {"preimage": preimage, "fees_paid": entry.fees}

    def _look(self, payment_hash: str) -> dict[str, Any]:
        entry = self.entries.get(payment_hash)
        if (
            entry is None
            or (self.knobs.blind and entry.direction == "outgoing")
            or (entry.state == "pending" and self.now() < entry.created_at + self.knobs.hides)
        ):
            raise WalletError("NOT_FOUND")
        return entry.to_dict(payment_hash)


class WalletService:
    """A wallet on a relay. `restart` forgets which requests it has seen, and keeps its money."""

    def __init__(self, url: str, ledger: Ledger) -> None:
        self.url, self.ledger = url, ledger
        self.own, self.client = sdk.Keys.generate(), sdk.Keys.generate()
        self.asked: list[str] = []
        self.ids: Counter[str] = Counter()  # every request that came, by its id
        self.paying: set[str] = set()  # those that asked for a payment
        self.listening = asyncio.Event()
        self._seen: set[str] = set()
        self._socket: aiohttp.ClientWebSocketResponse | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        ledger.settled = self._tell

    @property
    def uri(self) -> str:
        secret = self.client.secret_key().to_hex()
        return f"nostr+walletconnect://{self.pubkey}?relay={self.url}&secret={secret}"

    @property
    def pubkey(self) -> str:
        return str(self.own.public_key().to_hex())

    async def run(self) -> None:
        """Serve, and connect again whenever the relay went away."""
        async with aiohttp.ClientSession() as http:
            while True:
                with contextlib.suppress(aiohttp.ClientError, OSError):
                    async with http.ws_connect(self.url, heartbeat=10) as self._socket:
                        await self._serve()
                self.listening.clear()
                await asyncio.sleep(0.05)

    async def _send(self, frame: list[Any]) -> None:
        assert self._socket is not None
        await self._socket.send_str(json.dumps(frame))

    async def publish_info(self) -> None:
        """Say again what it can, as after a change of the knobs."""
        known = "nip04" if self.ledger.knobs.legacy else "nip44_v2 nip04"
        tags = [["notifications", "payment_received payment_sent"]]
        tags += [] if self.ledger.knobs.legacy else [["encryption", known]]
        await self._publish(13_194, self.ledger.knobs.methods, tags)

    async def _publish(self, kind: int, content: str, tags: list[list[str]], keys: sdk.Keys | None = None) -> None:
        await self._publish_as("EVENT", kind, content, tags, keys or self.own)

    async def _publish_as(self, verb: str, kind: int, content: str, tags: list[list[str]], keys: sdk.Keys) -> None:
        builder = sdk.EventBuilder(sdk.Kind(kind), content).tags([sdk.Tag.parse(tag) for tag in tags])
        await self._send([verb, json.loads(builder.finalize(keys).as_json())])

    async def _serve(self) -> None:
        await self._send(["REQ", "w", {"kinds": [23_194], "#p": [self.pubkey]}])
        await self.publish_info()
        assert self._socket is not None
        async for message in self._socket:
            if message.type is not aiohttp.WSMsgType.TEXT:
                return
            frame = json.loads(message.data)
            if frame[0] == "OK" and frame[2]:
                self.listening.set()  # the info event is there, and the request before it was heard
            if frame[0] == "AUTH":
                await self._prove(frame[1])
            if frame[0] == "EVENT":
                self._spawn(self._answer(sdk.Event.from_json(json.dumps(frame[2])), frame[2]))

    async def _prove(self, challenge: str) -> None:
        """NIP-42; then all that was refused before."""
        await self._publish_as("AUTH", 22_242, "", [["relay", self.url], ["challenge", challenge]], self.own)
        await self._send(["REQ", "w", {"kinds": [23_194], "#p": [self.pubkey]}])
        await self.publish_info()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _encryption(self, raw: dict[str, Any]) -> str:
        return next((tag[1] for tag in raw["tags"] if tag[0] == "encryption"), "nip04")

    def _sealed(self, text: str, encryption: str, keys: sdk.Keys | None = None) -> str:
        secret, to = (keys or self.own).secret_key(), self.client.public_key()
        if encryption == "nip04":
            return str(sdk.nip04_encrypt(secret, to, text))
        return str(sdk.nip44_encrypt(secret, to, text, sdk.Nip44Version.V2))

    async def _answer(self, event: sdk.Event, raw: dict[str, Any]) -> None:
        if not event.verify() or raw["pubkey"] != self.client.public_key().to_hex():
            return
        self.ids[raw["id"]] += 1
        until = next((int(tag[1]) for tag in raw["tags"] if tag[0] == "expiration"), None)
        if raw["id"] in self._seen or (until is not None and self.ledger.now() > until):
            return
        self._seen.add(raw["id"])
        encryption = self._encryption(raw)
        opens = sdk.nip04_decrypt if encryption == "nip04" else sdk.nip44_decrypt
        if self.ledger.knobs.legacy and encryption != "nip04":
            return
        request = json.loads(opens(self.own.secret_key(), event.author(), raw["content"]))
        method, knobs = request["method"], self.ledger.knobs
        self.asked.append(method)
        if method == "pay_invoice":
            self.paying.add(raw["id"])
        if method in knobs.deaf:
            return
        body: dict[str, Any] = {"result_type": method, "error": None, "result": None}
        try:
            body["result"] = self.ledger.handle(method, request["params"], raw["id"])
        except WalletError as error:
            body["error"] = {"code": error.code, "message": f"no: {error.code}"}
        if method in knobs.drop:
            return
        await asyncio.sleep(knobs.slow)
        tags = [["p", raw["pubkey"]], ["e", raw["id"]]]
        if knobs.stranger:
            other = sdk.Keys.generate()
            lie = json.dumps({**body, "error": None, "result": {"preimage": "ff" * 32, "balance": 1, "fees_paid": 0}})
            await self._publish(23_195, self._sealed(lie, encryption, other), tags, other)
        for _ in range(2 if knobs.duplicate else 1):
            await self._publish(23_195, self._sealed(json.dumps(body), encryption), tags)

    def _tell(self, payment_hash: str, entry: Entry) -> None:
        kind = "payment_sent" if entry.direction == "outgoing" else "payment_received"
        body = {"notification_type": kind, "notification": entry.to_dict(payment_hash)}
        legacy = self.ledger.knobs.legacy
        sealed = self._sealed(json.dumps(body), "nip04" if legacy else "nip44_v2")
        if "notify" not in self.ledger.knobs.deaf and self._socket is not None and not self._socket.closed:
            self._spawn(self._publish(23_196 if legacy else 23_197, sealed, [["p", self.client.public_key().to_hex()]]))

    def restart(self) -> None:
        """It forgets which requests it has seen."""
        self._seen.clear()


@asynccontextmanager
async def serving(url: str, ledger: Ledger) -> AsyncIterator[WalletService]:
    """A wallet on a relay, listening."""
    service = WalletService(url, ledger)
    task = asyncio.create_task(service.run())
    try:
        await asyncio.wait_for(service.listening.wait(), 60)
        yield service
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
