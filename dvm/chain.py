"""Jobs that build on others (NIP-90, "Job chaining"): which event an input of type `job` or `event` stands for. Pure.

An input of type `job` names an earlier *request*. Anybody may publish something that calls itself its result, so one
counts only if it is of the request's own kind, passes the check for that kind and, where the request named its
providers, is from one of them. A customer that knows which result it took says so in a `result` tag; then only that
one counts.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from core.identifier import is_hex64
from dvm.acceptance import check_result
from dvm.error import BadResult, ProviderFailed
from dvm.request import ComputeRequest, Datum
from relays.blob import is_pointer
from relays.error import MalformedEvent
from relays.event import Event
from relays.filter import Filter
from relays.kind import DELETION, JOB_FEEDBACK, is_request, result_of
from relays.nip90 import ERROR, Feedback, JobRequest, JobResult, read_answer, read_request

REFERENCES = ("job", "event")
MAX_REFERENCES = 4  # of one job: each is fetched
MAX_CANDIDATES = 100
PLACEHOLDER = "(what another job found)"


@dataclass(frozen=True, slots=True)
class Found:
    """What a reference stands for: its text, or nothing yet."""

    text: str | None


NOT_YET = Found(None)


def as_compute(request: JobRequest) -> ComputeRequest:
    """A stranger's request as a provider sees it."""
    inputs = tuple(Datum(item.data, item.type) for item in request.inputs)
    return ComputeRequest(request.kind, inputs, request.params, None, None, request.output)


def references(request: ComputeRequest) -> list[Datum]:
    """The inputs that stand for something else."""
    return [item for item in request.inputs if item.type in REFERENCES]


def previewed(request: ComputeRequest) -> ComputeRequest:
    """The request with some text in place of what is not fetched yet: what a provider judges before there is money."""
    found = references(request)
    if not found or len(found) > MAX_REFERENCES or not all(is_hex64(item.data) for item in found):
        return request  # the provider says no to what it does not know
    return resolved(request, dict.fromkeys(found, PLACEHOLDER))


def resolved(request: ComputeRequest, texts: dict[Datum, str]) -> ComputeRequest:
    """The request with the texts in place of what stands for them."""
    inputs = tuple(Datum(texts[item]) if item in texts else item for item in request.inputs)
    return replace(request, inputs=inputs)


def wanted(item: Datum, request: Event | None, pinned: str) -> list[Filter]:
    """What is asked of the relays next.

    Args:
        item: the reference.
        request: the earlier request, once it was found.
        pinned: the id of the result that the customer took, or nothing.
    """
    if item.type == "event" or request is None:
        return [Filter(ids=frozenset({item.data}))]
    if pinned:
        return [Filter(ids=frozenset({pinned}))]
    kinds = frozenset({result_of(request.kind), JOB_FEEDBACK, DELETION})
    return [Filter(kinds=kinds, tags={"e": frozenset({item.data})}, limit=MAX_CANDIDATES)]


def event_text(item: Datum, events: Iterable[Event]) -> Found:
    """What an input of type `event` stands for: its content."""
    return next((Found(event.content) for event in events if event.id == item.data and event.content), NOT_YET)


def earlier_request(item: Datum, events: Iterable[Event]) -> Event | None:
    """The request that an input of type `job` names.

    Raises:
        ProviderFailed: it names something else, or an encrypted job, whose result nobody else can read.
    """
    event = next((one for one in events if one.id == item.data), None)
    if event is None:
        return None
    if not is_request(event.kind):
        raise ProviderFailed("An input of type job names an event that is no job request.")
    if event.all("encrypted"):
        raise ProviderFailed("The job that this one builds on is encrypted.")
    return event


def result_text(request: Event, events: Sequence[Event], pinned: str) -> Found:
    """The result of an earlier request, among verified events that name it.

    Raises:
        ProviderFailed: there will be none: it was cancelled, or the one provider that was asked has failed.
    """
    asked = read_request(request)
    for event in sorted(events, key=lambda one: (one.created_at, one.id)):
        text = _good_result(asked, event, pinned)
        if text is not None:
            return Found(text)
    for event in events:
        if event.kind == DELETION and event.pubkey == request.pubkey and request.id in event.values("e"):
            raise ProviderFailed("The job that this one builds on was cancelled.")
        if (reason := _failure(asked, event)) is not None:
            raise ProviderFailed(f"The job that this one builds on has failed: {reason}"[:200])
    return NOT_YET


def _good_result(asked: JobRequest, event: Event, pinned: str) -> str | None:
    if event.kind != result_of(asked.kind) or (pinned and event.id != pinned):
        return None
    if asked.providers and event.pubkey not in asked.providers:
        return None
    if is_pointer(event):
        if pinned or asked.providers:  # else a stranger's word would end the job
            raise ProviderFailed("The result that this one builds on lies on a file server, and is not fetched.")
        return None
    try:
        answer = read_answer(event)
        if not isinstance(answer, JobResult) or answer.request_id != asked.event_id or answer.encrypted:
            return None
        check_result(as_compute(asked), answer.content)
    except (MalformedEvent, BadResult):
        return None
    return answer.content


def _failure(asked: JobRequest, event: Event) -> str | None:
    """Why the one provider that was asked will not deliver; None if it said no such thing, or several were asked."""
    if event.kind != JOB_FEEDBACK or asked.providers != (event.pubkey,):
        return None
    try:
        answer = read_answer(event)
    except MalformedEvent:
        return None
    if not isinstance(answer, Feedback) or answer.request_id != asked.event_id or answer.status != ERROR:
        return None
    return answer.info or answer.content or "it gave no reason"
