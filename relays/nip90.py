"""Job requests, quotes, feedback and results (NIP-90) as values, and their drafts. Pure.

Readers accept what deployed software writes (see each function); drafts are strict NIP-90 plus our extra tags
`quote`, `pay`, `eta`, `deadline`, `result`, `request-id`, `receipt`, `seal`, `jobkey` and `blob`, which other software
ignores (DESIGN §6).
"""

import hashlib
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeAlias

import orjson

from core.identifier import EventId, PubKey, is_hex64
from core.money import Msat
from relays.address import is_relay_url
from relays.blob import MARK
from relays.error import MalformedEvent
from relays.event import Draft, Event, tags
from relays.file_message import ALGORITHM
from relays.kind import DELETION, DISCOVERY_REQUEST, JOB_FEEDBACK, TEXT_REQUEST, is_request, is_result, result_of

INPUT_TYPES = ("url", "event", "job", "text")
PAYMENT_REQUIRED = "payment-required"
PROCESSING = "processing"
ERROR = "error"
SUCCESS = "success"
PARTIAL = "partial"
MAX_RELAYS = 20
MAX_ECHO_CHARS = 16_384
_PARAM_ALIASES = {"top-k": "top_k", "top-p": "top_p"}
_WHOLE = re.compile(r"[0-9]{1,15}")
_COMPRESSED = re.compile(r"0[23][0-9a-f]{64}")
_HEX32 = re.compile(r"[0-9a-f]{64}")
_HEX16 = re.compile(r"[0-9a-f]{32}")
SEAL_MODES = ("A", "B")  # ADR 25
_INVOICE = re.compile(r"ln(bc|tb|sb|bcrt)[0-9a-z]{20,}", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Input:
    """One `i` tag. `type` is url, event, job or text; `marker` says how the input is used."""

    data: str
    type: str = "text"
    relay: str = ""
    marker: str = ""


@dataclass(frozen=True, slots=True)
class PayMethod:
    """One way to pay a quote: ecash of this mint, locked to `pubkey`, the seller's 33-byte wallet key in hex.

    On the rail `htlc` it is locked to `hash` as well, whose preimage opens the sealed result: `mode` says in which
    order that goes, and `seal_key` is the seller's half of the seal (ADR 25). On the rail `prepaid` it is drawn from
    the customer's `deposit` there: `seq` is the last voucher that was seen, `total` what is earned (ADR 27).
    """

    rail: str
    mint: str
    unit: str
    pubkey: str
    mode: str = ""
    hash: str = ""
    seal_key: str = ""
    deposit: str = ""
    seq: int = 0
    total: int = 0

    def tag(self) -> tuple[str, ...]:
        """As a `pay` tag."""
        first = ("pay", self.rail, self.mint, self.unit, self.pubkey)
        if self.deposit:
            return (*first, self.deposit, str(self.seq), str(self.total))
        return (*first, self.mode, self.hash, self.seal_key) if self.mode else first


@dataclass(frozen=True, slots=True)
class Seal:
    """What a sealed result says of itself (ADR 25): the hash of the preimage, the mode, and hashes of both texts.

    `keys` are the seller's and the customer's halves of the seal, compressed hex: with them its author has signed which
    cipher key follows from the preimage, so that a fraud can be shown to anybody.
    """

    hash: str
    mode: str
    ct_hash: str
    pt_hash: str
    keys: tuple[str, str]

    def tag(self) -> tuple[str, ...]:
        """As a `seal` tag."""
        return ("seal", self.hash, self.mode, self.ct_hash, self.pt_hash, *self.keys)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """A job that a customer asks for (kind 5000–5999).

    Attributes:
        bid: the most that the customer will pay; None if unsaid.
        providers: the keys it is addressed to; empty means anyone.
        deadline: Unix seconds after which the result is worthless to the customer.
        expiration: Unix seconds after which the request is void (NIP-40).
        mints: Cashu mints (unit sat) whose ecash the customer can send.
        encrypted: inputs are (or were, see `relays.private_job`) in the encrypted content.
        results: (request id, result id) of earlier jobs that it builds on, where the customer says which it took.
        scheme: how it was hidden, once it was opened (`relays.private_job`); empty if it was not.
        sent: the event that brought it, where that is another than `raw`: its gift wrap.
        modes: in which the customer takes a sealed result; empty if it knows of none.
        blob_bytes: of a result that the customer fetches from file servers (`relays.blob`); 0 if it does not.
        seal_key: the customer's half of the seal, for this job alone, compressed hex; `cosign_key` signs beside ours.
    """

    event_id: EventId
    customer: PubKey
    kind: int
    inputs: tuple[Input, ...]
    output: str
    params: tuple[tuple[str, ...], ...]
    bid: Msat | None
    relays: tuple[str, ...]
    providers: tuple[PubKey, ...]
    deadline: int | None
    expiration: int | None
    mints: tuple[str, ...]
    encrypted: bool
    raw: Event
    results: tuple[tuple[str, str], ...] = ()
    scheme: str = ""
    sent: Event | None = None
    modes: tuple[str, ...] = ()
    seal_key: str = ""
    cosign_key: str = ""
    blob_bytes: int = 0

    @property
    def wire(self) -> Event:
        """What came over the wire: the encrypted form of a private request."""
        return self.sent or self.raw

    @property
    def pays_invoices(self) -> bool:
        """Whether the customer can pay over Lightning: it says so, or names no way to pay, as plain NIP-90 does."""
        ways = self.raw.all("pay")
        return not ways or any(way[1:2] == ("bolt11",) for way in ways)

    def param(self, name: str) -> str | None:
        """The first value of a `param`."""
        return next((item[1] for item in self.params if item[0] == name and len(item) > 1), None)


@dataclass(frozen=True, slots=True)
class Quote:
    """A price that a seller asks before working (7000 `payment-required` with an amount).

    A firm quote carries our `quote` tag. Any other is `implicit`: no id, `expires_at` 0 if unsaid.
    """

    event_id: EventId
    request_id: EventId
    seller: PubKey
    quote_id: str
    amount: Msat
    expires_at: int
    eta_s: int
    methods: tuple[PayMethod, ...]
    implicit: bool
    raw: Event
    invoice: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class Feedback:
    """What a seller says about a job (7000) that is not a quote. `status` is lower case with hyphens.

    `payment-required` without an amount is one of these, with `amount` None. `receipt` is (mint, Y, Y…).
    """

    event_id: EventId
    request_id: EventId
    seller: PubKey
    status: str
    info: str
    amount: Msat | None
    content: str
    receipt: tuple[str, ...] = ()
    invoice: str = ""
    raw: Event | None = None


@dataclass(frozen=True, slots=True)
class JobResult:
    """The answer to a job (kind 6000–6999). `amount` is asked for after delivery; None if unsaid."""

    event_id: EventId
    request_id: EventId
    seller: PubKey
    kind: int
    content: str
    amount: Msat | None
    raw: Event
    invoice: str = ""
    encrypted: bool = False
    seal: Seal | None = None


Answer: TypeAlias = Quote | Feedback | JobResult


# ---- drafts: what we say


def terms_hash(request_id: str, amount: Msat, expires_at: int, pay_tags: Iterable[Sequence[str]]) -> str:
    """What a firm quote commits to: sha256 over request, msat, expiry and every `pay` tag as it stands."""
    terms = [request_id, amount.value, expires_at, [list(tag) for tag in pay_tags]]
    return hashlib.sha256(orjson.dumps(terms)).hexdigest()


def request_draft(
    *,
    kind: int,
    inputs: Sequence[Input],
    created_at: int,
    params: Sequence[Sequence[str]] = (),
    output: str = "",
    bid: Msat | None = None,
    relays: Sequence[str] = (),
    providers: Sequence[str] = (),
    deadline: int | None = None,
    expiration: int | None = None,
    mints: Sequence[str] = (),
    results: Sequence[tuple[str, str]] = (),
    invoices: bool = False,
    modes: Sequence[str] = (),
    jobkey: tuple[str, str] = ("", ""),
    blob_bytes: int = 0,
) -> Draft:
    """A job request. `params` are (name, value…); `relays` is where answers are wanted; `results`: see `JobRequest`.

    `mints` and `invoices` say how we can pay: with their ecash, over Lightning. `modes` in which a sealed result is
    taken, with `jobkey`, the keys for the seal and for co-signing. `blob_bytes`: see `JobRequest`.
    """
    out: list[Sequence[str]] = [_input_tag(item) for item in inputs]
    if output:
        out.append(("output", output))
    out.extend(("param", *param) for param in params)
    out.extend(("result", *pair) for pair in results)
    if bid is not None:
        out.append(("bid", str(bid.value)))
    if relays:
        out.append(("relays", *relays))
    out.extend(("p", provider) for provider in providers)
    if deadline is not None:
        out.append(("deadline", str(deadline)))
    if expiration is not None:
        out.append(("expiration", str(expiration)))
    out.extend(("pay", "cashu", mint, "sat") for mint in mints)
    if invoices:
        out.append(("pay", "bolt11"))
    if modes:
        out += [("seal", "supported", ",".join(modes)), ("jobkey", *jobkey)]
    if blob_bytes:
        out.append((MARK, ALGORITHM, str(blob_bytes)))
    return Draft(kind, "", tags(out), created_at)


def _input_tag(item: Input) -> tuple[str, ...]:
    tag = ["i", item.data, item.type, item.relay, item.marker]
    while tag[-1] == "" and len(tag) > 3:
        tag.pop()
    return tuple(tag)


def _answer_tags(request: JobRequest, relay: str) -> list[tuple[str, ...]]:
    return [("e", request.event_id, relay) if relay else ("e", request.event_id), ("p", request.customer)]


def quote_draft(
    *,
    request: JobRequest,
    quote_id: str,
    amount: Msat,
    expires_at: int,
    eta_s: int,
    methods: Sequence[PayMethod],
    created_at: int,
    text: str = "",
    relay: str = "",
    invoice: str = "",
) -> Draft:
    """A firm quote (7000). Keep the signed event: the same request gets the same bytes until it expires."""
    pay = [method.tag() for method in methods]
    out: list[tuple[str, ...]] = [("status", PAYMENT_REQUIRED, text), _amount_tag(amount, invoice)]
    out += _answer_tags(request, relay)
    out.append(("quote", quote_id, str(expires_at), terms_hash(request.event_id, amount, expires_at, pay)))
    out.append(("eta", str(eta_s)))
    out += pay
    out.append(("expiration", str(expires_at)))
    return Draft(JOB_FEEDBACK, "", tuple(out), created_at)


def _amount_tag(amount: Msat, invoice: str) -> tuple[str, ...]:
    return ("amount", str(amount.value), invoice) if invoice else ("amount", str(amount.value))


def feedback_draft(
    *,
    request: JobRequest,
    status: str,
    created_at: int,
    info: str = "",
    amount: Msat | None = None,
    content: str = "",
    relay: str = "",
    receipt: Sequence[str] = (),
) -> Draft:
    """Any other feedback (7000). `receipt` is (mint, Y, Y…) of the payment that was claimed."""
    out: list[tuple[str, ...]] = [("status", status, info) if info else ("status", status)]
    if amount is not None:
        out.append(("amount", str(amount.value)))
    out += _answer_tags(request, relay)
    if receipt:
        out.append(("receipt", *receipt))
    return Draft(JOB_FEEDBACK, content, tuple(out), created_at)


def result_draft(
    *,
    request: JobRequest,
    content: str,
    created_at: int,
    amount: Msat | None = None,
    relay: str = "",
    seal: Seal | None = None,
    blob: bool = False,
    invoice: str = "",
) -> Draft:
    """The result of a job. Request and inputs are echoed (NIP-90) unless they are long or were encrypted.

    A sealed one is `encrypted`, but not to a key: only what the money buys opens it.
    """
    out: list[tuple[str, ...]] = []
    whole = request.raw.to_json()
    if request.encrypted:
        out.append(("request-id", request.event_id))
    elif len(whole) <= MAX_ECHO_CHARS:
        out.append(("request", whole))
    out += _answer_tags(request, relay)
    inputs = [_input_tag(item) for item in request.inputs]
    if not request.encrypted and len(orjson.dumps(inputs)) <= MAX_ECHO_CHARS:  # one character may be six in JSON
        out += inputs
    if amount is not None:
        out.append(_amount_tag(amount, invoice))
    if seal is not None:
        out += [("encrypted",), seal.tag()]
    if blob:  # the content is a pointer
        out.append((MARK, ALGORITHM))
    return Draft(result_of(request.kind), content, tuple(out), created_at)


def cancel_draft(request_id: str, kind: int, created_at: int, reason: str = "") -> Draft:
    """The customer's cancellation: a deletion (NIP-09) of the request of this kind."""
    return Draft(DELETION, reason, (("e", request_id), ("k", str(kind))), created_at)


# ---- readers: what others say


def _whole(text: str | None) -> int | None:
    return int(text) if text is not None and _WHOLE.fullmatch(text) else None


def _amount(event: Event) -> tuple[Msat | None, str]:
    """Price and invoice of the first `amount` tag. The invoice is found by its prefix: its place varies."""
    for tag in event.all("amount"):
        value = _whole(tag[1] if len(tag) > 1 else None)
        invoice = next((item for item in tag[2:] if _INVOICE.fullmatch(item)), "")
        return (None if value is None else Msat(value)), invoice
    return None, ""


def _inputs(event: Event) -> tuple[Input, ...]:
    found = []
    for tag in event.all("i"):
        data, kind, relay, marker = (*tag[1:5], "", "", "", "")[:4]
        kind = kind.strip().lower()
        # 5050's own example says `prompt`, and some say nothing at all
        if kind in ("", "prompt") or (kind not in INPUT_TYPES and event.kind == TEXT_REQUEST):
            kind = "text"
        found.append(Input(data, kind, relay, marker))
    return tuple(found)


def _params(event: Event) -> tuple[tuple[str, ...], ...]:
    return tuple((_PARAM_ALIASES.get(tag[1], tag[1]), *tag[2:]) for tag in event.all("param") if len(tag) > 1)


def read_request(event: Event) -> JobRequest:
    """A request. Tolerated: unknown or missing input types, `top-k`/`top-p`, unusable bids, keys and relays (ignored).

    Raises:
        MalformedEvent: its kind is not a request's.
    """
    if not is_request(event.kind):
        raise MalformedEvent(f"Kind {event.kind} is not a job request.")
    bid = _whole(event.value("bid"))
    # Reading an address is dear, and that of a name in other letters a hundred times dearer: strangers get a few
    named = islice((url for tag in event.all("relays") for url in tag[1:]), MAX_RELAYS)
    relays = (url for url in named if url.isascii() and is_relay_url(url))
    pay = (tag for tag in event.all("pay") if len(tag) > 2 and tag[1] == "cashu")
    mints = (tag[2].rstrip("/") for tag in pay if len(tag) == 3 or tag[3] == "sat")
    providers = (PubKey(key) for key in event.values("p") if is_hex64(key))
    modes, seal_key, cosign_key = _sealing(event)
    return JobRequest(
        event_id=event.id,
        customer=event.pubkey,
        kind=event.kind,
        inputs=_inputs(event),
        output=event.value("output") or "",
        params=_params(event),
        bid=None if bid is None else Msat(bid),
        relays=tuple(dict.fromkeys(relays)),
        providers=tuple(dict.fromkeys(providers)),
        deadline=_whole(event.value("deadline")),
        expiration=_whole(event.value("expiration")),
        mints=tuple(dict.fromkeys(mints)),
        encrypted=bool(event.all("encrypted")),
        raw=event,
        results=tuple((tag[1], tag[2]) for tag in event.all("result")[:MAX_RELAYS] if len(tag) > 2),
        modes=modes,
        seal_key=seal_key,
        cosign_key=cosign_key,
        blob_bytes=_blob_bytes(event),
    )


def _blob_bytes(event: Event) -> int:
    tag = next(iter(event.all(MARK)), ())
    return (_whole(tag[2]) or 0) if len(tag) > 2 and tag[1] == ALGORITHM else 0


def _sealing(event: Event) -> tuple[tuple[str, ...], str, str]:
    """Modes in which the customer takes a sealed result, and its two keys for that; nothing if a part is missing."""
    tag, keys = next(iter(event.all("seal")), ()), next(iter(event.all("jobkey")), ())
    if len(tag) < 3 or tag[1] != "supported" or len(keys) < 3:
        return (), "", ""
    modes = tuple(mode for mode in SEAL_MODES if mode in tag[2].split(",", 8))
    if not modes or not all(_COMPRESSED.fullmatch(key) for key in keys[1:3]):
        return (), "", ""
    return modes, keys[1], keys[2]


def _seal(event: Event) -> Seal | None:
    """The seal of a result; None if it has none that can be read."""
    tag = next(iter(event.all("seal")), ())
    if len(tag) < 7 or tag[2] not in SEAL_MODES or not all(_HEX32.fullmatch(tag[at]) for at in (1, 3, 4)):
        return None
    if not all(_COMPRESSED.fullmatch(key) for key in tag[5:7]):
        return None
    return Seal(tag[1], tag[2], tag[3], tag[4], (tag[5], tag[6]))


def _request_id(event: Event) -> EventId:
    """From the first usable `e` tag, else from the `request` tag's JSON."""
    for value in event.values("e"):
        if is_hex64(value):
            return EventId(value)
    try:
        whole = orjson.loads(event.value("request") or "null")
    except orjson.JSONDecodeError:
        whole = None
    claimed = whole.get("id") if type(whole) is dict else None
    if type(claimed) is str and is_hex64(claimed):
        return EventId(claimed)
    raise MalformedEvent("The answer does not say which request it is for.")


def read_answer(event: Event) -> Answer:
    """A quote, other feedback or a result. Who sent it and for whom is the caller's to check.

    Tolerated: `payment_required`; no `p`; no status on encrypted feedback (status is then empty until it is opened);
    a `status` on a result; 5300's list without its brackets; an invoice anywhere in `amount`.

    Raises:
        MalformedEvent: its kind is not an answer's, it names no request, or a firm quote's terms do not add up.
    """
    if is_result(event.kind):
        amount, invoice = _amount(event)
        return JobResult(
            event.id,
            _request_id(event),
            event.pubkey,
            event.kind,
            _bracketed(event),
            amount,
            event,
            invoice,
            bool(event.all("encrypted")),
            _seal(event),
        )
    if event.kind != JOB_FEEDBACK:
        raise MalformedEvent(f"Kind {event.kind} is not an answer to a job.")
    return _read_feedback(event)


def _bracketed(event: Event) -> str:
    content = event.content
    if event.kind == result_of(DISCOVERY_REQUEST) and content.lstrip().startswith("["):
        try:
            orjson.loads(content)
        except orjson.JSONDecodeError:
            return f"[{content}]"
    return content


def _read_feedback(event: Event) -> Quote | Feedback:
    request_id = _request_id(event)
    tag = next(iter(event.all("status")), ("status",))
    status = (tag[1] if len(tag) > 1 else "").strip().lower().replace("_", "-")
    info = tag[2] if len(tag) > 2 else ""
    amount, invoice = _amount(event)
    firm = next(iter(event.all("quote")), None)
    if status == PAYMENT_REQUIRED and (amount is not None or firm is not None):
        return _read_quote(event, request_id, amount, invoice, firm, info)
    receipt = next((item[1:] for item in event.all("receipt")), ())
    return Feedback(event.id, request_id, event.pubkey, status, info, amount, event.content, receipt, invoice, event)


def _read_quote(
    event: Event, request_id: EventId, amount: Msat | None, invoice: str, firm: tuple[str, ...] | None, text: str
) -> Quote:
    eta = _whole(event.value("eta")) or 0
    expiration = _whole(event.value("expiration")) or 0
    pay_tags = event.all("pay")
    if amount is None:
        raise MalformedEvent("The quote has no amount in msat.")
    if firm is None:
        return Quote(
            event.id,
            request_id,
            event.pubkey,
            "",
            amount,
            expiration,
            eta,
            _methods(pay_tags),
            True,
            event,
            invoice,
            text,
        )
    if len(firm) < 4 or not 0 < len(firm[1]) <= 128:
        raise MalformedEvent("The quote tag is not [quote, id, expiry, terms hash].")
    expires_at = _whole(firm[2])
    if expires_at is None or firm[3] != terms_hash(request_id, amount, expires_at, pay_tags):
        raise MalformedEvent("The quote's terms are not those that its hash names.")
    methods = _methods(pay_tags)
    return Quote(
        event.id, request_id, event.pubkey, firm[1], amount, expires_at, eta, methods, False, event, invoice, text
    )


def _methods(pay_tags: Iterable[tuple[str, ...]]) -> tuple[PayMethod, ...]:
    """The ways to pay that we know. Rails that we do not know, and methods without a usable key, are left out."""
    found = []
    for tag in pay_tags:
        if len(tag) < 5 or not _COMPRESSED.fullmatch(tag[4]):
            continue
        if tag[1] == "cashu":
            found.append(PayMethod("cashu", tag[2].rstrip("/"), tag[3], tag[4]))
        elif (
            tag[1] == "htlc"
            and len(tag) >= 8
            and tag[5] in SEAL_MODES
            and _HEX32.fullmatch(tag[6])
            and _COMPRESSED.fullmatch(tag[7])
        ):
            found.append(PayMethod("htlc", tag[2].rstrip("/"), tag[3], tag[4], tag[5], tag[6], tag[7]))
        elif tag[1] == "prepaid" and len(tag) >= 8 and _HEX16.fullmatch(tag[5]):
            seq, total = _whole(tag[6]), _whole(tag[7])
            if seq is not None and total is not None:
                mint = tag[2].rstrip("/")
                found.append(PayMethod("prepaid", mint, tag[3], tag[4], deposit=tag[5], seq=seq, total=total))
    return tuple(found)
