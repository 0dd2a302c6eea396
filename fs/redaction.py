"""Taking secrets out of JSON that strangers may see: by the names of fields, and by the form of texts. Pure.

This is the net below an allow-list (`fs/exposure.py`), never the only thing between a secret and the public. It errs
on the side of hiding. What it hides, and why it takes time in proportion to the text whatever the text is:

* fields that are called like a secret, at any depth, also in JSON within a text;
* keys, tokens, money, invoices, addresses with a password in them, PEM blocks and words of a seed, by their form: every
  pattern begins with a literal, or only where a run of its characters begins, and none repeats within a repetition;
* hex and base64 of 32 bytes or more, unless it is known to be public.
"""

import operator
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import orjson

HIDDEN = "[redacted]"
MAX_DEPTH = 64
MIN_WORDS = 10
"""Words of a seed in a row from which on they are hidden: twelve are a seed, and ten of them nearly one."""

_ROUNDS = 4  # what is hidden may bring something else to light at its edges
_PARSED = 1 << 20

# ---- names of fields


def _set(words: str) -> frozenset[str]:
    return frozenset(words.split())


_WORDS = _set(
    "token secret password passwd pwd passphrase passcode authorization auth oauth bearer cookie credential "
    "credentials apikey privkey privatekey secretkey signingkey accesskey accesstoken authtoken mnemonic seed "
    "seedphrase nsec ncryptsec preimage xprv macaroon rune jwt otp"
)
_ENDINGS = ("token", "secret", "password", "passwd", "passphrase", "apikey", "privatekey", "privkey", "secretkey",
            "seckey", "credential", "credentials", "mnemonic", "preimage")  # fmt: skip
_PAIRS = ("private key", "secret key", "signing key", "access key", "api key", "encryption key", "seed words",
          "seed phrase", "recovery phrase", "recovery words", "backup phrase")  # fmt: skip
_MANY = frozenset({"tokens", "secrets", "passwords", "preimages", "cookies", "seeds"})
_ABOUT = _set(
    "count counts id ids type kind name names limit limits used usage expires expiry at ms s total max min size length "
    "len policy version required enabled"
)
"""Last words of names that tell about a secret rather than being one: then a number stays, and a text is looked at."""
_PUBLIC = _set(
    "id event_id pubkey author digest sha256 hash job_id request_id result_id effect_id tick_id envelope_id message_id "
    "subject seller provider peer code payment_hash"
)
_LABEL = _set("id ids type kind name")
_PART = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_HEX_ID = re.compile(r"[0-9a-f]{64}")


def is_secret_name(name: str, value: object = "") -> bool:
    """Whether a field of this name holds a secret, which its value may be: `token`, `apiKey`, `client_secret`.

    Args:
        name: the field's.
        value: what it holds. A number of `tokens` is no secret.
    """
    parts = [part.lower() for part in _PART.findall(name if len(name) <= 400 else f"{name[:200]}_{name[-200:]}")]
    if not parts:
        return False
    is_count = value is None or isinstance(value, bool | int | float)
    if parts[-1] in _ABOUT and (is_count or (len(parts) > 1 and parts[-1] in _LABEL)):
        return False
    if not _MANY.isdisjoint(parts):
        return not is_count
    squashed, spaced = "".join(parts), " ".join(parts)
    return (
        not _WORDS.isdisjoint(parts)
        or squashed.endswith(_ENDINGS)
        or squashed in _WORDS
        or any(pair in spaced for pair in _PAIRS)
    )


# ---- forms of texts

_BECH32 = "[02-9ac-hj-np-z]"
_FORMS = re.compile(
    "|".join(
        (
            rf"n(?:crypt)?sec1{_BECH32}{{20,}}",  # NIP-19, NIP-49
            r"cashu[AB][A-Za-z0-9_-]{10,}={0,2}",  # NUT-00
            rf"ln(?:bcrt|bc|tbs|tb)[0-9]{{0,18}}[munp]?1{_BECH32}{{20,}}",  # BOLT-11
            r"(?:nostr\+walletconnect|nostrconnect|bunker):/{0,2}[^\s\"'\\<>\[\]]+",  # NIP-47, NIP-46
            r"gh[opsur]_[A-Za-z0-9]{16,}",
            r"github_pat_[A-Za-z0-9_]{16,}",
            r"xox[abeoprs]-[A-Za-z0-9-]{8,}",
            r"glpat-[A-Za-z0-9_-]{16,}",
            r"(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,}",
            r"(?:whsec_|vendo_turn_|hf_|npm_|pypi-|dop_v1_)[A-Za-z0-9+/_-]{20,}={0,2}",
            r"AKIA[0-9A-Z]{16}",
            r"AIza[0-9A-Za-z_-]{30,}",
            r"[xyz]prv[1-9A-HJ-NP-Za-km-z]{50,}",  # BIP-32
        )
    ),
    re.IGNORECASE,
)
_MARKS = re.compile(
    r"sec1|cashu|lnbc|lntb|connect|bunker:|gh[opsur]_|github_pat_|xox[abeoprs]-|glpat-|_live_|_test_|whsec_|vendo_turn_"
    r"|hf_|npm_|pypi-|dop_v1_|AKIA|AIza|prv",
    re.IGNORECASE,
)
_API_KEY = re.compile(r"sk-([A-Za-z0-9_-]{16,})", re.IGNORECASE)
_HEADER = re.compile(r"(authorization[\"']?[ \t]{0,8}[:=][ \t]{0,8})[^\s\[][^\r\n\[]*", re.IGNORECASE)
_BEARER = re.compile(r"((?:bearer|basic)[ \t]{1,8})([A-Za-z0-9._~+/-]{8,}={0,2})", re.IGNORECASE)
_SETTING = re.compile(
    r"((api[_-]?key|secret|password|passwd|passphrase|token|private[_-]?key|preimage|mnemonic)"
    r"(\\?[\"'])?[ \t]{0,8}([=:])[ \t]{0,8}(?:\\?[\"'])?)([^\s\"'\\&,;\[\]]{3,})",
    re.IGNORECASE,
)
_QUERY = re.compile(r"([?&#](?:key|sig|signature|auth|code|secret)=)([^\s\"'&#\[\]]{4,})", re.IGNORECASE)
_USERINFO = re.compile(r"(?<=://)(?:[^/\s@:]*:[^/\s@]+|[^/\s@:\[\]]{16,})(?=@)")
_PEM = re.compile(
    r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z0-9 ]{0,20}-----.*?"
    r"(?:-----END [A-Z0-9 ]{0,40}PRIVATE KEY[A-Z0-9 ]{0,20}-----|\Z)",
    re.DOTALL,
)
_RUN = re.compile(r"(?<![A-Za-z0-9+/_.=-])[A-Za-z0-9+/_.=-]{20,}")
_HEX = re.compile(r"(?<![0-9A-Fa-f])[0-9A-Fa-f]{64,}")
_BASE64 = re.compile(r"(?<![A-Za-z0-9+/_-])[A-Za-z0-9+/_-]{40,}={0,2}")
_OPEN_BECH32 = re.compile(r"(?:npub|note|nevent|nprofile|naddr)1[02-9ac-hj-np-z]{20,}")  # NIP-19: made to be shown
_WORD = re.compile(r"(?<![A-Za-z])[A-Za-z]{3,8}(?![A-Za-z])")  # as long as BIP-39's are
_BETWEEN = 16  # characters between two words of a seed: a comma, a number, a quote of JSON, a short word
_KIND = str.maketrans(
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/_-", "U" * 26 + "l" * 26 + "0" * 10 + "    "
)
_WINDOW, _STEP, _CHANGES = 32, 8, 9
_ESCAPE = re.compile(r"\\(?:[bfnrt]|u[0-9A-Fa-f]{4})\Z")


def _api_key(found: re.Match[str]) -> str:
    """A key of the form sk-…; `scikit: sk-learn-contrib` and `risk-averse-investor` are none."""
    tail, before = found[1], found.string[max(0, found.start() - 6) : found.start()]
    is_long = max(map(len, re.split("[-_]", tail))) >= 16
    has_digit = any(char.isdigit() for char in tail)
    is_inside = before[-1:].isalnum() and _ESCAPE.search(before) is None
    return HIDDEN if (is_long and has_digit if is_inside else is_long or has_digit) else found[0]


def _bearer(found: re.Match[str]) -> str:
    value = found[2]
    letters = re.sub("[-._~+/]", "", value)
    is_prose = len(value) < 40 and (not letters or (letters.isalpha() and letters[1:].islower()))
    return found[0] if is_prose else found[1] + HIDDEN


def _setting(found: re.Match[str]) -> str:
    """`token=x` and `"token": "x"` always; of prose, `token: x`, only what is no plain word."""
    value, is_prose = found[5], found[3] is None and found[4] == ":"
    if is_prose and found[2].lower() in ("token", "secret", "mnemonic") and value.rstrip(".!?)").isalpha():
        return found[0]
    return found[1] + HIDDEN


def _run(found: re.Match[str]) -> str:
    """A JSON web token (RFC 7519) in a run of characters, from where it begins to the end of the run."""
    run = found[0]
    at = run.find("eyJ")
    if at < 0:
        return run
    head, dot, rest = run[at:].partition(".")
    return run[:at] + HIDDEN if dot and len(head) >= 10 and len(rest) >= 4 else run


def _is_random(run: str) -> bool:
    """Whether somewhere in it letters of both cases and digits follow each other as in base64 of random bytes."""
    kinds = run.translate(_KIND)
    for start in range(0, max(1, len(kinds) - _WINDOW + 1), _STEP):
        part = kinds[start : start + _WINDOW].replace(" ", "")
        if "U" in part and "l" in part and sum(map(operator.ne, part, part[1:])) >= _CHANGES:
            return True
    return False


def _no(_: str) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Redaction:
    """How secrets are taken out.

    Attributes:
        is_word: whether a word, in small letters, is one of those that seeds are made of (BIP-39).
        is_public: whether a text that looks random is known to be public, as a key that the node has published.
        known: secrets that are found by value, wherever they stand.
    """

    is_word: Callable[[str], bool] = _no
    is_public: Callable[[str], bool] = _no
    known: tuple[str, ...] = ()

    def value(self, value: Any, depth: int = 0) -> Any:
        """JSON without secrets. What is no JSON, or lies deeper than `MAX_DEPTH`, is hidden whole."""
        if isinstance(value, str):
            return self._text(value, depth)
        if value is None or isinstance(value, bool | int | float):
            return value
        if depth >= MAX_DEPTH or not isinstance(value, Mapping | list | tuple):
            return HIDDEN
        if isinstance(value, Mapping):
            return {
                self._text(str(name), MAX_DEPTH): self._field(str(name), part, depth + 1)
                for name, part in value.items()
            }
        if self._are_words(value):
            return HIDDEN
        return [self.value(part, depth + 1) for part in value]

    def text(self, text: str) -> str:
        """A text without secrets, also those in JSON within it. The same again changes nothing."""
        return self._text(text, 0)

    def _field(self, name: str, value: Any, depth: int) -> Any:
        if value is not None and not isinstance(value, bool) and value != "" and is_secret_name(name, value):
            return HIDDEN
        if name in _PUBLIC and isinstance(value, str) and _HEX_ID.fullmatch(value):
            return HIDDEN if value in self.known else value
        return self.value(value, depth)

    def _are_words(self, values: Iterable[Any]) -> bool:
        """Whether a list holds so many words of a seed in a row."""
        count = 0
        for value in values:
            is_one = isinstance(value, str) and len(value) <= 16 and self.is_word(value.strip().lower())
            count = count + 1 if is_one else 0
            if count >= MIN_WORDS:
                return True
        return False

    def _text(self, text: str, depth: int) -> str:
        for _ in range(_ROUNDS):
            clean = self._once(self._json(text, depth))
            if clean == text:
                return clean
            text = clean
        return HIDDEN  # somebody has taken trouble over it

    def _json(self, text: str, depth: int) -> str:
        """JSON that stands in a text, as it is if there is nothing to hide in it."""
        ends = text.strip()[:1] + text.strip()[-1:] if len(text) <= _PARSED else ""
        if ends not in ("{}", "[]") or depth >= MAX_DEPTH:
            return text
        try:
            value = orjson.loads(text)
            clean = self.value(value, depth + 1)
            return text if clean == value else orjson.dumps(clean).decode()
        except (orjson.JSONDecodeError, orjson.JSONEncodeError):
            return text

    def _once(self, text: str) -> str:
        for secret in self.known:
            if len(secret) >= 4:
                text = text.replace(secret, HIDDEN)
        if len(text) < 8:
            return text
        if "PRIVATE KEY" in text:
            text = _PEM.sub(HIDDEN, text)
        if _MARKS.search(text):
            text = _FORMS.sub(HIDDEN, text)
        text = _HEADER.sub(rf"\1{HIDDEN}", text)
        text = _BEARER.sub(_bearer, text)
        text = _SETTING.sub(_setting, text)
        text = _QUERY.sub(rf"\1{HIDDEN}", text)
        text = _USERINFO.sub(HIDDEN, text)
        text = _API_KEY.sub(_api_key, text)
        text = _RUN.sub(_run, text)
        text = _HEX.sub(self._hex, text)
        text = _BASE64.sub(self._base64, text)
        return self._words(text)

    def _hex(self, found: re.Match[str]) -> str:
        return found[0] if self.is_public(found[0]) else HIDDEN

    def _base64(self, found: re.Match[str]) -> str:
        run = found[0]
        is_open = _OPEN_BECH32.fullmatch(run) is not None or self.is_public(run)
        return run if is_open or not _is_random(run) else HIDDEN

    def _words(self, text: str) -> str:
        """The text without words of a seed that follow each other."""
        pieces, kept, begin, end, count = [], 0, 0, 0, 0
        for found in _WORD.finditer(text):
            is_one = self.is_word(found[0].lower())
            if is_one and count and found.start() - end <= _BETWEEN:
                count, end = count + 1, found.end()
                continue
            if count >= MIN_WORDS:
                pieces += [text[kept:begin], HIDDEN]
                kept = end
            begin, end, count = (found.start(), found.end(), 1) if is_one else (0, 0, 0)
        if count >= MIN_WORDS:
            pieces += [text[kept:begin], HIDDEN]
            kept = end
        return "".join([*pieces, text[kept:]]) if pieces else text
