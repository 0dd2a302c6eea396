"""What an identity says of itself: its profile (NIP-01, kind 0), and that it is there now (kind 11998). Pure.

The heartbeat is what NIP-90 providers in the wild send: replaceable, with an expiration (NIP-40) a little after the
next one is due, so that a provider that has gone vanishes by itself.
"""

from dataclasses import dataclass
from typing import Any

import orjson

from relays.error import MalformedEvent
from relays.event import Draft, Event
from relays.kind import HEARTBEAT, METADATA

HEARTBEAT_S = 300
HEARTBEAT_TTL_S = 2 * HEARTBEAT_S + 60
MAX_TEXT_CHARS = 4_000
_TEXTS = ("name", "about", "picture", "website", "nip05", "lud16")


@dataclass(frozen=True, slots=True)
class Profile:
    """A profile; empty texts are left out. `bot`: nobody types there (NIP-24)."""

    name: str = ""
    about: str = ""
    picture: str = ""
    website: str = ""
    nip05: str = ""
    lud16: str = ""
    bot: bool = False


def profile_draft(profile: Profile, created_at: int) -> Draft:
    """The profile as an event (NIP-01)."""
    content: dict[str, Any] = {name: getattr(profile, name) for name in _TEXTS if getattr(profile, name)}
    if profile.bot:
        content["bot"] = True
    return Draft(METADATA, orjson.dumps(content).decode(), (), created_at)


def read_profile(event: Event) -> Profile:
    """A stranger's profile: texts cut to length, what is of the wrong type is empty.

    Raises:
        MalformedEvent: not of kind 0, or its content is no JSON object.
    """
    if event.kind != METADATA:
        raise MalformedEvent("This is not a profile.")
    try:
        content = orjson.loads(event.content)
    except orjson.JSONDecodeError as error:
        raise MalformedEvent("The profile is not JSON.") from error
    if type(content) is not dict:
        raise MalformedEvent("The profile is not an object.")
    texts = {name: content[name][:MAX_TEXT_CHARS] for name in _TEXTS if type(content.get(name)) is str}
    return Profile(**texts, bot=content.get("bot") is True)


def heartbeat_draft(d: str, created_at: int, *, queue: int = 0, capacity: int = 0) -> Draft:
    """The word that a provider is up (kind 11998): `d` names the announcement (kind 31990) that it is for.

    Args:
        d: of the announcement.
        created_at: Unix seconds.
        queue: jobs that are open.
        capacity: jobs that may be open at once; 0 leaves the load out.
    """
    tags: list[tuple[str, ...]] = [
        ("d", d),
        ("status", "online"),
        ("expiration", str(created_at + HEARTBEAT_TTL_S)),
        ("queue", str(queue)),
    ]
    if capacity:
        tags.append(("load", f"{min(1.0, queue / capacity):.2f}"))
    return Draft(HEARTBEAT, "", tuple(tags), created_at)
