"""One node as one of several processes on one database: which of its parts run always, which on the steward alone."""

import logging
import os
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from core.clock import SystemClock
from core.identifier import PubKey
from node import home as homes
from node.config import Config
from node.gate.error import ForeignLedger
from node.http.elsewhere import Elsewhere
from node.service import Part, Service
from node.share.household import Household
from node.share.steward import Steward
from node.share.threshold import Threshold
from node.storage.address import is_postgres
from node.storage.database import Database, Store
from node.storage.error import Fenced

if TYPE_CHECKING:
    from node.app import Node
    from node.share.company import Company

EVERYWHERE = (
    "disk", "standing", "relay pool", "identities", "exchange rate", "webhooks", "agents", "alarms", "signing",
)  # fmt: skip
"""What every process runs; the control plane comes after all else, and the steward runs the rest."""
DOOR = ("control plane", "turns")
CLOCKS_DIFFER_S = 60.0
PUT_OUT = os.EX_TEMPFAIL
"""The exit code of a process whose place was taken: whoever supervises it starts it again."""


@dataclass(frozen=True, slots=True)
class Sharing:
    """What a node needs to be one of several. `all_parts` of it are split by `parts`."""

    company: "Company"
    steward: Steward
    elsewhere: Elsewhere
    files: Part
    threshold: Threshold

    def parts(self, every: Sequence[tuple[str, Service]]) -> list[tuple[str, Service]]:
        """The services of this process, in the order of their start."""
        always = [part for part in every if part[0] in EVERYWHERE]
        door = [part for part in every if part[0] in DOOR]
        first = [*self.company.parts, ("threshold", self.threshold)]
        return [*first, *always, ("files", self.files), ("steward", self.steward), *door]


def shared(node: "Node", company: "Company", programs: Mapping[str, Any], http: aiohttp.ClientSession) -> Sharing:
    """Make a node, whose parts are built, one of several."""
    household = Household(node.roster, programs, company)
    node.engine.attend(household)
    company.employ(node.engine, household.ready)
    node.identities.on_change(lambda _: company.changed())

    async def look() -> None:
        node.outbox.look()
        node.feed.pulse()

    async def follow() -> None:
        await household.follow()
        if not company.leads:
            await node.discovery.resume()  # who sells what, for the ticks here

    async def take_over() -> None:
        await node.gate.reopen()
        await node.take_up()

    steward = Steward(
        company,
        node.clock,
        prepare=take_over,
        parts=lambda: [part for part in node.all_parts if part[0] not in (*EVERYWHERE, *DOOR)],
        adopt=[node.gate.adopt, node.buying.adopt, node.messages.adopt, look],
        bury=[node.messages.bury, node.signing.bury],
        follow=follow,
    )
    token = node.keyring.derive("member").hex()
    elsewhere = Elsewhere(company, lambda: steward.is_ready, token, http, node.messages.shelved)
    home = node.upkeep.homecoming
    threshold = Threshold(node.clock, leads=lambda: company.leads, is_adopted=home.is_adopted, adopt=home.adopt)
    return Sharing(company, steward, elsewhere, Part(node.messages.run_files), threshold)


async def join(
    database: Store,
    where: str | Path,
    config: Config,
    home: Path,
    lock: homes.Lock,
    node: PubKey,
    stack: AsyncExitStack,
) -> "Company | None":
    """Take a place among the processes of this database, if it can be shared. Each transaction shows it from then on.

    Raises:
        ForeignLedger: it is the database of another node.
        StoreFailed: the database does not answer.
    """
    section = config.processes
    if not is_postgres(where) or isinstance(database, Database):
        return None
    known = await database.select("meta", {"key": "node"})
    if known and known[0]["value"] != node:  # before a stranger stands among the others, or even leads them
        raise ForeignLedger
    from node.share.company import Company  # a node on a file does without the driver

    def end(error: Fenced) -> None:
        """Nothing that is in memory may be acted on any more, so nothing is finished either: as if it had died."""
        logging.shutdown()
        homes.clear_control(home)
        os._exit(PUT_OUT)

    leases = {"lease_s": section.lease_s, "renew_s": section.renew_s}
    names = [one.name for one in config.agent]
    company = Company(str(where), SystemClock(), lock=lock.name, end=end, agents=names, **leases)
    stack.push_async_callback(company.aclose)
    database.use_fence(await company.join())
    return company
