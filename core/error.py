"""The error root, and the errors that more than one folder raises.

    VendoError
    ├── InvalidInput      input.invalid      400  the caller's words are wrong
    ├── NotFound          not_found          404
    ├── Conflict          store.conflict     409  a row was not as expected; nothing was written
    ├── StoreUncertain    store.uncertain    503  the engine failed in or near COMMIT
    ├── Refused           gate.refused       403  policy or authority said no
    │   ├── KeyReused     gate.key_reused    409  same idempotency key, other body
    │   ├── BudgetExceeded budget.exceeded   402
    │   └── Paused        node.paused        503
    ├── Unpermitted       gate.unpermitted   500  our own fault: an effect without the gate's permit
    └── Unavailable       unavailable        503  something outside did not answer

Each folder adds its own branch in its `error.py`. An error says what happened (`message`), what was not
changed (`unchanged`) and what to do (`remedy`). Codes are stable; a test holds them unique and documented.
Expected outcomes (a policy says no, a quote is too dear) are values where the caller must weigh them.
"""

from typing import ClassVar


class VendoError(Exception):
    """Something went wrong in vendo."""

    code: ClassVar[str] = "internal"
    status: ClassVar[int] = 500
    unchanged: ClassVar[str] = "Nothing was changed."
    remedy: ClassVar[str] = ""

    def __init__(self, message: str | None = None, /, *, remedy: str | None = None, **context: str | int) -> None:
        doc = (type(self).__doc__ or "").strip().splitlines()[0]
        self.message = message or doc
        self.advice = remedy if remedy is not None else type(self).remedy
        self.context = context
        super().__init__(self.message)

    def __str__(self) -> str:
        return " ".join(part for part in (self.message, self.unchanged, self.advice) if part)


class InvalidInput(VendoError):
    """The request is not valid."""

    code = "input.invalid"
    status = 400
    remedy = "Correct it and send it again."


class NotFound(VendoError):
    """There is nothing under this name."""

    code = "not_found"
    status = 404


class Conflict(VendoError):
    """A row was not as expected when the writes were applied."""

    code = "store.conflict"
    status = 409
    remedy = "Read again and decide again."


class StoreUncertain(VendoError):
    """The database failed while committing; the writes may or may not be there."""

    code = "store.uncertain"
    status = 503
    unchanged = ""
    remedy = "Reload before you act on it."


class Refused(VendoError):
    """The gate refused this effect."""

    code = "gate.refused"
    status = 403


class KeyReused(Refused):
    """This idempotency key was used before with another body."""

    code = "gate.key_reused"
    status = 409
    remedy = "Use a new key for a new request."


class BudgetExceeded(Refused):
    """The budget does not cover this."""

    code = "budget.exceeded"
    status = 402
    remedy = "Ask for less, wait for the budget to renew, or raise the limit in the configuration."


class Paused(Refused):
    """The node is paused: no new effects are begun."""

    code = "node.paused"
    status = 503
    remedy = "Run `vendo resume`."


class Unpermitted(VendoError):
    """An effect was tried without a permit from the gate."""

    code = "gate.unpermitted"


class Unavailable(VendoError):
    """A part that is needed did not answer."""

    code = "unavailable"
    status = 503
    remedy = "Try again later."
