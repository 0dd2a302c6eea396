"""Token buckets: how often one address or one key may do what. Pure; time is passed in.

A bucket refills continuously, with every fraction of a second that passes, however often it is asked.
"""

import ipaddress
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

_MAX_BUCKETS = 20_000


@dataclass(frozen=True, slots=True)
class Rate:
    """So many a minute, and so many at once. `per_minute` 0 is no limit."""

    per_minute: int = 0
    burst: int = 0


@dataclass(frozen=True, slots=True)
class Rates:
    """What one address or key may do. Addresses are whole IPv4 addresses and IPv6 /64 networks.

    Attributes:
        events: EVENT messages from one address.
        events_per_key: events by one author.
        requests: REQ, COUNT, NEG-OPEN and NEG-MSG messages from one address.
        auths: AUTH messages from one address; a key list counts once for every hundred keys.
        bytes: bytes of messages from one address; beyond it the relay reads more slowly.
        connects: new connections from one address.
        connections: open connections from one address; 0 is no limit.
        exempt: networks to which none of this applies.
    """

    events: Rate = Rate(6_000, 2_000)
    events_per_key: Rate = Rate(3_000, 1_000)
    requests: Rate = Rate(1_200, 400)
    auths: Rate = Rate(120, 120)
    bytes: Rate = Rate(120_000_000, 20_000_000)
    connects: Rate = Rate(120, 60)
    connections: int = 50
    exempt: tuple[str, ...] = ("127.0.0.0/8", "::1/128")


class Bucket:
    """One token bucket. It starts full."""

    __slots__ = ("_at", "_level", "_rate")

    def __init__(self, rate: Rate, mono: float) -> None:
        self._rate, self._at, self._level = rate, mono, float(max(rate.burst, 1))

    def _refill(self, mono: float) -> None:
        gained = max(0.0, mono - self._at) * self._rate.per_minute / 60
        self._level = min(float(max(self._rate.burst, 1)), self._level + gained)
        self._at = mono

    def take(self, mono: float, cost: float = 1.0) -> bool:
        """Take tokens if there are so many; nothing is taken otherwise. `mono` is in seconds."""
        self._refill(mono)
        if self._level < cost:
            return False
        self._level -= cost
        return True

    def has(self, mono: float) -> bool:
        """Whether there is one token; it stays."""
        self._refill(mono)
        return self._level >= 1

    def borrow(self, mono: float, cost: float) -> float:
        """Take tokens in any case. Returns for how many seconds the taker is then in debt."""
        self._refill(mono)
        self._level -= cost
        return max(0.0, -self._level * 60 / self._rate.per_minute)


class Gauge:
    """The buckets of one relay, at most 20,000; the one that was idle longest is given up first."""

    def __init__(self, rates: Rates) -> None:
        self.rates = rates
        self._exempt = [ipaddress.ip_network(one) for one in rates.exempt]
        self._buckets: OrderedDict[tuple[str, str], Bucket] = OrderedDict()
        self._open: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._buckets)

    def is_exempt(self, address: str) -> bool:
        """Whether nothing is counted for this address."""
        return is_in(address, self._exempt)

    def _bucket(self, what: str, who: str, rate: Rate, mono: float) -> Bucket:
        name = (what, who)
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket(rate, mono)
            if len(self._buckets) > _MAX_BUCKETS:
                self._buckets.popitem(last=False)
        else:
            self._buckets.move_to_end(name)
        return bucket

    def take(self, what: str, who: str, rate: Rate, mono: float, cost: float = 1.0) -> bool:
        """Whether `who` may do it now."""
        return rate.per_minute == 0 or self._bucket(what, who, rate, mono).take(mono, cost)

    def has(self, what: str, who: str, mono: float) -> bool:
        """Whether `who` could do it now; nothing is taken, and nothing remembered."""
        bucket = self._buckets.get((what, who))
        return bucket is None or bucket.has(mono)

    def borrow(self, what: str, who: str, rate: Rate, mono: float, cost: float) -> float:
        """How many seconds `who` has to wait after it."""
        return 0.0 if rate.per_minute == 0 else self._bucket(what, who, rate, mono).borrow(mono, cost)

    def enter(self, address: str, mono: float) -> str:
        """A new connection. An empty string lets it in, and it is to `leave` again."""
        group, rates = network(address), self.rates
        if not self.is_exempt(address):
            if rates.connections and self._open[group] >= rates.connections:
                return f"rate-limited: {rates.connections} connections from your address are open already"
            if not self.take("connect", group, rates.connects, mono):
                return "rate-limited: too many new connections from your address; try again in a minute"
        self._open[group] += 1
        return ""

    def leave(self, address: str) -> None:
        """A connection that was let in is over."""
        group = network(address)
        self._open[group] -= 1
        if self._open[group] <= 0:
            del self._open[group]


class Meter:
    """One connection's view of the gauge."""

    __slots__ = ("_free", "_gauge", "_group")

    def __init__(self, gauge: Gauge, address: str) -> None:
        self._gauge, self._group, self._free = gauge, network(address), gauge.is_exempt(address)

    def event(self, author: str, mono: float) -> str:
        """Why this event comes too soon after others; empty if it does not."""
        rates = self._gauge.rates
        if self._free:
            return ""
        if not self._gauge.take("event", self._group, rates.events, mono):
            return f"rate-limited: more than {rates.events.per_minute} events a minute from your address"
        if not self._gauge.has("author", author, mono):
            return f"rate-limited: more than {rates.events_per_key.per_minute} events a minute by this key"
        return ""

    def wrote(self, author: str, mono: float) -> None:
        """An event was genuine, so that it counts for its author: nobody's rate is used up by others' forgeries."""
        if not self._free:
            self._gauge.borrow("author", author, self._gauge.rates.events_per_key, mono, 1)

    def request(self, mono: float) -> str:
        """The same for a REQ, COUNT, NEG-OPEN or NEG-MSG."""
        rate = self._gauge.rates.requests
        if self._free or self._gauge.take("request", self._group, rate, mono):
            return ""
        return f"rate-limited: more than {rate.per_minute} requests a minute from your address"

    def auth(self, mono: float, cost: int = 1) -> str:
        """The same for an AUTH."""
        rate = self._gauge.rates.auths
        if self._free or self._gauge.take("auth", self._group, rate, mono, min(cost, max(rate.burst, 1))):
            return ""
        return "rate-limited: too many AUTH messages from your address"

    def read(self, size: int, mono: float) -> float:
        """A message of so many bytes came. Returns for how many seconds not to read the next."""
        if self._free:
            return 0.0
        return self._gauge.borrow("bytes", self._group, self._gauge.rates.bytes, mono, size)


def network(address: str) -> str:
    """Under which name an address is counted: itself for IPv4, its /64 for IPv6, since a customer gets one whole."""
    try:
        parsed = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return address
    if isinstance(parsed, ipaddress.IPv6Address):
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
        return str(ipaddress.ip_network((parsed, 64), strict=False))
    return str(parsed)


def is_in(address: str, networks: Sequence[ipaddress.IPv4Network | ipaddress.IPv6Network]) -> bool:
    """Whether an address is in one of the networks; text that is no address is in none."""
    try:
        parsed = ipaddress.ip_address(address.split("%", 1)[0])
    except ValueError:
        return False
    if isinstance(parsed, ipaddress.IPv6Address) and parsed.ipv4_mapped is not None:
        parsed = parsed.ipv4_mapped
    return any(parsed in one for one in networks)
