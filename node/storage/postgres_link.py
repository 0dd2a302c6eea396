"""Connections to PostgreSQL: how a session is set up, which servers are refused, and what the driver's errors mean."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import asyncpg

from core.error import InvalidInput, StoreUncertain, VendoError
from node.storage.address import check_url, shown, without_password
from node.storage.error import BadWrite, StoreFailed, StoreFull, Unreachable, UnsafeServer
from node.storage.fence import IDLE_IN_TRANSACTION_MS

Link: TypeAlias = asyncpg.Connection

OLDEST = 13
_CONNECT_S = 10.0
_STATEMENTS = 256  # prepared texts that a connection keeps
# Plans are made once and kept, so that they must not depend on how small a table was at that time: what has an index is
# found by it. A lock that somebody holds too long fails one group. A process that stands still in the middle of a
# transaction loses it, before it holds up those who take its place.
_SETTINGS = {
    "application_name": "vendo",
    "synchronous_commit": "on",
    "jit": "off",
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "lock_timeout": "20s",
    "idle_in_transaction_session_timeout": f"{IDLE_IN_TRANSACTION_MS}ms",
    "default_transaction_isolation": "read committed",
    "timezone": "UTC",
}
_FACTS = """SELECT current_setting('server_version_num')::int AS version, current_setting('server_version') AS name,
    current_setting('fsync') AS fsync, current_setting('full_page_writes') AS full_page_writes,
    current_setting('synchronous_commit') AS synchronous_commit, current_setting('server_encoding') AS encoding,
    pg_is_in_recovery() AS standby, pg_database_size(current_database()) AS bytes"""

FAILED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)
"""All that the driver raises."""


async def connect(url: str, settings: Mapping[str, str] | None = None, *, timeout_s: float = _CONNECT_S) -> Link:
    """A session with the settings that durability and speed need.

    Raises:
        InvalidInput: the URL cannot be an address.
        Unreachable: there is no server, or it does not let us in.
    """
    check_url(url)
    try:
        return await asyncpg.connect(
            url,
            timeout=timeout_s,
            statement_cache_size=_STATEMENTS,
            max_cached_statement_lifetime=0,
            max_cacheable_statement_size=0,
            server_settings={**_SETTINGS, **(settings or {})},
        )
    except (asyncpg.ClientConfigurationError, ValueError) as error:
        raise InvalidInput(f"The address {shown(url)} is not valid: {without_password(_words(error), url)}.") from error
    except FAILED as error:
        why = "no answer" if isinstance(error, TimeoutError) else without_password(_words(error), url)
        raise Unreachable(f"The database {shown(url)} cannot be reached: {why}.") from error


async def check_server(link: Link, *, unsafe: bool = False) -> Mapping[str, Any]:
    """What the server says of itself: version, name, fsync, full_page_writes, synchronous_commit, encoding, bytes.

    Args:
        link: a session that `connect` made.
        unsafe: take a server that may lose what it acknowledged, for tests.

    Raises:
        UnsafeServer: it may lose or damage what it acknowledged, or it does not keep our texts.
    """
    facts = dict(await link.fetchrow(_FACTS) or {})
    faults = server_faults(facts, unsafe=unsafe)
    if faults:
        raise UnsafeServer(f"This PostgreSQL cannot hold a node's database: {'; '.join(faults)}.")
    return facts


async def describe(url: str) -> tuple[Mapping[str, Any], list[str]]:
    """What the server of a database says of itself, as `check_server`, and what makes it unfit. Changes nothing.

    Raises:
        InvalidInput, Unreachable: as `connect`.
        StoreFailed: it failed while it was asked.
    """
    link = await connect(url, {"default_transaction_read_only": "on"})
    try:
        facts = dict(await link.fetchrow(_FACTS) or {})
    except FAILED as error:
        raise certain(error) from error
    finally:
        await close(link)
    return facts, server_faults(facts)


def server_faults(facts: Mapping[str, Any], *, unsafe: bool = False) -> list[str]:
    """What makes a server unfit; empty if nothing does."""
    faults = []
    if facts["version"] < OLDEST * 10_000:
        faults.append(f"it is version {facts['name']}, older than {OLDEST}")
    if facts["encoding"] != "UTF8":
        faults.append(f"the database's encoding is {facts['encoding']}, not UTF8")
    if facts["standby"]:
        faults.append("it is a standby, which takes no writes")
    if not unsafe:
        faults += [f"{name} is off" for name in ("fsync", "full_page_writes") if facts[name] != "on"]
        if facts["synchronous_commit"] not in ("on", "remote_apply"):
            faults.append(f"synchronous_commit is {facts['synchronous_commit']}")
    return faults


def certain(error: BaseException) -> VendoError:
    """What an error before COMMIT means to those who wait: nothing was written."""
    if isinstance(error, VendoError):
        return error
    if isinstance(error, asyncpg.DiskFullError):
        return StoreFull()
    return StoreFailed(f"The database failed: {_words(error)}.")


def uncertain(error: BaseException) -> StoreUncertain:
    """What an error in or near COMMIT means to those who wait."""
    return StoreUncertain(f"The database failed while committing: {_words(error)}.")


def is_verdict(error: BaseException) -> bool:
    """Whether one statement was refused and the session lives on: then its transaction is certainly not committed."""
    said = (
        isinstance(error, asyncpg.PostgresError) and error.severity_en == "ERROR"
    )  # the driver makes errors of its own
    return said or _by_driver(error)


def is_misfit(error: BaseException) -> bool:
    """Whether a value does not fit: too large for its column or its index, or no value of its type."""
    code = getattr(error, "sqlstate", None) or ""
    return _by_driver(error) or code.startswith(("22", "54")) or code in ("23502", "23514")


def _by_driver(error: BaseException) -> bool:
    """Whether the driver itself refused a value, before it sent anything."""
    return isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError)


def misfit(error: BaseException) -> BadWrite:
    """The same in our words; the driver's would show the value."""
    return BadWrite(f"A value cannot be stored: {type(error).__name__}.")


def _words(error: BaseException) -> str:
    text = str(error).partition("\n")[0].rstrip(".")
    return text or type(error).__name__


async def close(link: Link | None) -> None:
    """End a session, with a goodbye if the server still listens."""
    if link is None or link.is_closed():
        return
    try:
        await link.close(timeout=2.0)
    except FAILED:
        link.terminate()
