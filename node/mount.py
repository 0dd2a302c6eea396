"""Who sees which service where: the mount tables of the operator's namespace and of each agent."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from core.clock import Clock
from core.unit import UnitOfWork
from dvm.buying import Buying
from fs.feed import Feed
from fs.namespace import Access, Mount, Namespace
from fs.service.agents import Roster, Transit, agents_service
from fs.service.alarms import alarms_service
from fs.service.compute import Market, compute_service
from fs.service.containers import containers_service
from fs.service.ctl import Lives, Switch, ctl_service
from fs.service.foreign import Exchange
from fs.service.goals import goals_service
from fs.service.hooks import hooks_service
from fs.service.hud import hud_service
from fs.service.identity import Desk, Keys, Person, identity_service
from fs.service.inbox import inbox_service
from fs.service.interests import interests_service
from fs.service.ledger import Ledger, ledger_service
from fs.service.logs import logs_service
from fs.service.market import Gifts, market_service
from fs.service.memory import memory_service
from fs.service.metrics import metrics_service, node_metrics_service
from fs.service.model.node import AgentStatus, NodeStatus
from fs.service.nostr import nostr_service
from fs.service.outbox import outbox_service
from fs.service.programs import Programs, programs_service
from fs.service.secrets import secrets_service
from fs.service.sell import sell_service
from fs.service.status import status_service
from fs.service.tokens import Tokens, tokens_service
from fs.service.transfer import Depot, transfer_service
from fs.service.treasury import Treasurer
from fs.service.upkeep import upkeep_service
from fs.service.wallet import wallet_service
from node.agent.goal import AgentGoals
from node.agent.hud import AgentHud
from node.agent.inbox.row import AGENT_CALLER
from node.agent.item import AgentItems
from node.agent.log import AgentLog
from node.agent.metric import AgentMetrics
from node.agent.outbox import NodeOutbox
from node.agent.tick.limit import TickLimits
from node.agent.view import AgentView
from node.config import AgentSection
from node.message.service import OPERATOR, AgentMessenger, Messages
from node.offering import Offerings
from node.rail import Rail
from node.recall import Recall
from node.secret.reference import NODE
from node.secret.safe import Safe
from node.spreading import Spreading
from node.upkeep import Upkeep
from node.waking import Waking
from wallet.fx import Fx
from wallet.wallet import Wallet

LIFE = ("tick", "hibernate", "wake", "start", "stop")


@dataclass(frozen=True, slots=True)
class Parts:
    """What the services are made of; one of each per node."""

    unit: UnitOfWork
    clock: Clock
    feed: Feed
    buying: Buying
    market: Market
    wallet: Wallet
    fx: Fx
    rates: Callable[[], Awaitable[list[dict[str, Any]]]]
    probes: Callable[[], list[dict[str, Any]]]
    usage: Callable[[], Awaitable[Mapping[str, Any]]]
    treasurer: Treasurer
    spreading: Spreading
    recall: Recall
    exchange: Exchange
    rail: Rail
    ledger: Ledger
    switch: Switch
    relays: Callable[[], Awaitable[Any]]
    facts: Callable[[], Awaitable[Mapping[str, Any]]]
    offerings: Offerings
    sales: Callable[[], Awaitable[Sequence[dict[str, Any]]]]
    tips: Gifts
    held: Callable[[], Awaitable[Sequence[dict[str, Any]]]]
    person: Callable[[str], Person]
    desk: Callable[[str], Desk]
    keys: Keys
    lives: Lives
    library: Programs
    limits: TickLimits
    waking: Waking
    upkeep: Upkeep
    transit: Transit
    depot: Depot
    tokens: Tokens
    safe: Safe
    numbers: Callable[[], str]


def operator_namespace(parts: Parts, messages: Messages, roster: Roster) -> Namespace:
    """The operator's own namespace, under the reserved name `node`: everything, money included."""
    return Namespace(
        [
            Mount("/status", status_service(parts.facts, NodeStatus), Access.ADMIN, "how the node is doing"),
            Mount(
                "/identity",
                identity_service(parts.person("node"), keys=parts.keys),
                Access.ADMIN,
                "the node's key, and all others",
            ),
            Mount("/compute", compute_service(parts.buying, parts.market, parts.feed), Access.ADMIN, "buy work"),
            Mount("/containers", containers_service(), Access.ADMIN, "run code"),
            Mount(
                "/wallet",
                wallet_service(
                    parts.wallet,
                    parts.fx,
                    parts.usage,
                    parts.rates,
                    parts.treasurer,
                    parts.spreading,
                    parts.rail.lightning,
                    parts.rail.funding.fund,
                    parts.probes,
                    parts.recall,
                    parts.exchange,
                    parts.rail.funding,
                ),
                Access.ADMIN,
                "money, and what moves it",
            ),
            Mount(
                "/nostr",
                nostr_service(AgentMessenger(messages, OPERATOR), parts.relays),
                Access.ADMIN,
                "the relays, and your own messages",
            ),
            Mount(
                "/outbox",
                outbox_service(NodeOutbox(parts.unit, parts.clock, parts.feed)),
                Access.ADMIN,
                "what went out, of everybody",
            ),
            Mount("/metrics", node_metrics_service(parts.numbers), Access.ADMIN, "the node's numbers"),
            Mount(
                "/agents",
                agents_service(roster, parts.transit, AgentSection),
                Access.ADMIN,
                "which agents there are",
            ),
            Mount("/transfer", transfer_service(parts.depot), Access.ADMIN, "archives of agents, on their way"),
            Mount("/programs", programs_service(parts.library), Access.ADMIN, "what agents can be"),
            Mount(
                "/market",
                market_service(parts.offerings.rows, parts.sales, parts.tips, parts.buying.prepaying, parts.held),
                Access.ADMIN,
                "what is sold, and prepaid balances",
            ),
            Mount("/sell", sell_service(parts.offerings), Access.ADMIN, "put up for sale, prices, earnings"),
            Mount("/ledger", ledger_service(parts.ledger), Access.ADMIN, "every effect, signed"),
            Mount("/tokens", tokens_service(parts.tokens, roster.visit), Access.ADMIN, "who else may ask over HTTP"),
            Mount("/secrets", secrets_service(parts.safe.of(NODE)), Access.ADMIN, "the node's own, read by nobody"),
            Mount("/ctl", ctl_service(parts.switch), Access.ADMIN, "pause and resume"),
            Mount(
                "/upkeep",
                upkeep_service(
                    parts.upkeep.seal, parts.upkeep.retention, parts.upkeep.disk, parts.upkeep.homecoming.facts
                ),
                Access.ADMIN,
                "backups, what is deleted when, the disk",
            ),
        ]
    )


def agent_namespace(parts: Parts, name: str, messages: Messages) -> Namespace:
    """What one agent sees: its own inbox, logs and goals, and the market within its owner's budget."""
    waking, inbox = parts.waking, parts.waking.inbox(name)
    view = AgentView(name, parts.unit, parts.clock, parts.limits)
    metrics = AgentMetrics(name, parts.unit, parts.clock, parts.limits, parts.usage)
    outbox = NodeOutbox(parts.unit, parts.clock, parts.feed, f"{AGENT_CALLER}{name}")
    hud = AgentHud(name, parts.unit, parts.clock, parts.feed, view, metrics)
    return Namespace(
        [
            Mount("/status", status_service(view.status, AgentStatus), Access.READ, "how this agent is doing"),
            Mount("/inbox", inbox_service(inbox), Access.READ, "what waits for it"),
            Mount("/alarms", alarms_service(waking.agenda(name)), Access.WRITE, "when it is woken"),
            Mount("/interests", interests_service(waking.interests(name)), Access.WRITE, "what it is told of"),
            Mount("/hooks", hooks_service(waking.hooks(name)), Access.ADMIN, "ways in for webhooks"),
            Mount("/outbox", outbox_service(outbox), Access.READ, "what it has sent out"),
            Mount("/logs", logs_service(AgentLog(name, parts.unit, parts.feed)), Access.READ, "what it did"),
            Mount("/metrics", metrics_service(metrics), Access.READ, "its numbers"),
            Mount("/hud", hud_service(hud), Access.READ, "what the public may see of it", public=True),
            Mount(
                "/identity",
                identity_service(parts.person(name), parts.desk(name)),
                Access.SIGN,
                "who it is on Nostr",
                operations=frozenset({"sign"}),
            ),
            Mount(
                "/goals",
                goals_service(AgentGoals(name, parts.unit, parts.clock, parts.limits)),
                Access.WRITE,
                "what it is to reach",
            ),
            Mount(
                "/memory",
                memory_service(AgentItems(name, parts.unit, parts.limits)),
                Access.WRITE,
                "what it remembers beside its state",
            ),
            Mount("/secrets", secrets_service(parts.safe.of(name)), Access.READ, "what it uses and nobody reads"),
            Mount(
                "/wallet",
                wallet_service(parts.wallet, parts.fx, parts.usage, parts.rates, probes=parts.probes),
                Access.READ,
                "what may be spent",
            ),
            Mount("/compute", compute_service(parts.buying, parts.market, parts.feed), Access.BUDGETED, "buy work"),
            Mount("/containers", containers_service(), Access.BUDGETED, "run code"),
            Mount("/nostr", nostr_service(AgentMessenger(messages, name), parts.relays), Access.BUDGETED, "messages"),
            Mount("/ctl", ctl_service(parts.switch, inbox, parts.lives, name), Access.ADMIN, "for the operator"),
        ],
        {"/send": "/inbox/new", "/deadletter": "/inbox/deadletter"} | {f"/{verb}": f"/ctl/{verb}" for verb in LIFE},
        waking.file_changed(name),
    )
