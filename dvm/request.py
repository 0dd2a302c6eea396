"""What a caller asks for: `/compute/new` takes this, and nothing else reaches the market. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Self

import orjson

from core.error import InvalidInput
from core.money import MICRO, MicroUsd, Money, Msat
from dvm.error import InputTooLarge, UnknownKind
from dvm.preference import Prefer
from dvm.redundancy import Redundancy
from relays.key import parse_pubkey

FIRST_KIND = 5_000
LAST_KIND = 5_999
MAX_INPUT_BYTES = 32_768
MAX_INPUTS = 16
MAX_PARAMS = 32
MAX_PARAM_BYTES = 1_024
MAX_TIMEOUT_S = 3_600
_TYPES = ("text", "url", "event", "job")
_FIELDS = frozenset(
    {"kind", "input", "params", "max_usd", "max_msat", "timeout_s", "output", "prefer", "to", "private", "redundancy"}
)
PRIVATE = ("nip44", "nip04", "wrap")


@dataclass(frozen=True, slots=True)
class Datum:
    """One input of a job: NIP-90's `i` tag. `pin` is the id of the result that is meant, of an input of type `job`."""

    data: str
    type: str = "text"
    pin: str = ""


@dataclass(frozen=True, slots=True)
class ComputeRequest:
    """One job as its caller wants it.

    Attributes:
        kind: NIP-90 request kind, 5000 to 5999.
        inputs: what to work on.
        params: name and values of each `param` tag, in order.
        maximum: the most that it may cost, fees included; None takes the policy's default.
        timeout_s: seconds until a seller has had its time; None takes the policy's.
        output: the MIME type that is wanted, if any.
        prefer: what the offer is chosen by; None takes the policy's.
        to: the one seller that is asked, a public key in hex; empty is anyone.
        redundancy: how many sellers do it, and how many must agree; None is one.
        private: how inputs, parameters and the answers are hidden: `nip44`, `nip04`, `wrap`; empty is not at all.
    """

    kind: int
    inputs: tuple[Datum, ...]
    params: tuple[tuple[str, ...], ...] = ()
    maximum: Money | None = None
    timeout_s: int | None = None
    output: str = ""
    prefer: Prefer | None = None
    to: str = ""
    private: str = ""
    redundancy: Redundancy | None = None

    @classmethod
    def parse(cls, value: Any, *, max_input_bytes: int = MAX_INPUT_BYTES) -> Self:
        """From decoded JSON.

        Raises:
            InvalidInput: a field is missing, unknown, or of the wrong type or form.
            InputTooLarge: the inputs together are over the limit.
            UnknownKind: the kind is no job request.
        """
        if not isinstance(value, Mapping):
            raise InvalidInput("A compute request is a JSON object.")
        unknown = sorted(str(name) for name in value if name not in _FIELDS)
        if unknown:
            raise InvalidInput(f"A compute request has no field {unknown[0]!r}; it has {', '.join(sorted(_FIELDS))}.")
        request = cls(
            kind=_kind(value.get("kind")),
            inputs=_inputs(value.get("input")),
            params=_params(value.get("params")),
            maximum=_maximum(value),
            timeout_s=_timeout(value.get("timeout_s")),
            output=_text("output", value.get("output", ""), 128),
            prefer=_prefer(value.get("prefer")),
            to=_seller(value.get("to")),
            private=_private(value.get("private")),
            redundancy=_redundancy(value.get("redundancy")),
        )
        request.check(max_input_bytes)
        return request

    def check(self, max_input_bytes: int) -> None:
        """Whether it can go out at all.

        Raises:
            InputTooLarge: the inputs together are over the limit.
            UnknownKind: the kind is no job request.
        """
        _kind(self.kind)
        if self.redundancy is not None and self.to:
            raise InvalidInput("A job that several sellers do is not for one of them: leave out to or redundancy.")
        if self.private and not self.to and self.redundancy is None:
            raise InvalidInput("A private job is encrypted to one seller: say which, with to.")
        size = sum(len(item.data.encode()) for item in self.inputs)
        if size > max_input_bytes:
            raise InputTooLarge(f"The input has {size} bytes; at most {max_input_bytes} are allowed.")

    def canonical(self) -> bytes:
        """The same bytes for the same wish: what an idempotency key is bound to."""
        wish = {
            "inputs": [[item.data, item.type] for item in self.inputs],
            "kind": self.kind,
            "maximum": None if self.maximum is None else [self.maximum.unit, self.maximum.value],
            "output": self.output,
            "params": self.params,
            "timeout_s": self.timeout_s,
        }
        # named only where they say something, so that keys given before there were such fields stand for the same wish
        later = {"prefer": self.prefer, "to": self.to, "private": self.private}
        later["redundancy"] = str(self.redundancy) if self.redundancy is not None else ""
        return orjson.dumps(wish | {name: value for name, value in later.items() if value})


def parse_usd(text: Any) -> MicroUsd:
    """Dollars as decimal text, exact to the µUSD.

    Raises:
        InvalidInput: not such an amount.
    """
    if not isinstance(text, str) or len(text) > 32:
        raise InvalidInput('max_usd is decimal text, for example "0.05".')
    try:
        micro = Decimal(text) * MICRO
    except InvalidOperation as error:
        raise InvalidInput('max_usd is decimal text, for example "0.05".') from error
    if not micro.is_finite() or micro < 0 or micro != micro.to_integral_value() or micro > 10**15:
        raise InvalidInput("max_usd is an amount from 0 with at most six decimals.")
    return MicroUsd(int(micro))


def _kind(value: Any) -> int:
    if type(value) is not int or not FIRST_KIND <= value <= LAST_KIND:
        raise UnknownKind(f"kind is a whole number from {FIRST_KIND} to {LAST_KIND} (NIP-90).")
    return value


def _text(name: str, value: Any, most: int) -> str:
    if type(value) is not str:
        raise InvalidInput(f"{name} is text.")
    try:
        raw = value.encode()
    except UnicodeEncodeError as error:
        raise InvalidInput(f"{name} is not valid Unicode.") from error
    if len(raw) > most:
        raise InvalidInput(f"{name} has {len(raw)} bytes; at most {most} are allowed.")
    return value


def _inputs(value: Any) -> tuple[Datum, ...]:
    if isinstance(value, str):
        value = [{"data": value}]
    if not isinstance(value, list) or not value:
        raise InvalidInput('input is text, or a list of {"data", "type"}.')
    if len(value) > MAX_INPUTS:
        raise InputTooLarge(f"A job has at most {MAX_INPUTS} inputs.")
    found = []
    for item in value:
        if not isinstance(item, Mapping) or not set(item) <= {"data", "type"}:
            raise InvalidInput('Each input is an object with "data" and, if it is not text, "type".')
        if item.get("type", "text") not in _TYPES:
            raise InvalidInput(f"An input's type is one of {', '.join(_TYPES)} (NIP-90).")
        found.append(Datum(_text("input", item.get("data"), 1 << 24), item.get("type", "text")))
    return tuple(found)


def _params(value: Any) -> tuple[tuple[str, ...], ...]:
    if value is None:
        return ()
    if not isinstance(value, Mapping) or len(value) > MAX_PARAMS:
        raise InvalidInput(f"params is an object of at most {MAX_PARAMS} names and texts.")
    found = []
    for name in sorted(value, key=str):
        values = value[name] if isinstance(value[name], list) else [value[name]]
        texts = tuple(_text(f"params.{name}", item, MAX_PARAM_BYTES) for item in values)
        found.append((_text("a parameter's name", name, 128), *texts))
    return tuple(found)


def _maximum(value: Mapping[str, Any]) -> Money | None:
    usd, msat = value.get("max_usd"), value.get("max_msat")
    if usd is not None and msat is not None:
        raise InvalidInput("Give max_usd or max_msat, not both.")
    if usd is not None:
        return parse_usd(usd)
    if msat is None:
        return None
    if type(msat) is not int or not 0 <= msat <= 10**15:
        raise InvalidInput("max_msat is a whole number of msat from 0.")
    return Msat(msat)


def _prefer(value: Any) -> Prefer | None:
    if value is None:
        return None
    if value not in tuple(Prefer):
        raise InvalidInput(f"prefer is one of {', '.join(Prefer)}.")
    return Prefer(value)


def _seller(value: Any) -> str:
    if value is None or value == "":
        return ""
    return parse_pubkey(_text("to", value, 128))


def _private(value: Any) -> str:
    if value is None or value is False or value == "":
        return ""
    if value is True:
        return PRIVATE[0]
    if value not in PRIVATE:
        raise InvalidInput(f"private is true, or one of {', '.join(PRIVATE)}.")
    return str(value)


def _redundancy(value: Any) -> Redundancy | None:
    return None if value is None or value == "" else Redundancy.parse(_text("redundancy", value, 8))


def _timeout(value: Any) -> int | None:
    if value is None:
        return None
    if type(value) is not int or not 1 <= value <= MAX_TIMEOUT_S:
        raise InvalidInput(f"timeout_s is a whole number of seconds from 1 to {MAX_TIMEOUT_S}.")
    return value
