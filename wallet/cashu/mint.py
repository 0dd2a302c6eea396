"""A mint over HTTP. Its answers are foreign text: size-capped, parsed strictly, and judged by codes, never by words.

What a failure means is in the error: no connection is "never sent"; a definite 4xx is "rejected"; everything else
after the request went out (time-out, broken connection, 5xx, nonsense) is "not known".
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, TypeVar

import aiohttp
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from core.effect import Permit
from wallet.cashu.address import canonical_url
from wallet.cashu.keyset import MAX_KEYS, MAX_KEYSETS, Keyset, KeysetInfo, checked
from wallet.cashu.limit import Limit, Limits
from wallet.cashu.port import BATCH, CoinReport, CoinState, MeltQuote, MeltState, MintQuote, QuoteState
from wallet.cashu.proof import Output, Proof, Signature
from wallet.error import MintBusy, MintLied, MintRejected, MintSilent, MintUnreachable

MAX_ANSWER = 2 * 1024 * 1024
_TIMEOUT = aiohttp.ClientTimeout(total=20, connect=5)
# The mint answers when the payment has ended, and a Lightning payment may try many ways.
_MELT_TIMEOUT = aiohttp.ClientTimeout(total=60, connect=5)
_PLAIN = {"Accept-Encoding": "identity"}
_MAX_METHODS = 200
_MAX_CHANGE = 64
_MAX_WITNESS = 65_536
_log = logging.getLogger(__name__)

_Hex = Annotated[str, Field(pattern=r"^[0-9a-f]*$", max_length=130)]
_Text = Annotated[str, Field(max_length=10_000)]
# A larger one is no amount, and could neither be told on nor be stored.
_Amount = Annotated[int, Field(ge=0, lt=1 << 63)]
_Moment = _Amount  # Unix seconds


class _Model(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore", frozen=True)


class _Info(_Model):
    id: Annotated[str, Field(pattern=r"^(00[0-9a-f]{14}|01[0-9a-f]{64})$")]
    unit: Annotated[str, Field(max_length=32)]
    active: bool = True
    input_fee_ppk: Annotated[int, Field(ge=0)] | None = None
    final_expiry: _Moment | None = None

    def info(self) -> KeysetInfo:
        return KeysetInfo(self.id, self.unit, self.active, self.input_fee_ppk or 0, self.final_expiry)


class _Keysets(_Model):
    keysets: Annotated[list[dict[str, Any]], Field(max_length=MAX_KEYSETS)]


class _Keys(_Info):
    keys: Annotated[dict[str, _Hex], Field(max_length=MAX_KEYS)]


class _KeysAnswer(_Model):
    keysets: Annotated[list[_Keys], Field(min_length=1, max_length=1)]


class _Dleq(_Model):
    e: _Hex
    s: _Hex


class _Signature(_Model):
    id: Annotated[str, Field(max_length=66)]
    amount: Annotated[int, Field(gt=0)]
    C_: _Hex
    dleq: _Dleq | None = None

    def signature(self) -> Signature:
        e, s = ("", "") if self.dleq is None else (self.dleq.e, self.dleq.s)
        return Signature(self.id, self.amount, self.C_, e, s)


class _Signatures(_Model):
    signatures: list[_Signature]


class _Blinded(_Model):
    B_: _Hex


class _Restored(_Signatures):
    outputs: list[_Blinded]


def _unless_long(witness: str | None) -> str | None:
    return witness if witness is None or len(witness) <= _MAX_WITNESS else None


class _State(_Model):
    Y: _Hex
    state: Annotated[CoinState, Field(strict=False)]
    # A longer one is nobody's that a mint took; it must not make what is said of other coins unreadable.
    witness: Annotated[str | None, AfterValidator(_unless_long)] = None


class _States(_Model):
    states: list[_State]


class _Quote(_Model):
    quote: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_-]+$")]
    request: _Text
    state: Annotated[QuoteState, Field(strict=False)]
    expiry: _Moment | None = None
    amount: int | None = None
    unit: str | None = None
    pubkey: str | None = None

    def quoted(self) -> MintQuote:
        return MintQuote(self.quote, self.request, self.state, self.expiry, self.amount, self.unit, self.pubkey)


class _MeltQuote(_Model):
    quote: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[A-Za-z0-9_-]+$")]
    amount: Annotated[int, Field(gt=0)]
    fee_reserve: Annotated[int, Field(ge=0)]
    state: Annotated[MeltState, Field(strict=False)]
    expiry: _Moment | None = None
    unit: str | None = None
    request: _Text | None = None
    payment_preimage: Annotated[str, Field(max_length=256)] | None = None
    change: Annotated[list[_Signature], Field(max_length=_MAX_CHANGE)] | None = None

    def quoted(self) -> MeltQuote:
        change = tuple(item.signature() for item in self.change or ())
        facts = (self.quote, self.amount, self.fee_reserve, self.state, self.expiry, self.unit, self.request)
        return MeltQuote(*facts, self.payment_preimage or None, change)


class _Method(_Model):
    method: str
    unit: str
    min_amount: _Amount | None = None
    max_amount: _Amount | None = None


class _Methods(_Model):
    methods: Annotated[list[dict[str, Any]], Field(max_length=_MAX_METHODS)] = Field(default_factory=list)
    disabled: bool = False

    def limits(self) -> dict[str, Limit]:
        found: dict[str, Limit] = {}
        for item in self.methods:
            try:
                one = _Method.model_validate(item)
            except ValidationError:
                continue  # a method of a form that we do not know is none that we use
            if one.method == "bolt11":
                found.setdefault(one.unit, Limit(one.min_amount, one.max_amount, self.disabled))
        return found


class _About(_Model):
    nuts: Annotated[dict[str, Any], Field(max_length=256)] = Field(default_factory=dict)

    def limits(self, nut: str) -> dict[str, Limit]:
        try:
            return _Methods.model_validate(self.nuts.get(nut, {})).limits()
        except ValidationError:
            return {}


class _Problem(_Model):
    code: int = 0


_M = TypeVar("_M", bound=_Model)


class MintClient:
    """Fulfils `wallet.cashu.port.Mint` over HTTP. One session is shared by all mints.

    Args:
        url: the mint's address.
        http: makes the connections; its owner closes it.
        check: the gate's check; everything that changes something at the mint asks it first.
    """

    def __init__(self, url: str, http: aiohttp.ClientSession, check: Callable[[Permit], None]) -> None:
        self.url = canonical_url(url)
        self._http = http
        self._check = check

    async def _call(
        self,
        path: str,
        answer: type[_M],
        body: Mapping[str, Any] | None = None,
        timeout: aiohttp.ClientTimeout = _TIMEOUT,
    ) -> _M:
        method = "GET" if body is None else "POST"
        try:
            async with self._http.request(
                method, f"{self.url}{path}", json=body, timeout=timeout, allow_redirects=False, headers=_PLAIN
            ) as response:
                raw = await _capped(response)
                status = response.status
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            raise MintUnreachable from error
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise MintSilent from error
        if status == 200:
            return _parsed(raw, answer)
        if status == 429:
            raise MintBusy
        if 400 <= status < 500 and status not in (408, 425):
            raise MintRejected(_code(raw))
        raise MintSilent(f"The mint answered with status {status}.")

    async def nuts(self) -> frozenset[int]:
        """See `Mint`. One that is listed as not supported is not one."""
        told = (await self._call("/v1/info", _About)).nuts
        listed = (name for name in told if name.isascii() and name.isdigit() and len(name) <= 4)
        return frozenset(int(name) for name in listed if _is_supported(told[name]))

    async def keysets(self) -> tuple[KeysetInfo, ...]:
        """See `Mint`. Keysets in forms that we do not know (old base64 ids) are left out."""
        found = await self._call("/v1/keysets", _Keysets)
        infos = []
        for item in found.keysets:
            try:
                infos.append(_Info.model_validate(item).info())
            except ValidationError:
                _log.debug("a keyset of unknown form was left out", extra={"action": "mint_keyset_ignored"})
        return tuple(infos)

    async def keys(self, info: KeysetInfo) -> Keyset:
        """See `Mint`."""
        found = (await self._call(f"/v1/keys/{info.id}", _KeysAnswer)).keysets[0]
        if found.id != info.id or found.unit != info.unit:
            raise MintLied("The mint answered with another keyset.")
        if not all(amount.isascii() and amount.isdigit() and len(amount) <= 20 for amount in found.keys):
            raise MintLied("A keyset holds an amount that is none.")
        return checked(info, {int(amount): key for amount, key in found.keys.items()})

    async def swap(self, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit) -> list[Signature]:
        """See `Mint`."""
        self._check(permit)
        body = {"inputs": [proof.to_dict() for proof in inputs], "outputs": [output.to_wire() for output in outputs]}
        return _signatures(await self._call("/v1/swap", _Signatures, body))

    async def request_quote(self, amount: int, unit: str, pubkey: str, permit: Permit) -> MintQuote:
        """See `Mint`."""
        self._check(permit)
        body = {"amount": amount, "unit": unit, "pubkey": pubkey}
        return (await self._call("/v1/mint/quote/bolt11", _Quote, body)).quoted()

    async def quote(self, quote_id: str) -> MintQuote:
        """See `Mint`."""
        found = (await self._call(f"/v1/mint/quote/bolt11/{quote_id}", _Quote)).quoted()
        if found.id != quote_id:
            raise MintLied("The mint answered with another quote.")
        return found

    async def mint(self, quote_id: str, outputs: Sequence[Output], signature: str, permit: Permit) -> list[Signature]:
        """See `Mint`."""
        self._check(permit)
        body = {"quote": quote_id, "outputs": [output.to_wire() for output in outputs], "signature": signature}
        return _signatures(await self._call("/v1/mint/bolt11", _Signatures, body))

    async def restore(self, outputs: Sequence[Output]) -> Mapping[str, Signature]:
        """See `Mint`."""
        found: dict[str, Signature] = {}
        for start in range(0, len(outputs), BATCH):
            asked = outputs[start : start + BATCH]
            answer = await self._call("/v1/restore", _Restored, {"outputs": [output.to_wire() for output in asked]})
            names = [blinded.B_ for blinded in answer.outputs]
            if len(names) != len(answer.signatures) or not set(names) <= {output.b for output in asked}:
                raise MintLied("The mint restored what was not asked for.")
            found |= dict(zip(names, _signatures(answer), strict=True))
        return found

    async def states(self, ys: Sequence[str]) -> Mapping[str, CoinReport]:
        """See `Mint`."""
        found: dict[str, CoinReport] = {}
        for start in range(0, len(ys), BATCH):
            asked = list(ys[start : start + BATCH])
            answer = await self._call("/v1/checkstate", _States, {"Ys": asked})
            if {state.Y for state in answer.states} != set(asked):
                raise MintLied("The mint reported on other coins than were asked for.")
            found |= {state.Y: CoinReport(state.state, state.witness) for state in answer.states}
        return found

    async def limits(self) -> Limits:
        """See `Mint`. What it says in a form that we do not know is no limit."""
        about = await self._call("/v1/info", _About)
        return Limits(about.limits("4"), about.limits("5"))

    async def request_melt(self, invoice: str, unit: str, permit: Permit) -> MeltQuote:
        """See `Mint`."""
        self._check(permit)
        return (await self._call("/v1/melt/quote/bolt11", _MeltQuote, {"request": invoice, "unit": unit})).quoted()

    async def melt_quote(self, quote_id: str) -> MeltQuote:
        """See `Mint`."""
        found = (await self._call(f"/v1/melt/quote/bolt11/{quote_id}", _MeltQuote)).quoted()
        if found.id != quote_id:
            raise MintLied("The mint answered with another quote.")
        return found

    async def melt(
        self, quote_id: str, inputs: Sequence[Proof], outputs: Sequence[Output], permit: Permit
    ) -> MeltQuote:
        """See `Mint`."""
        self._check(permit)
        body: dict[str, Any] = {"quote": quote_id, "inputs": [proof.to_dict() for proof in inputs]}
        if outputs:
            body["outputs"] = [output.to_wire() for output in outputs]
        found = (await self._call("/v1/melt/bolt11", _MeltQuote, body, _MELT_TIMEOUT)).quoted()
        if found.id != quote_id:
            raise MintLied("The mint answered with another quote.")
        return found


def _is_supported(facts: object) -> bool:
    return not isinstance(facts, Mapping) or facts.get("supported", True) is not False


async def _capped(response: aiohttp.ClientResponse) -> bytes:
    # A few compressed bytes can stand for any number of plain ones; we did not ask for compression.
    if response.headers.get("Content-Encoding", "identity") != "identity":
        raise MintSilent("The mint's answer is compressed.")
    body = bytearray()
    async for chunk in response.content.iter_chunked(65_536):
        body += chunk
        if len(body) > MAX_ANSWER:
            raise MintSilent("The mint's answer is too long.")
    return bytes(body)


def _parsed(raw: bytes, answer: type[_M]) -> _M:
    try:
        return answer.model_validate_json(raw)
    except ValidationError as error:
        # The error's text quotes the answer, which may hold what must not be logged.
        raise MintSilent(f"The mint's answer is not valid ({error.error_count()} faults).") from None


def _code(raw: bytes) -> int:
    try:
        return _Problem.model_validate_json(raw).code
    except ValidationError:
        return 0


def _signatures(answer: _Signatures) -> list[Signature]:
    return [item.signature() for item in answer.signatures]


def connect(
    urls: Sequence[str], http: aiohttp.ClientSession, check: Callable[[Permit], None]
) -> tuple[MintClient, ...]:
    """A client for each configured mint. Connects to nothing yet."""
    return tuple(MintClient(url, http, check) for url in dict.fromkeys(map(canonical_url, urls)))
