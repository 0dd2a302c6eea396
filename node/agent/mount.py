"""The mount table: which service is where in an agent's tree, in which access level, and what the operator has more."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from core.clock import Clock
from core.error import NotFound
from core.identifier import PubKey
from core.unit import UnitOfWork
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.service.compute import Jobs, Market, compute_service
from fs.service.containers import containers_service
from fs.service.ctl import Switch, ctl_service
from fs.service.goals import goals_service
from fs.service.identity import identity_service
from fs.service.inbox import inbox_service
from fs.service.ledger import ledger_service
from fs.service.logs import logs_service
from fs.service.market import market_service
from fs.service.nostr import Messenger, nostr_service
from fs.service.status import status_service
from fs.service.wallet import Purse, RateSource, wallet_service
from fs.treasury import Treasurer
from node.agent.goal import AgentGoals
from node.agent.inbox import AgentInbox
from node.agent.log import AgentLog
from node.agent.view import AgentView, LedgerView

NODE = "node"

Facts = Callable[[], Awaitable[Mapping[str, Any]]]
Rows = Callable[[], Awaitable[Sequence[Mapping[str, Any]]]]


@dataclass(frozen=True, slots=True)
class Parts:
    """What the trees are made of; the composition root has each exactly once.

    Attributes:
        unit: the database.
        clock: time.
        feed: wakes those who watch.
        agents: public keys of the agents, by name.
        node: the node's own public key.
        notify: wakes an agent.
        messenger: sends as an agent, by its name.
        relays: what is known of each relay.
        jobs: buys work; None if this node buys none.
        market: what `/compute` shows beside jobs.
        wallet: the money.
        fx: what it is worth.
        mints: the trusted mints.
        treasurer: moves the operator's money.
        switch: pause and resume; the gate.
        status: the node's own status.
        services: what is for sale.
        sales: what was sold.
    """

    unit: UnitOfWork
    clock: Clock
    feed: Feed
    agents: Mapping[str, PubKey]
    node: PubKey
    notify: Callable[[str], None]
    messenger: Callable[[str], Messenger]
    relays: Callable[[], Awaitable[Any]]
    jobs: Jobs | None
    market: Market
    wallet: Purse
    fx: RateSource
    mints: Sequence[str]
    treasurer: Treasurer
    switch: Switch
    status: Facts
    services: Sequence[Mapping[str, Any]] = ()
    sales: Rows = field(default=lambda: _nothing())


async def _nothing() -> Sequence[Mapping[str, Any]]:
    return ()


class Namespaces:
    """Every agent's namespace, made once: nothing in it changes while the node runs."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._made: dict[str, Namespace] = {}

    def __call__(self, name: str) -> Namespace:
        """The files of an agent, or of the node.

        Raises:
            NotFound: there is no agent with this name.
        """
        namespace = self._made.get(name)
        if namespace is None:
            if name != NODE and name not in self._parts.agents:
                raise NotFound("There is no agent with this name.")
            mounts = self._node() if name == NODE else self._agent(name)
            binds = {} if name == NODE else {"/send": "/inbox/new", "/tick": "/ctl/tick"}
            namespace = self._made[name] = Namespace(mounts, binds)
        return namespace

    def _shared(self, treasurer: Treasurer | None) -> list[Mount]:
        """What agents and the node see alike."""
        parts = self._parts
        wallet = wallet_service(parts.wallet, parts.fx, parts.market.usage, parts.mints, treasurer)
        compute = compute_service(parts.jobs, parts.market, parts.feed)
        return [
            Mount("/wallet", wallet, Access.READ, "what there is to spend"),
            Mount("/compute", compute, Access.BUDGETED, "buy work"),
            Mount("/containers", containers_service(), Access.BUDGETED, "sessions to run code in"),
            Mount("/ledger", ledger_service(LedgerView(parts.unit)), Access.READ, "the signed record of every effect"),
            Mount("/market", market_service(parts.services, parts.sales), Access.READ, "what this node sells"),
        ]

    def _agent(self, name: str) -> list[Mount]:
        parts = self._parts
        inbox = AgentInbox(name, parts.unit, parts.clock, parts.notify)
        log = AgentLog(name, parts.unit, parts.feed)
        nostr = nostr_service(parts.messenger(name), parts.relays)
        return [
            Mount("/status", status_service(AgentView(name, parts.unit).status), Access.READ, "how it is doing"),
            Mount("/inbox", inbox_service(inbox), Access.READ, "what waits for it"),
            Mount(
                "/goals", goals_service(AgentGoals(name, parts.unit, parts.clock)), Access.WRITE, "what it is to reach"
            ),
            Mount("/identity", identity_service(parts.agents[name]), Access.SIGN, "who it is on Nostr"),
            Mount("/logs", logs_service(log), Access.READ, "what it did"),
            Mount("/nostr", nostr, Access.BUDGETED, "relays and encrypted messages"),
            Mount("/ctl", ctl_service(parts.switch, inbox), Access.ADMIN, "control"),
            *self._shared(None),
        ]

    def _node(self) -> list[Mount]:
        parts = self._parts
        return [
            Mount("/status", status_service(parts.status), Access.READ, "how the node is doing"),
            Mount("/identity", identity_service(parts.node), Access.SIGN, "who it is on Nostr"),
            Mount("/ctl", ctl_service(parts.switch), Access.ADMIN, "control"),
            *self._shared(parts.treasurer),
        ]
