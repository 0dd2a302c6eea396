"""The audiences of one connection, and the keys that they need authenticated (NIP-42). Pure.

A relay may show these events to anybody, to whoever has authenticated as each of the keys (several on one connection,
if it takes that, which is tried and remembered), to a node that shows a list of keys, or to one key a connection.
"""

from collections import deque
from typing import Protocol

from relays.authentication import MAX_AT_ONCE, Authentication, Settled
from relays.filter import Filter
from relays.limitation import Traits, key_capacity
from relays.nip11 import Information
from relays.shard import Shards
from relays.subscription import Spec, Stream

CHALLENGE_S = 0.5  # many relays send none before they have something to refuse
PROBE = "?probe"
MAX_REFUSED_KEYS = 3  # so many refusals in a row, after one key was accepted, mean "one key a connection"
RESTORE_KEYS = 100  # a refused request of more keys is tried again with half as many


class Port(Protocol):
    """What the parts of a connection may ask of it."""

    up: bool
    anew: bool
    information: Information
    traits: Traits
    auth: Authentication
    out: deque[str]
    streams: dict[str, Stream]

    def add(self, spec: Spec, high: int | None, now: int, mono: float) -> None:
        """Subscribe."""

    def remove(self, name: str) -> None:
        """Unsubscribe."""

    def ask(self, stream: Stream, now: int, mono: float) -> None:
        """Send the REQ of a subscription, in place of one that is open."""

    def again(self, stream: Stream, mono: float) -> None:
        """Ask anew, soon."""

    def finished(self, stream: Stream, now: int, mono: float) -> None:
        """All that was stored was read for a subscription."""

    def shut_page(self, stream: Stream) -> None:
        """Close the REQ that read the last page."""

    def fresh(self) -> str:
        """A subscription id that was not used on this connection."""

    def progress(self, now: int, mono: float) -> None:
        """Whatever may go on now, goes on."""


class Crowd:
    """See the module.

    Attributes:
        all: the audiences by name.
    """

    def __init__(self, port: Port) -> None:
        self.all: dict[str, Shards] = {}
        self._port = port
        self._refused_keys = 0
        self._probed = False

    def opened(self, now: int, mono: float) -> None:
        """A new connection."""
        self._probed = False
        self._refused_keys = 0
        for shards in self.all.values():
            self.start(shards, now, mono)

    def closed(self) -> None:
        """The connection is gone."""
        for shards in self.all.values():
            shards.restart()

    def of(self, stream: Stream) -> Shards | None:
        """The audience that a REQ is a part of."""
        return None if stream.spec.passing else self.all.get(stream.spec.owner)

    def settled(self, settled: Settled) -> None:
        """Keys were accepted, or are out of the question."""
        if settled.accepted:
            self._refused_keys = 0
        elif self._port.auth.accepted and not self._port.traits.keys:
            self._refused_keys += len(settled.failed)
            if len(self._port.auth.accepted) == 1 and self._refused_keys >= MAX_REFUSED_KEYS:
                self._port.traits.keys = "one"
        if self._port.auth.any_key() in settled.accepted and self._takes_lists:
            for shards in self.all.values():
                if shards.guarded:
                    self._port.auth.show_lists()
                    return

    @property
    def _takes_lists(self) -> bool:
        return bool(self._port.information.max_listed_keys) and not self._port.auth.list_refused

    def lists_may_be_refused(self) -> None:
        """If the relay did not take the key lists, each key speaks for itself."""
        if self._port.auth.list_refused:
            for shards in self.all.values():
                if shards.guarded:
                    self.want_keys(shards)

    def attend(self, shards: Shards, now: int, mono: float) -> None:
        """Subscribe for an audience."""
        self.all[shards.audience.name] = shards
        if self._port.up:
            self.start(shards, now, mono)
            self._port.progress(now, mono)

    def leave(self, name: str) -> None:
        """Unsubscribe an audience."""
        self.all.pop(name, None)
        for one in [one for one, stream in self._port.streams.items() if stream.spec.owner == name]:
            self._port.remove(one)

    def plan(self, name: str, now: int, mono: float) -> None:
        """Keys came to an audience, or went."""
        shards = self.all.get(name)
        if shards is not None and self._port.up:
            if shards.guarded:
                self.want_keys(shards)
            self._port.progress(now, mono)

    def start(self, shards: Shards, now: int, mono: float) -> None:
        """Begin on a new connection."""
        traits = self._port.traits
        shards.guarded = traits.guarded and traits.greets and self._port.auth.any_key() is not None
        if shards.guarded:
            self.want_keys(shards)
        self.go_on(shards, now, mono)

    def go_on(self, shards: Shards, now: int, mono: float) -> None:
        """Open and close what is due."""
        may = self._port.auth.accepted.__contains__ if shards.guarded else None
        plan = shards.plan(key_capacity(self._port.information, self._port.traits), may)
        for name in plan.shut:
            self._port.remove(name)
        for spec, high in plan.open:
            self._port.add(spec, high, now, mono)
            stream = self._port.streams[spec.name]
            stream.authenticated = shards.guarded
            shards.opened(stream)

    def guard(self, shards: Shards, stream: Stream, reason: str) -> str:
        """The relay shows these events only to who has authenticated."""
        if shards.guarded and stream.authenticated:
            if len(self._port.auth.accepted) > 1 and self._port.traits.keys != "many":
                self.settle_one()
                return ""
            stream.stopped = reason
            return reason
        if self._port.auth.any_key() is None:
            stream.stopped = reason
            return reason
        shards.guarded = self._port.traits.guarded = True
        for name in shards.release():
            self._port.remove(name)
        self.want_keys(shards)
        return ""

    def give_up_guard(self, now: int, mono: float) -> None:
        """No challenge came: ask as anybody would, which brings one from a relay that sends it only with a refusal."""
        for shards in self.all.values():
            if shards.guarded and not self._port.auth.challenge and not len(shards):
                shards.guarded = self._port.traits.greets = False
                self.go_on(shards, now, mono)

    def want_keys(self, shards: Shards) -> None:
        """Have those keys authenticated that the relay wants to see."""
        first = self._port.auth.any_key()
        if first is None:
            return
        if self._takes_lists or self._port.traits.keys == "one":
            self._port.auth.want([first])
            if first in self._port.auth.accepted and self._port.information.max_listed_keys:
                self._port.auth.show_lists()
            return
        self._port.auth.want(self._port.auth.usable(shards.audience))

    def halve(self, shards: Shards, stream: Stream, word: str) -> bool:
        """A big request was refused: try smaller ones."""
        size = max((len(values) for values in stream.spec.filters[0].tags.values()), default=0)
        if size <= RESTORE_KEYS or word == "restricted" or stream.spec.live:
            return False
        self._port.traits.values = size // 2
        shards.lost(stream)
        self._port.streams.pop(stream.spec.name, None)
        return True

    # ---- whether one connection may be several keys

    def probe(self, now: int, mono: float) -> None:
        """Take the steps that show whether the relay knows a first key still, after it has accepted a second."""
        if self._port.traits.keys or self._takes_lists:
            return
        guarded = next((shards for shards in self.all.values() if shards.guarded), None)
        if guarded is None:
            return
        known = len(self._port.auth.accepted)
        if known == 0:
            self._port.auth.at_once = 1
        elif known == 1:
            self._port.auth.at_once = 1 if guarded.whole else 0
        else:
            self._port.auth.at_once = 0
            if not self._probed and guarded.whole:
                self._ask_probe(guarded, now, mono)

    def _ask_probe(self, shards: Shards, now: int, mono: float) -> None:
        """The first key's messages, after a second one was accepted."""
        self._probed = True
        first = next((key for key in shards.keys), "")
        wanted = Filter(kinds=shards.audience.kinds, tags={shards.audience.tag: frozenset({first})}, limit=1)
        self._port.add(Spec(PROBE, (wanted,), durable=False), None, now, mono)
        self._port.streams[PROBE].authenticated = True

    def probe_ended(self, stream: Stream) -> None:
        """The first key's messages were asked for again, and all came that were to come."""
        had = any(one.got for one in self._port.streams.values() if one.spec.owner in self.all)
        if had and not stream.got:
            self.settle_probe("one")
        else:
            self.settle_probe("many" if had else "")

    def settle_probe(self, keys: str) -> None:
        """It is known now: `many`, `one`, or (empty) it could not be told."""
        self._port.remove(PROBE)
        if keys == "one":
            self.settle_one()
            return
        # Served, though perhaps only since nothing is there for the first key: then it is tried again next time
        self._port.traits.keys = keys
        self._port.auth.at_once = MAX_AT_ONCE

    def settle_one(self) -> None:
        """One key a connection: it is made anew for the first key, and the others take turns on further ones."""
        self._port.traits.keys = "one"
        self._port.anew = True
        first = self._port.auth.any_key() or ""
        for shards in self.all.values():
            if shards.guarded:
                shards.doubt(first)
