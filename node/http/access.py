"""Who asks, and whether now: the one door of the control plane.

A caller is the public (no `Authorization` header), an agent, or the operator. A header that is there is right or
refused: it never makes somebody the public. Tokens are looked up, signatures (NIP-98) are checked against what was
asked, and then each caller has a rate; what is not accepted has one of its own, by address.
"""

import ipaddress
from collections.abc import Mapping
from typing import Protocol

from aiohttp import web

from core.clock import Clock, SystemClock
from node.http.error import ForeignOrigin, RateLimited, Unauthorized, WrongHost
from node.http.guard import take_body
from node.http.nip98 import WINDOW_S, Asked, Signatures, is_signed
from node.http.rate import Buckets, Rates, retry_after
from node.http.setting import HTTPS_PORT, HttpSection, split_name
from node.http.token import OPERATOR, PUBLIC, Grant, Tokens, bearer_of, digest, grant_of
from relays.embedded.rate import network

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]")
_HTTP_PORT = 80
_FORWARDED = ("X-Forwarded-For", "X-Forwarded-Host", "X-Real-IP", "Forwarded", "Via")
_OWN_SITE = ("same-origin", "none")
_MAX_ADDRESS = 64


class GivenOut(Protocol):
    """Tokens that come and go while the node runs: `node.http.token_file.TokenFile`."""

    def known(self, offered: str) -> Grant | None:
        """Who has the token with this digest, or None."""


class Taken(Protocol):
    """Which signed events were taken already: `node.http.once.Once`."""

    async def take(self, event: str) -> bool:
        """Use up an event, by its id; False if it was used before."""


class Door:
    """Decides who a request is from.

    Args:
        tokens: those that hold as long as this process does.
        given_out: those that the operator makes and revokes.
        signatures: whose signed requests are taken; None: nobody's.
        taken: which of them were taken already; without it none is.
        clock: for rates, and how old a signature is.
        rates: how often who may ask.
        names: as which hosts others know this node, by https (`[http] names`).
        behind_proxy: whether the last entry of `X-Forwarded-For` is by a proxy of ours.
        insecure: whoever reaches the listener without a header is the operator (`--insecure-loopback`).
    """

    def __init__(
        self,
        tokens: Tokens,
        given_out: GivenOut | None = None,
        signatures: Signatures | None = None,
        taken: Taken | None = None,
        *,
        clock: Clock | None = None,
        rates: Rates | None = None,
        names: tuple[str, ...] = (),
        behind_proxy: bool = False,
        insecure: bool = False,
    ) -> None:
        rates = rates or Rates()
        self._tokens, self._given_out, self._signatures, self._taken = tokens, given_out, signatures, taken
        self._clock = clock or SystemClock()
        self._operator, self._agent = Buckets(rates.operator), Buckets(rates.agent)
        self._public, self._failed = Buckets(rates.public), Buckets(rates.failed)
        self._names, self._behind_proxy, self._insecure = names, behind_proxy, insecure
        self._port = -1
        self._hosts: Mapping[str, frozenset[str]] = {}
        self._bases: frozenset[str] = frozenset()

    def check(self, request: web.BaseRequest, port: int) -> None:
        """Whether the request is meant for this node, and does not come from a foreign web page.

        Args:
            request: what came.
            port: where the listener on loopback is.

        Raises:
            WrongHost: its one Host header is not a name of ours.
            ForeignOrigin: there is an Origin header that is not our own; or, where no token is needed, it was sent by a
                browser for another site, or handed on by a proxy.
        """
        if port != self._port:
            self._port, (self._hosts, self._bases) = port, _own(port, self._names, handed_on=self._behind_proxy)
        hosts = request.headers.getall("Host", ())
        origins = self._hosts.get(hosts[0].lower()) if len(hosts) == 1 else None
        if origins is None:
            raise WrongHost
        if any(origin.lower() not in origins for origin in request.headers.getall("Origin", ())):
            raise ForeignOrigin
        if self._insecure:
            _check_local(request)

    def holds(self, request: web.BaseRequest) -> bool:
        """Whether a request that was let in with a token would be still: it may have been revoked, or have expired."""
        token = bearer_of(request.headers.get("Authorization"))
        if token is None:
            return True
        offered = digest(token)
        return self._tokens.known(offered) is not None or (
            self._given_out is not None and self._given_out.known(offered) is not None
        )

    def count_public(self, request: web.BaseRequest) -> None:
        """Count a request that needs no token and costs something.

        Raises:
            RateLimited: this address asks too often.
        """
        _limit(self._public, self.address(request), self._clock.monotonic())

    async def grant(self, request: web.BaseRequest) -> Grant:
        """Who asks. The body of a signed request is read here, and is there once more for whoever wants it.

        Raises:
            Unauthorized: there is a header, and it is not right.
            RateLimited: this caller, or this address with what is not accepted, asks too often.
            RequestTooLarge, Encoded, BadRequest, TooSlow: the body of a signed request cannot be read.
            VendoError: that a signed request was taken could not be stored.
        """
        headers = request.headers.getall("Authorization", ())
        if not headers:
            return self._nobody(request)
        text = headers[0] if len(headers) == 1 else ""
        if (token := bearer_of(text)) is not None:
            offered = digest(token)
            found = self._tokens.known(offered)
            if found is None and self._given_out is not None:
                found = self._given_out.known(offered)
            if found is None:
                raise self._not_accepted(request)
            self._count(found)
            return found
        if self._signatures is not None and self._taken is not None and is_signed(text):
            return await self._signer(request, text, self._signatures, self._taken)
        raise self._not_accepted(request)

    def _nobody(self, request: web.BaseRequest) -> Grant:
        if self._insecure:
            grant = grant_of(OPERATOR)
            self._count(grant)
            return grant
        _limit(self._public, self.address(request), self._clock.monotonic())
        return PUBLIC

    async def _signer(self, request: web.BaseRequest, text: str, signatures: Signatures, taken: Taken) -> Grant:
        address = self.address(request)
        if wait := self._failed.wait(address, self._clock.monotonic()):  # before a signature is checked, which costs
            raise RateLimited(retry_after_s=retry_after(wait))
        asked = Asked(request.method, request.raw_path, self._bases)
        claim = signatures.claim(text, asked, self._clock.now())
        if claim is not None:
            body = await take_body(request) if request.body_exists else b""
            self._count(claim.grant)
            if claim.covers(body, self._clock.now()) and await taken.take(claim.event):
                return claim.grant
        raise self._not_accepted(
            request,
            "The signature of this request is not accepted.",
            "Sign a new event (NIP-98, kind 27235) for this method, address and body with a key that [http] nostr "
            f"names; created_at may differ by {WINDOW_S} s from this node's clock, which says {self._clock.now()}.",
        )

    def _count(self, grant: Grant) -> None:
        buckets = self._operator if grant.caller == OPERATOR else self._agent
        _limit(buckets, grant.caller, self._clock.monotonic())

    def _not_accepted(
        self, request: web.BaseRequest, message: str | None = None, remedy: str | None = None
    ) -> Unauthorized | RateLimited:
        wait = self._failed.take(self.address(request), self._clock.monotonic())
        return RateLimited(retry_after_s=retry_after(wait)) if wait else Unauthorized(message, remedy=remedy)

    def address(self, request: web.BaseRequest) -> str:
        """Under which name an address is counted; behind a proxy that which the proxy saw."""
        peer = request.remote or ""
        if self._behind_proxy:
            last = ",".join(request.headers.getall("X-Forwarded-For", ())).rpartition(",")[2].strip()[:_MAX_ADDRESS]
            peer = last if _is_address(last) else peer
        return network(peer)


def door_of(
    section: HttpSection, token: str, given_out: GivenOut, taken: Taken, clock: Clock, *, insecure: bool = False
) -> Door:
    """The door of a node: `token` is the operator's own."""
    signers = section.signers()
    return Door(
        Tokens.for_operator(token),
        given_out,
        Signatures(signers) if signers else None,
        taken,
        clock=clock,
        rates=section.rates(),
        names=section.names,
        behind_proxy=section.behind_proxy,
        insecure=insecure,
    )


def _limit(buckets: Buckets, name: str, mono: float) -> None:
    if wait := buckets.take(name, mono):
        raise RateLimited(retry_after_s=retry_after(wait))


def _own(port: int, names: tuple[str, ...], *, handed_on: bool) -> tuple[dict[str, frozenset[str]], frozenset[str]]:
    """Our Host headers, each with the origins that may be beside it; and what an absolute URL of ours begins with."""
    known: dict[str, set[str]] = {}
    bases = set()
    for name in _LOOPBACK:
        for host in (f"{name}:{port}", *([name] if port == _HTTP_PORT else [])):
            known[host] = {f"http://{host}"}
            bases.add(f"http://{host}")
    origins = set()
    for name in names:
        host, its_port = split_name(name)
        is_usual = its_port == HTTPS_PORT
        origin = f"https://{host}" if is_usual else f"https://{host}:{its_port}"  # as browsers write it
        for shown in (f"{host}:{its_port}", *([host] if is_usual else [])):
            known.setdefault(shown, set()).add(origin)
            bases.add(f"https://{shown}")
        origins.add(origin)
    if handed_on:  # a proxy may ask us by our own address
        for name in _LOOPBACK:
            known[f"{name}:{port}"] |= origins
    return {host: frozenset(origin) for host, origin in known.items()}, frozenset(bases)


def _check_local(request: web.BaseRequest) -> None:
    """Where no token is needed, what a web page of another site causes is refused, and what came through a proxy.

    A page can cause a GET without an Origin header; browsers then say in `Sec-Fetch-Site` for whom they ask.
    """
    sites = request.headers.getall("Sec-Fetch-Site", ())
    if any(site.lower() not in _OWN_SITE for site in sites):
        raise ForeignOrigin("A web page of another site must not talk to a node that needs no token.")
    if any(name in request.headers for name in _FORWARDED):
        raise ForeignOrigin("A node that needs no token takes nothing that a proxy hands on.")


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
