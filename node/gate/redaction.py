"""Taking secrets out of text by their form, and by value where they are known. Pure; for the ledger and for logs.

What has no form of its own (64 hex digits may be an id or a key) cannot be found by form: nobody may hand such a
secret to the ledger in the first place. This is the net below that rule.
"""

import re
from collections.abc import Iterable

_BECH32 = "[02-9ac-hj-np-z]"
_FORMS = re.compile(
    "|".join(
        (
            rf"(?P<nsec>nsec1{_BECH32}{{20,}})",  # NIP-19
            rf"(?P<ncryptsec>ncryptsec1{_BECH32}{{20,}})",  # NIP-49
            r"(?P<cashu>cashu[AB][A-Za-z0-9_-]{10,}={0,2})",  # NUT-00: bearer money
            rf"(?P<invoice>ln(?:bcrt|bc|tbs|tb)[0-9]*[munp]?1{_BECH32}{{20,}})",  # BOLT-11
            r"(?P<wallet>nostr\+walletconnect://[^\s\"'\\]+)",  # NIP-47: holds a secret key
            r"(?P<bunker>bunker://[^\s\"'\\]+)",  # NIP-46: holds a secret
            r"(?P<bearer>(?<=bearer )[A-Za-z0-9._~+/-]{8,}=*)",
            r"(?P<api>(?:\b|(?<=\\[bfnrt])|(?<=\\u[0-9a-f]{4}))sk-[A-Za-z0-9_-]{16,})",  # behind `\n` in JSON too
            r"(?P<turn>vendo_turn_[A-Za-z0-9_-]{20,})",  # a turn of an external agent
            r"(?P<webhook>whsec_[A-Za-z0-9+/_-]{20,}={0,2})",  # signs what is sent to one
        )
    ),
    re.IGNORECASE,
)
_MARKS = ("nsec1", "ncryptsec1", "cashu", "lnbc", "lntb", "walletconnect://", "bunker://", "bearer ", "sk-", "whsec_",
          "vendo_turn_")  # fmt: skip


def suspicious(text: str, known: Iterable[str] = ()) -> bool:
    """Whether there may be secrets in it: quick, and never wrong where it says no. Text within JSON counts as text."""
    lower = text.lower()
    for mark in _MARKS:  # a plain loop: this runs in every tick
        if mark in lower:
            return True
    return any(secret in text for secret in known if secret)


def scrub(text: str, known: Iterable[str] = ()) -> str:
    """The text with secrets replaced by `[redacted <form>]`. `known` are secrets to be found by value."""
    for secret in known:
        if secret:
            text = text.replace(secret, "[redacted secret]")
    if not suspicious(text):  # fifty times quicker than the forms, and nearly always enough
        return text
    return _FORMS.sub(lambda found: f"[redacted {found.lastgroup}]", text)
