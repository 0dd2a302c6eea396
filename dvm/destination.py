"""Which relays an answer or a payment goes to. Pure.

A stranger's word never makes us connect to anything before there is money: until then an answer goes to our own relays,
through one of which the customer reached us. Once a payment was verified, the relays that the request names count, then
those at which the customer reads (NIP-65), on the public internet only, and few.
"""

from collections.abc import Sequence

from core.error import InvalidInput
from relays.address import canonical, is_nameable

MAX_RELAYS = 5


def answer_relays(
    own: Sequence[str], named: Sequence[str], read: Sequence[str] = (), *, paid: bool = False
) -> tuple[str, ...] | None:
    """Where an answer to a request goes; None is all of our relays.

    Args:
        own: our relays.
        named: the request's `relays` tag (NIP-90).
        read: the customer's read relays, as far as they are known.
        paid: whether a verified payment came for the request.
    """
    wanted = _spelled(named)
    ours = [url for url in wanted if url in own]
    if not paid:
        return tuple(ours) or None
    allowed = [url for url in dict.fromkeys((*wanted, *_spelled(read))) if url in own or is_nameable(url)]
    if not allowed:
        return None
    if any(url in own for url in allowed):
        first = next(url for url in allowed if url in own)
        return tuple(dict.fromkeys((first, *allowed)))[:MAX_RELAYS]
    return (*allowed[: max(1, MAX_RELAYS - len(own))], *own)[:MAX_RELAYS]


def payment_relays(own: Sequence[str], taken_at: Sequence[str] | None) -> tuple[str, ...] | None:
    """Where a payment message goes; None is all of our relays.

    Those are the relays on which its receiver quoted; added to them is where it takes messages (NIP-17).
    """
    extra = [url for url in taken_at or () if url not in own]
    return (*own, *extra[: max(1, MAX_RELAYS - len(own))]) if extra else None


def _spelled(urls: Sequence[str]) -> list[str]:
    found: dict[str, None] = {}
    for url in urls:
        try:
            found[canonical(url)] = None
        except InvalidInput:
            continue
    return list(found)
