"""What can go wrong on the way in over HTTP.

VendoError
├── Unauthorized      http.unauthorized       401
├── WrongHost         http.wrong_host         421  not addressed to this listener: a browser was led here
├── ForeignOrigin     http.foreign_origin     403  a web page of someone else asks
├── OtherAgent        http.other_agent        403  an agent's token for another agent's files
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
    """This needs a valid bearer token."""

    code = "http.unauthorized"
    status = 401
    remedy = "Send `Authorization: Bearer` with the token from the node's home directory."


class WrongHost(Refused):
    """The request is not addressed to this listener."""

    code = "http.wrong_host"
    status = 421
    remedy = "Use the address that `vendo up` printed."


class ForeignOrigin(Refused):
    """A web page of another origin must not talk to the node."""

    code = "http.foreign_origin"


class OtherAgent(Refused):
    """This token opens another agent's files."""

    code = "http.other_agent"


class NoSuchRoute(NotFound):
    """There is nothing at this address."""

    code = "http.no_such_route"
    remedy = "Files are at /agents/<name>/<path>."


class MethodNotAllowed(VendoError):
    """Files take GET, HEAD, PUT and POST."""

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
