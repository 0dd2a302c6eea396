"""How requests can end: statuses with the codes of the errors that have them.

Every class of an error that a part of the node raises is listed by its module. What has the status 500 is a fault of
the node and is not described; every other status is, so that no answer comes as a surprise.
"""

from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import TypeAlias

import dvm.error
import fs.service.compute
import fs.service.containers
import fs.service.treasury
import node.agent.error
import node.agent.outside.error
import node.backup.error
import node.error
import node.identity.error
import node.message.error
import relays.error
import wallet.error
import wallet.lightning_error
from core.error import (
    BudgetExceeded,
    Conflict,
    InvalidInput,
    KeyReused,
    NotFound,
    Paused,
    Refused,
    StoreUncertain,
    Unavailable,
    VendoError,
)
from fs import error as files
from node.http import error as http
from node.http.openapi.shape import PROBLEM, Json
from node.storage import error as storage

Errors: TypeAlias = tuple[type[VendoError], ...]

_FAULT = 500
_LATER = (429, 503)


def of(*modules: ModuleType) -> Errors:
    """The errors that modules define."""
    found: list[type[VendoError]] = []
    for module in modules:
        classes = (one for one in vars(module).values() if isinstance(one, type) and issubclass(one, VendoError))
        found += [one for one in classes if one.__module__ == module.__name__]
    return tuple(found)


_STORE: Errors = (storage.StoreFailed, storage.Unreachable, storage.Fenced, node.error.LeaseUnsure)
EDGE: Errors = (http.BadRequest, http.MethodNotAllowed, http.WrongHost, http.ForeignOrigin, http.RateLimited)
ASKED: Errors = (
    *EDGE, http.Unauthorized, http.OtherAgent, files.AccessDenied, files.BadPath, http.NoSuchRoute, NotFound,
    node.error.NoSteward, *_STORE,
)  # fmt: skip
READ: Errors = (
    *ASKED, files.NoSuchFile, files.IsDirectory, files.NotDirectory, files.IsStream, files.Unsupported, Unavailable,
)  # fmt: skip
BODY: Errors = (http.RequestTooLarge, files.BodyTooLarge, http.Encoded, http.TooSlow)
CHANGE: Errors = (
    *READ, *BODY, InvalidInput, files.KeyRequired, files.FileExists, files.DirectoryInUse, Conflict, KeyReused, Refused,
    BudgetExceeded, Paused, node.error.DiskLow, StoreUncertain, storage.StoreFull,
)  # fmt: skip
WATCH: Errors = (http.TooManyStreams,)
HOOK: Errors = (
    *EDGE, http.RequestTooLarge, http.Encoded, http.TooSlow, http.TooManyCalls, node.agent.error.HookUnknown,
    node.agent.error.HookBody, node.agent.error.HookType, node.agent.error.HookBusy, node.agent.error.InboxFull,
    Unavailable, StoreUncertain, node.error.NoSteward, node.error.DiskLow, *_STORE,
)  # fmt: skip
TURN: Errors = (*CHANGE, *of(node.agent.outside.error, node.agent.error))

_WALLET = of(wallet.error, wallet.lightning_error)

# What is special about a mount: of reading it, and of changing it.
_READING: Mapping[str, Errors] = {
    "/agents": of(node.agent.error),
    "/compute": of(dvm.error),
    "/identity": of(node.identity.error),
    "/logs": of(node.agent.error),
    "/nostr": of(node.message.error, relays.error),
    "/sell": of(dvm.error),
    "/wallet": _WALLET,
}
_CHANGING: Mapping[str, Errors] = {
    "/agents": of(node.agent.error, node.backup.error, node.error, node.identity.error, relays.error),
    "/alarms": of(node.agent.error),
    "/compute": of(dvm.error, wallet.error, fs.service.compute),
    "/containers": of(fs.service.containers),
    "/ctl": of(node.agent.error),
    "/goals": of(node.agent.error),
    "/hooks": of(node.agent.error),
    "/identity": of(node.identity.error, relays.error),
    "/inbox": of(node.agent.error),
    "/interests": of(node.agent.error),
    "/market": of(dvm.error, relays.error, wallet.error),
    "/memory": of(node.agent.error),
    "/nostr": of(node.message.error, relays.error, wallet.error),
    "/programs": of(node.agent.error),
    "/sell": of(dvm.error, wallet.error),
    "/transfer": of(node.backup.error),
    "/wallet": (*_WALLET, *of(fs.service.treasury)),
}


class Outcomes:
    """The error responses of a document. `components` are those that operations refer to."""

    def __init__(self) -> None:
        self._named: dict[str, Json] = {}

    @property
    def components(self) -> Json:
        """All of them, by name."""
        return {name: self._named[name] for name in sorted(self._named)}

    def reading(self, mount: str, *, watchable: bool = False) -> Json:
        """Of GET."""
        more, name = (WATCH, "watch") if watchable else ((), "read")
        return self.of(_named(name, mount, _READING), (*READ, *_READING.get(mount, ()), *more))

    def changing(self, mount: str) -> Json:
        """Of PUT, POST and DELETE."""
        return self.of(_named("change", mount, _CHANGING), (*CHANGE, *_CHANGING.get(mount, ())))

    def looking(self, mount: str) -> Json:
        """Of HEAD, whose answers have no body."""
        return self.of(_named("look", mount, _READING), (*READ, *_READING.get(mount, ())), bare=True)

    def of(self, name: str, errors: Sequence[type[VendoError]], *, bare: bool = False) -> Json:
        """Responses for these errors, by status; `name` begins those of the components."""
        codes: dict[int, set[str]] = {}
        for one in errors:
            if one.status != _FAULT:
                codes.setdefault(one.status, set()).add(one.code)
        found = {}
        for status in sorted(codes):
            key = f"{name}.{status}"
            self._named[key] = _response(status, sorted(codes[status]), bare=bare)
            found[str(status)] = {"$ref": f"#/components/responses/{key}"}
        return found


def _named(name: str, mount: str, special: Mapping[str, Errors]) -> str:
    return name + mount.replace("/", ".") if mount in special else name


def _response(status: int, codes: Sequence[str], *, bare: bool) -> Json:
    answer: Json = {"description": ", ".join(codes), "x-vendo-codes": list(codes)}
    if not bare:
        answer["content"] = {PROBLEM: {"schema": {"$ref": "#/components/schemas/Problem"}}}
    if status in _LATER:
        answer["headers"] = {"Retry-After": {"description": "seconds", "schema": {"type": "integer", "minimum": 0}}}
    if status == http.Unauthorized.status:
        answer["headers"] = {"WWW-Authenticate": {"schema": {"type": "string"}}}
    return answer
