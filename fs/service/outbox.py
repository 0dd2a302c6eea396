"""/outbox: what went out in the agent's name, or from the node: messages, jobs, payments, published and signed events.

It shows effects, as the signed ledger has them, with what became of each; no texts, no coins, no secrets. The stream is
a log with a cursor: one record when an effect begins and one when it ends, or when nobody knows how.
"""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import orjson
from pydantic import RootModel

from fs.body import Fact
from fs.protocol import Record
from fs.session import Session
from fs.tree import File, Folder, Tree, json_bytes, json_reader

RECENT = 200


class RelayState(Fact):
    """What a relay has said to an event of ours: pending, sent or refused."""

    url: str
    state: str


class Sent(Fact):
    """One effect.

    Attributes:
        id: the number of its last entry, the cursor of those who watch.
        at_ms: when that was written.
        effect_id: the effect's own id.
        caller: who asked.
        path: the file that was called.
        what: what kind of effect it is.
        state: queued (it has begun), sent, refused (it failed), or unknown.
        subject: id of the message, job, event or operation.
        kind: of the Nostr event, as far as there is one.
        relays: what relays have said of the event that it is about.
        unit, reserved, cost: money, as far as it may cost any.
        reason: why it failed.
    """

    id: int
    at_ms: int
    effect_id: str
    caller: str
    path: str
    what: Literal["message", "file", "reaction", "event", "job", "sale", "payment", "signature", "key", "other"]
    state: Literal["queued", "sent", "refused", "unknown"]
    subject: str
    kind: int | None = None
    relays: list[RelayState] | None = None
    unit: str | None = None
    reserved: int | None = None
    cost: int | None = None
    reason: str | None = None


class Waiting(Fact):
    """How many effects have begun and not ended, and of how many nobody knows; each counted to 1,000."""

    queued: int
    unknown: int


class Outbox(Protocol):
    """What the node knows of what went out."""

    async def recent(self, limit: int) -> Sequence[Mapping[str, Any]]:
        """The last effects, oldest first, as `Sent`."""

    async def count(self) -> Mapping[str, int]:
        """As `Waiting`."""

    def follow(self, after: int | None) -> AsyncIterator[Record]:
        """Effects past a cursor as they begin and end; None is from now on, 0 from the oldest that is at hand."""


def outbox_service(outbox: Outbox) -> Tree:
    """The service at `/outbox`."""

    async def recent(session: Session) -> bytes:
        return json_bytes(await outbox.recent(RECENT))

    async def lines(session: Session) -> bytes:
        return b"".join(orjson.dumps(one) + b"\n" for one in await outbox.recent(RECENT))

    def follow(session: Session, after: int | None) -> AsyncIterator[Record]:
        return outbox.follow(after)

    return Tree(
        Folder(
            "What went out, and what became of it. Texts of messages are in /nostr/messages.",
            {
                "recent": File(
                    f"the last {RECENT}, as a JSON list, oldest first", read=recent, gives=RootModel[list[Sent]]
                ),
                "stream": File(
                    f"each as it begins and ends, one JSON object each; read, the last {RECENT}, one a line",
                    read=lines,
                    watch=follow,
                    stream=True,
                    gives=Sent,
                ),
                "count": File("how many have not ended yet", read=json_reader(outbox.count), gives=Waiting),
            },
        )
    )
