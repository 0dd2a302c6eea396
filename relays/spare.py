"""Further sockets to relays that take one key per connection: a few, which the keys use in turn."""

from collections.abc import Callable, Iterable, Sequence

from core.clock import Clock
from relays.health import RelayHealth, absorb
from relays.link import Link
from relays.rota import Rota

MAX_SPARES = 8  # sockets to one relay, besides the main one
REST_S = 60.0  # without new ones, after one was refused: some relays count connections


class Spares:
    """See the module. `make(relay, key)` opens a socket for one key; `done` hears of each before it is closed."""

    def __init__(self, make: Callable[[str, str], Link], done: Callable[[Link], None], clock: Clock) -> None:
        self._make = make
        self._done = done
        self._clock = clock
        self._rotas: dict[str, Rota] = {}
        self._links: dict[str, dict[str, Link]] = {}
        self._leaving: set[Link] = set()
        self._past: dict[str, RelayHealth] = {}
        self._rest_until: dict[str, float] = {}

    def __contains__(self, url: str) -> bool:
        return url in self._rotas

    @property
    def links(self) -> list[Link]:
        """All that are open, of all relays."""
        return [link for links in self._links.values() for link in links.values()]

    def heard(self, url: str, keys: Iterable[str]) -> None:
        """Something came for these keys."""
        for key in keys:
            self._rotas[url].heard(key, self._clock.monotonic())

    def turn(self, url: str, keys: Sequence[str]) -> None:
        """See whose turn it is at one relay."""
        rota = self._rotas.setdefault(url, Rota(MAX_SPARES))
        links = self._links.setdefault(url, {})
        mono = self._clock.monotonic()
        if any(link.connection.failures and not link.health.up for link in links.values()):
            self._rest_until[url] = mono + REST_S
        if mono < self._rest_until.get(url, 0.0):
            return
        read = [key for key, link in links.items() if _has_read(link)]
        closing = sum(link.connection.url == url for link in self._leaving)
        turn = rota.turn(keys, read, mono, closing)
        for key in turn.stop:
            link = links.pop(key, None)
            if link is not None:
                self._done(link)
                self._leaving.add(link)
                link.retire()
        for key in turn.start:
            links[key] = self._make(url, key)

    def settled(self, link: Link) -> None:
        """A socket is closed for good."""
        if link in self._leaving:
            self._leaving.discard(link)
            self._retired(link)
        links = self._links.get(link.connection.url, {})
        for key in [key for key, one in links.items() if one is link]:
            del links[key]
            self._rotas[link.connection.url].ended(key)

    def _retired(self, link: Link) -> None:
        url = link.connection.url
        link.health.requests = link.health.queued = link.health.sockets = 0
        link.health.authenticated = link.health.in_flight = 0
        absorb(self._past.setdefault(url, RelayHealth(url)), link.health)

    @property
    def health(self) -> list[RelayHealth]:
        """What was counted on each socket that is open, and on all that were, by relay."""
        for link in self.links:
            link.count()
        return [*(link.health for link in self.links), *self._past.values()]


def _has_read(link: Link) -> bool:
    shards = link.connection.shards.values()
    return link.health.up and bool(shards) and all(one.whole for one in shards)
