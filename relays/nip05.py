"""Names under a domain (NIP-05): the document that serves ours, and reading others'. Pure.

A name proves that whoever holds the domain says so today, and nothing else: it is shown, and chooses nobody.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import orjson

from core.error import InvalidInput
from core.identifier import PubKey, is_hex64
from relays.address import is_nameable

PATH = "/.well-known/nostr.json"
MAX_DOCUMENT_BYTES = 65_536
MAX_RELAYS = 8
_NAME = re.compile(r"[a-z0-9._-]{1,64}")
_DOMAIN = re.compile(r"[a-z0-9-]{1,63}(\.[a-z0-9-]{1,63})+(:[0-9]{1,5})?")
ROOT = "_"


@dataclass(frozen=True, slots=True)
class Address:
    """`name@domain`; `_@domain` is shown as the domain alone."""

    name: str
    domain: str

    def __str__(self) -> str:
        return self.domain if self.name == ROOT else f"{self.name}@{self.domain}"

    @property
    def url(self) -> str:
        """Where the document is."""
        return f"https://{self.domain}{PATH}?name={quote(self.name, safe='')}"


@dataclass(frozen=True, slots=True)
class Named:
    """What a domain says about one name."""

    pubkey: PubKey
    relays: tuple[str, ...]


def parse_address(text: str) -> Address:
    """An address as people write it; a domain alone is `_@domain`. Case does not count.

    Raises:
        InvalidInput: it is none.
    """
    name, at, domain = text.strip().lower().rpartition("@")
    if not at:
        name = ROOT
    if len(domain) > 253 or _NAME.fullmatch(name) is None or _DOMAIN.fullmatch(domain) is None:
        raise InvalidInput(f"This is not a name under a domain (NIP-05): {text[:80]!r}")
    return Address(name, domain)


def names_document(keys: Mapping[str, PubKey], wanted: str | None, relays: Sequence[str] = ()) -> bytes:
    """The answer to `GET /.well-known/nostr.json?name=…`; serve it with `Access-Control-Allow-Origin: *`.

    Args:
        keys: our names, in lower case; `_` is the domain itself.
        wanted: the name that was asked for. None, or a name that is not ours, names nobody: a whole list of who is
            here is for nobody to read.
        relays: where our keys are found.
    """
    key = keys.get(wanted.lower()) if wanted is not None else None
    if wanted is None or key is None:
        return orjson.dumps({"names": {}})
    document: dict[str, Any] = {"names": {wanted.lower(): key}}
    if relays:
        document["relays"] = {key: list(relays)[:MAX_RELAYS]}
    return orjson.dumps(document)


def read_document(raw: bytes, name: str) -> Named | None:
    """What a stranger's document says about a name; None if it names nobody by it, or is no such document."""
    if len(raw) > MAX_DOCUMENT_BYTES:
        return None
    try:
        body: Any = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    names = body.get("names") if type(body) is dict else None
    key = names.get(name) if type(names) is dict else None
    if type(key) is not str or not is_hex64(key):
        return None
    lists = body.get("relays")
    listed = lists.get(key) if type(lists) is dict else None
    urls = [url for url in listed if type(url) is str and is_nameable(url)] if type(listed) is list else []
    return Named(PubKey(key), tuple(dict.fromkeys(urls))[:MAX_RELAYS])
