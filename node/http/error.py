"""What can go wrong on the way in over HTTP.

VendoError
├── Unauthorized      http.unauthorized       401
├── RateLimited       http.rate_limited       429
├── WrongHost         http.wrong_host         421  not addressed to this listener: a browser was led here
├── ForeignOrigin     http.foreign_origin     403  a web page of someone else asks
├── OtherAgent        http.other_agent        403  an agent's token for another agent's files
├── HoldsMoney        http.holds_money        403  of a start without tokens
├── TokensDamaged     http.tokens_damaged     500
├── NoSuchRoute       http.no_such_route      404
├── MethodNotAllowed  http.method             405
├── BadRequest        http.bad_request        400
├── RequestTooLarge   http.too_large          413
├── Encoded           http.encoded            415
├── TooSlow           http.too_slow           408
├── TooManyCalls      http.too_many_calls     503  of webhooks
└── TooManyStreams    http.too_many_streams   503
"""

from core.error import InvalidInput, NotFound, Refused, Unavailable, VendoError


class Unauthorized(Refused):
    """This needs a valid bearer token, or a valid signature of a key that is known here."""

    code = "http.unauthorized"
    status = 401
    remedy = "Send `Authorization: Bearer` with the token from the node's home directory: curl -H @HOME/curl-auth."


class RateLimited(VendoError):
    """This caller asks more often than it may."""

    code = "http.rate_limited"
    status = 429
    remedy = "Wait for as many seconds as Retry-After says, then send it again."


class WrongHost(Refused):
    """The request is not addressed to this listener."""

    code = "http.wrong_host"
    status = 421
    remedy = "Use the address that `vendo up` printed, or one of [http] names."


class ForeignOrigin(Refused):
    """A web page of another origin must not talk to the node."""

    code = "http.foreign_origin"


class OtherAgent(Refused):
    """This token opens another agent's files."""

    code = "http.other_agent"


class HoldsMoney(Refused):
    """The node holds money, so its control plane is not opened to everybody on this machine."""

    code = "http.holds_money"
    remedy = "Start it without --insecure-loopback; callers then need a header: curl -H @HOME/curl-auth."


class TokensDamaged(VendoError):
    """The file of the tokens that were given out cannot be used; none of them is accepted."""

    code = "http.tokens_damaged"
    remedy = "Put tokens.json in the home in order (0600), or remove it and make the tokens again: vendo token new."


class NoSuchRoute(NotFound):
    """There is nothing at this address."""

    code = "http.no_such_route"
    remedy = "Files are at /agents/<name>/<path>."


class MethodNotAllowed(VendoError):
    """Files take GET, HEAD, PUT, POST, DELETE, MOVE and MKCOL."""

    code = "http.method"
    status = 405


class BadRequest(InvalidInput):
    """The request is not valid."""

    code = "http.bad_request"


class RequestTooLarge(InvalidInput):
    """The request's body is too long."""

    code = "http.too_large"
    status = 413
    remedy = "Send less."


class Encoded(InvalidInput):
    """The request's body is compressed, and that is not accepted."""

    code = "http.encoded"
    status = 415
    remedy = "Send it as it is, without Content-Encoding."


class TooSlow(InvalidInput):
    """The request's body took too long to come."""

    code = "http.too_slow"
    status = 408
    remedy = "Send it again."


class TooManyCalls(Unavailable):
    """Too many webhooks are being taken at once."""

    code = "http.too_many_calls"


class TooManyStreams(Unavailable):
    """Too many streams are open."""

    code = "http.too_many_streams"
    remedy = "Close some, or try again later."
