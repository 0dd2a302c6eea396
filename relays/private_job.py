"""Jobs that nobody but customer and provider can read (NIP-90, "Encrypted Params"; NIP-59). Pure.

Three ways, and the answers go the way that the request came:

- `nip44`, `nip04`: the request is public, its inputs and parameters are the encrypted content. Answers have encrypted
  content, and name the request by its id alone. Who deals with whom, the kind and the price stay visible.
- `wrap`: request and answers are rumors in gift wraps (NIP-59): a relay sees the receiver alone.

NIP-90 names NIP-04; of deployed software some write NIP-44 in its place. So what comes is read by its shape.
"""

from dataclasses import replace
from enum import StrEnum
from typing import Any

import orjson

from core.error import InvalidInput
from core.identifier import EventId, PubKey
from relays.error import MalformedEvent, NotForUs
from relays.event import MAX_EVENT_BYTES, Draft, Event, Tags, tags
from relays.key import Key
from relays.kind import DELETION, GIFT_WRAP, JOB_FEEDBACK, is_request, is_result
from relays.nip17 import Rumor, rumor_id, unwrap, wrap
from relays.nip90 import JobRequest, read_request

MAX_HIDDEN_BYTES = 38_000  # of inputs and parameters as JSON: encrypted they must fit one event
MAX_WRAPPED_BYTES = 24_000  # the same in a gift wrap, where it is encrypted twice
_HIDDEN = ("i", "param", "result")
_UNSIGNED = "0" * 128


class Scheme(StrEnum):
    """How a job is hidden."""

    OPEN = ""
    NIP44 = "nip44"
    NIP04 = "nip04"
    WRAP = "wrap"


MOST_BYTES = {Scheme.NIP44: MAX_HIDDEN_BYTES, Scheme.NIP04: MAX_HIDDEN_BYTES, Scheme.WRAP: MAX_WRAPPED_BYTES}


def scheme_of(content: str) -> Scheme:
    """Which cipher a content is of, by its shape: NIP-04's ends in its initialisation vector."""
    return Scheme.NIP04 if "?iv=" in content else Scheme.NIP44


def _encrypt(key: Key, peer: PubKey, text: str, scheme: Scheme) -> str:
    return key.encrypt_legacy(peer, text) if scheme is Scheme.NIP04 else key.encrypt(peer, text)


def _decrypt(key: Key, peer: PubKey, content: str) -> str:
    if scheme_of(content) is Scheme.NIP04:
        return key.decrypt_legacy(peer, content)
    return key.decrypt(peer, content)


# ---- the customer asks


def sealed_request(key: Key, provider: PubKey | None, draft: Draft, scheme: Scheme) -> tuple[Event, EventId]:
    """A request as it is published, and the id under which it is answered.

    Args:
        key: the customer's.
        provider: to whom it is encrypted; needed for every scheme but the open one.
        draft: the request in clear.
        scheme: how it is hidden.

    Raises:
        InvalidInput: it is too long, or there is no provider.
    """
    if scheme is Scheme.OPEN:
        event = key.sign(draft)
        return event, event.id
    if provider is None:
        raise InvalidInput("A private job is encrypted to one seller.")
    if scheme is Scheme.WRAP:
        return wrap(key, provider, draft), rumor_id(key.pubkey, draft)
    inner = [tag for tag in draft.tags if tag[0] in _HIDDEN]
    outer = tuple(tag for tag in draft.tags if tag[0] not in _HIDDEN)
    content = _encrypt(key, provider, orjson.dumps(inner).decode(), scheme)
    event = key.sign(Draft(draft.kind, content, (*outer, ("encrypted",)), draft.created_at))
    if len(event.to_json()) > MAX_EVENT_BYTES:
        raise InvalidInput("The request is too long for one event when it is encrypted.")
    return event, event.id


def sealed_cancel(key: Key, provider: PubKey, draft: Draft, scheme: Scheme) -> Event:
    """A cancellation (NIP-09), hidden if its request was."""
    return wrap(key, provider, draft) if scheme is Scheme.WRAP else key.sign(draft)


# ---- the provider reads


def open_request(key: Key, event: Event) -> JobRequest:
    """A verified request as it came, whichever way: open, encrypted to this key, or wrapped for it.

    Inputs, parameters, bid and relays count wherever they stand: some clients move all of them inside.

    Raises:
        NotForUs: it cannot be decrypted with this key, or the seal's author is not the rumor's.
        MalformedEvent: it is no job request.
    """
    if event.kind == GIFT_WRAP:
        return wrapped_request(unwrap(key, event), event)
    request = read_request(event)
    if not request.encrypted:
        return request
    plain = read_request(reveal(event, _decrypt(key, event.pubkey, event.content)))
    return replace(plain, raw=event, scheme=scheme_of(event.content).value)


def wrapped_request(rumor: Rumor, gift: Event) -> JobRequest:
    """The request in a gift wrap; its customer is who sealed it, and its id the rumor's.

    Raises:
        MalformedEvent: the rumor is no job request.
    """
    if not is_request(rumor.kind):
        raise MalformedEvent(f"Kind {rumor.kind} is not a job request.")
    request = read_request(as_event(rumor))
    return replace(request, encrypted=True, scheme=Scheme.WRAP.value, sent=gift)


def as_event(rumor: Rumor) -> Event:
    """A rumor in the form that readers take. Its seal proves its author to us; it has no signature of its own."""
    return Event(rumor.id, rumor.sender, rumor.created_at, rumor.kind, rumor.tags, rumor.content, _UNSIGNED)


# ---- the provider answers


def sealed_answer(key: Key, request: JobRequest, draft: Draft) -> Event:
    """An answer as it is published: the way that its request came.

    Raises:
        InvalidInput: encrypted it is too long for one event.
    """
    scheme = Scheme(request.scheme)
    if scheme is Scheme.OPEN:
        return key.sign(draft)
    if scheme is Scheme.WRAP:
        return wrap(key, request.customer, draft)
    content, shown = draft.content, draft.tags
    if draft.kind == JOB_FEEDBACK:  # what a status says in words may tell of the job
        words = [tag[2] for tag in shown if tag[0] == "status" and len(tag) > 2]
        content = content or " ".join(words)
        shown = tuple(tag[:2] if tag[0] == "status" else tag for tag in shown)
        receipts = [tag for tag in shown if tag[0] == "receipt"]  # they name the coins
        shown = tuple(tag for tag in shown if tag not in receipts)
        if content or receipts:  # NDK and nostr-dvm look for a list of tags here, and for nothing outside of it
            told = [tag for tag in shown if tag[0] in ("status", "e", "amount")]
            content = orjson.dumps([*told, *receipts, ("content", content)]).decode()
    if content:
        content = _encrypt(key, request.customer, content, scheme)
        shown = (*shown, ("encrypted",))
    return key.sign(Draft(draft.kind, content, shown, draft.created_at))


# ---- the customer reads


def open_answer(key: Key, event: Event) -> Event:
    """A verified answer with its content in clear, for `read_answer`; as it came if it is not encrypted to this key.

    Feedback may hold its tags in its content, status included; a result's content is the result, list or not.
    """
    if not event.content or not event.all("encrypted"):
        return event
    try:
        text = _decrypt(key, event.pubkey, event.content)
    except (NotForUs, InvalidInput):
        return event
    plain = replace(event, tags=tuple(tag for tag in event.tags if tag[0] != "encrypted"))
    return replace(plain, content=text) if is_result(event.kind) else reveal(plain, text)


def cancellation(rumor: Rumor) -> tuple[str, ...]:
    """The requests that a wrapped cancellation names; none if it is something else."""
    return tuple(rumor.values("e")) if rumor.kind == DELETION else ()


def reveal(event: Event, plaintext: str) -> Event:
    """The event with its decrypted content in place, for the readers above. Its id and signature no longer fit it.

    Of a list of tags (requests; nostrdvm's and NDK's feedback, whose text is a `content` tag) those that do not stand
    outside as well are added to the outer tags; anything else is the content.
    """
    try:
        inner: Any = orjson.loads(plaintext)
    except orjson.JSONDecodeError:
        inner = None
    if type(inner) is not list or not inner or not all(_is_tag(tag) for tag in inner):
        return replace(event, content=plaintext)
    texts = [tag[1] for tag in inner if tag[0] == "content" and len(tag) > 1]
    added: Tags = tags(tag for tag in inner if tag[0] != "content" and tuple(tag) not in event.tags)
    return replace(event, tags=event.tags + added, content=texts[0] if texts else "")


def _is_tag(value: Any) -> bool:
    return type(value) is list and bool(value) and all(type(item) is str for item in value)
