"""Who may do what: a writ names callers, verbs with path globs, how far an effect may reach, and for how long. Pure.

The node judges by the operator's own writ, which is built in. In globs `*` is anything within one segment of a path
and `**` anything below; paths are the services' own canonical ones (DESIGN §5).
"""

import re
from dataclasses import dataclass
from functools import lru_cache

from core.effect import EffectClass


@lru_cache(1024)
def _pattern(glob: str) -> re.Pattern[str]:
    parts = re.split(r"(\*\*|\*)", glob)
    return re.compile("".join({"**": ".*", "*": "[^/]*"}.get(part, re.escape(part)) for part in parts), re.DOTALL)


@lru_cache(4_096)
def matches(glob: str, text: str) -> bool:
    """Whether a glob covers a text, whole."""
    return _pattern(glob).fullmatch(text) is not None


@dataclass(frozen=True, slots=True)
class Grant:
    """Callers that match `subject` may use `verb` (read or write) on paths that match, with effects up to `ceiling`."""

    subject: str
    verb: str
    path: str
    ceiling: EffectClass


@dataclass(frozen=True, slots=True)
class Writ:
    """Grants that hold from `not_before` until `expires` (Unix seconds; `expires` itself is too late)."""

    id: str
    grants: tuple[Grant, ...]
    not_before: int = 0
    expires: int = 1 << 53

    def refusal(self, caller: str, verb: str, path: str, effect: EffectClass, now: int) -> str | None:
        """Why it is not allowed; None if it is."""
        if not self.not_before <= now < self.expires:
            return f"The writ {self.id} is not in force now."
        covering = [
            grant
            for grant in self.grants
            if grant.verb == verb and matches(grant.subject, caller) and matches(grant.path, path)
        ]
        if not covering:
            return f"No writ lets {caller} {verb} {path}."
        if effect > max(grant.ceiling for grant in covering):
            return f"The writ {self.id} does not let {caller} cause {effect.name.lower()} effects at {path}."
        return None


def operator_writ() -> Writ:
    """What a new node allows.

    Everything to its operator; buying, talking and signing, not paying out or changing keys, to its agents; to
    customers only what is for sale.
    """
    agents = ("/compute/**", "/containers/**", "/nostr/**", "/messages/**", "/inbox/**")
    return Writ(
        "operator",
        (
            Grant("operator", "write", "/**", EffectClass.IRREVERSIBLE),
            Grant("node", "write", "/**", EffectClass.IRREVERSIBLE),
            *(Grant("agent:*", "write", path, EffectClass.IRREVERSIBLE) for path in agents),
            Grant("agent:*", "write", "/identity/sign", EffectClass.EXTERNAL),
            Grant("customer:*", "write", "/serve/**", EffectClass.EXTERNAL),
        ),
    )
