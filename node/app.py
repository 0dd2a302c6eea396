"""The composition root: builds the real parts of one node, in order, and runs them until told to stop.

Everything that performs effects is made here and handed the one gate; nothing else makes any of it.
"""

import asyncio
import json
import logging
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import aiohttp

from core.clock import SystemClock
from core.error import NotFound
from core.money import MicroUsd, Msat, Rate
from core.unit import Write
from dvm.admission import Limits as StrangerLimits
from dvm.buying import Buying
from dvm.discovery import Discovery
from dvm.policy import Policy
from dvm.provider.echo import Echo
from dvm.provider.pow import ProofOfWork
from dvm.provider.provider import Provider
from dvm.provider.summarizer import Summarizer
from dvm.sale import Service
from dvm.selling import Selling
from fs.feed import Feed
from fs.namespace import Namespace
from fs.service.compute import Market
from fs.service.treasury import Treasurer
from node import home as homes
from node.agent.buyer import Buyer
from node.agent.engine import Engine
from node.agent.inbox import agent_of, job_finished
from node.agent.view import BudgetView, LedgerView, agents
from node.config import Config, load
from node.error import ConfigInvalid
from node.gate.gate import NodeGate
from node.gate.ledger import ledger_seal
from node.gate.limits import Limits
from node.http.control import ControlPlane
from node.http.token import Tokens
from node.line import LineFormatter
from node.message.admission import Rules, read_rules
from node.message.blossom import Blossom
from node.message.service import OPERATOR, Messages, Reach
from node.message.shelf import Shelf
from node.message.voice import FixedVoices, JoinedVoices
from node.mount import Parts, agent_namespace, operator_namespace
from node.service import Service as Running
from node.service import serve as run_services
from node.storage.database import Database, open_database
from node.workshop import workshop
from relays.key import Key, Keyring, parse_pubkey
from relays.outbox import Outbox
from relays.pool import Pool
from wallet.cashu.mint import connect
from wallet.fx import Fixed, Fx, Oracle
from wallet.leftover import leftover
from wallet.wallet import Wallet

log = logging.getLogger(__name__)

_SWITCH_S = 0.0005  # a busy loop would else keep the database's writer thread waiting up to 5 ms for its turn


@dataclass(frozen=True, slots=True)
class Outside:
    """What a node needs and does not own: connections to mints, and processes for heavy work.

    `retired` are mints that are off the list and still hold money of ours.
    """

    http: aiohttp.ClientSession
    workshop: Executor
    retired: Sequence[str] = ()


class Node:
    """One node, built and not yet running. `services` are in the order of their start."""

    def __init__(self, config: Config, keyring: Keyring, database: Database, outside: Outside, token: str) -> None:
        self.config, self.keyring, self.database, self.clock = config, keyring, database, SystemClock()
        self.feed = Feed()
        self.gate = NodeGate(database, self.clock, _limits(config), keyring.node.pubkey)
        self._build_relays()
        self._build_money(outside)
        self._build_market(outside.workshop)
        self._build_agents()
        self.control = ControlPlane(
            self.namespace,
            lambda: agents(database),
            Tokens.for_operator(token),
            database,
            host=config.node.host,
            port=config.node.port,
            checks={"relays": self._relays_up},
        )

    def _build_relays(self) -> None:
        self.pool = Pool(self.config.node.relays, unit=self.database, clock=self.clock, check=self.gate.check)
        self.outbox = Outbox(self.pool, self.database, self.clock, self.gate.delivery)

    def _build_money(self, outside: Outside) -> None:
        self.fx = _fx(self.config, self.clock, outside.http)
        self.wallet = Wallet(
            self.database,
            self.keyring,
            self.clock,
            self.gate.check,
            connect(self.config.node.mints, outside.http, self.gate.check),
            permit_for=self.gate.permit,
            retired=connect(outside.retired, outside.http, self.gate.check),
        )
        self.treasurer = Treasurer(self.wallet, self.gate, self.database, self.clock)

    def _build_market(self, executor: Executor) -> None:
        self.providers: tuple[Provider, ...] = (Summarizer(executor), ProofOfWork(executor), Echo())
        providers = {provider.name: provider for provider in self.providers}
        self.services = [_service(section, providers) for section in self.config.sell]
        self.discovery = Discovery(
            self.database,
            self.pool,
            self.outbox,
            self.keyring,
            self.clock,
            self.services,
            mints=self.config.node.mints,
            name=self.config.node.name,
            about=self.config.node.about,
        )
        self.selling = Selling(
            self.database,
            self.gate,
            self.pool,
            self.outbox,
            self.wallet,
            self.keyring,
            self.clock,
            self.services,
            limits=_stranger_limits(self.config),
        )
        self.buying = Buying(
            self.database, self.gate, self.pool, self.outbox, self.wallet, self.fx, self.keyring, self.clock,
            _policy(self.config), self.providers, self.discovery.known_sellers,
        )  # fmt: skip

    def _build_agents(self) -> None:
        self.keys: dict[str, Key] = {one.name: self.keyring.agent(one.name) for one in self.config.agent}
        contacts = {
            one.name: {parse_pubkey(self.config.node.owner), *map(parse_pubkey, one.contacts)}
            for one in self.config.agent
        }
        self.engine = Engine(self.database, self.clock, {"buyer": Buyer()}, self.namespace, self.feed)
        self.messages = Messages(
            self.pool, self.outbox, self.gate, self.database, self.keys,
            lambda agent, sender: sender in contacts[agent], self.clock, self.engine.notify,
        )  # fmt: skip
        self.buying.on_finished(self._finished)
        parts = self._parts()
        self._namespaces = {"node": operator_namespace(parts, self.keyring.node.pubkey)} | {
            name: agent_namespace(parts, name, key.pubkey, self.messages, self.engine.notify)
            for name, key in self.keys.items()
        }

    def namespace(self, name: str) -> Namespace:
        """The files of an agent, or of the operator under the name `node`.

        Raises:
            NotFound: there is no such agent.
        """
        try:
            return self._namespaces[name]
        except KeyError as error:
            raise NotFound("There is no agent with this name.") from error

    def _parts(self) -> Parts:
        day = self.gate.limits.per_day
        usage = BudgetView(self.database, self.clock, day.value, day.unit).usage
        return Parts(
            unit=self.database,
            clock=self.clock,
            feed=self.feed,
            buying=self.buying,
            market=Market(_policy(self.config).to_dict, self._providers_known, usage),
            wallet=self.wallet,
            fx=self.fx,
            usage=usage,
            treasurer=self.treasurer,
            ledger=LedgerView(self.database),
            switch=_Switch(self.gate),
            relays=self._relay_health,
            facts=self._facts,
            services=[
                {"kind": one.kind, "price_msat": one.price.value, "provider": one.provider.name, "eta_s": one.eta_s}
                for one in self.services
            ],
            sales=self.selling.list_sales,
        )

    async def _finished(self, view: Any) -> Sequence[Write]:
        """A job has ended: the agent that asked for it finds that in its inbox, in the same commit."""
        self.feed.grew("jobs")
        agent = agent_of(view.caller)
        if agent is None:
            return ()
        self.engine.notify_at(agent, self.clock.millis() + 5)
        return job_finished(view.caller, view.job_id, json.dumps(view.to_dict()), self.clock.now())

    async def _providers_known(self) -> list[dict[str, Any]]:
        """Who can do work: sellers that announced themselves, and what is built in."""
        built_in = [
            {"id": one.name, "kinds": sorted(one.kinds), "price_msat": 0, "source": "builtin"} for one in self.providers
        ]
        return [*self.discovery.list_sellers(), *built_in]

    async def _relay_health(self) -> list[dict[str, Any]]:
        return [{"url": one.url, "up": one.up} for one in self.pool.health()]

    async def _relays_up(self) -> str | None:
        return None if any(one.up for one in self.pool.health()) else "no relay is connected"

    async def _facts(self) -> Mapping[str, Any]:
        return {
            "npub": self.keyring.node.npub,
            "name": self.config.node.name,
            "pid": os.getpid(),
            "paused": self.gate.paused,
            "relays": await self._relay_health(),
            "balance": [asdict(one) for one in await self.wallet.balance()],
            "agents": await agents(self.database),
            "open_effects": len(await self.gate.open_effects()),
            "storage": self.database.stats(),
            "messages": dict(self.messages.counts),
        }

    @property
    def parts(self) -> list[tuple[str, Running]]:
        """Every service, in the order of its start; they stop in reverse."""
        return [
            ("standing", self.gate.days),
            ("relay pool", self.pool),
            ("outbox", self.outbox),
            ("wallet", self.wallet),
            *([("exchange rate", self.fx)] if isinstance(self.fx, Oracle) else []),
            ("treasury", self.treasurer),
            ("discovery", self.discovery),
            ("selling", self.selling),
            ("buying", self.buying),
            ("agents", self.engine),
            ("messages", self.messages),
            ("control plane", self.control),
        ]

    async def prepare(self) -> None:
        """What must be known before anything acts: the gate's open effects, and the wallet's open sagas."""
        await self.gate.load()
        for one in self.config.agent:
            await self.engine.create(one.name, one.program, self.keys[one.name].pubkey)
        await self.wallet.recover()


class _Switch:
    def __init__(self, gate: NodeGate) -> None:
        self._gate = gate

    async def pause(self) -> None:
        await self._gate.pause()

    async def resume(self) -> None:
        await self._gate.resume()

    async def paused(self) -> bool:
        return self._gate.paused


def _limits(config: Config) -> Limits:
    section = config.limits
    return Limits(section.unit, section.amount("per_job"), section.amount("per_day"), section.amount("per_seller"))


def _stranger_limits(config: Config) -> StrangerLimits:
    section = config.strangers
    return StrangerLimits(free_per_second=section.free_per_second, free_burst=section.free_burst)


def _policy(config: Config) -> Policy:
    section = config.policy
    dollars = config.limits.unit == "uusd"
    return Policy(
        order=section.order,
        prefer=section.prefer,
        default_max=MicroUsd(section.default_max_usd) if dollars else Msat(section.default_max_msat),
        quote_window_ms=section.quote_window_ms,
        timeout_s=section.timeout_s,
        lock_margin_s=section.lock_margin_s,
    )


def _fx(config: Config, clock: SystemClock, http: aiohttp.ClientSession) -> Fx:
    section = config.fx
    if section.source == "oracle":
        return Oracle(section.url, section.field, section.max_age_s, http, clock)
    return Fixed(Rate.of_btc_price(section.btc_usd, clock.now(), "fixed"))


def _service(section: Any, providers: Mapping[str, Provider]) -> Service:
    provider = providers.get(section.provider)
    if provider is None or section.kind not in provider.kinds:
        known = ", ".join(f"{one.name} ({', '.join(map(str, sorted(one.kinds)))})" for one in providers.values())
        raise ConfigInvalid(f"[[sell]] kind {section.kind}: {section.provider!r} does not do it. There are: {known}.")
    return Service(section.kind, Msat(section.price_msat), provider, section.eta_s, section.max_parallel)


async def _serve(home: Path, config: Config, keyring: Keyring) -> int:
    stop, started = asyncio.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with AsyncExitStack() as stack:
        database = await open_database(home / homes.DATABASE, seal=ledger_seal(keyring.node), clock=SystemClock())
        stack.push_async_callback(database.aclose)
        http = await stack.enter_async_context(aiohttp.ClientSession())
        executor = workshop()
        stack.callback(executor.shutdown, wait=False, cancel_futures=True)
        retired = await leftover(database, config.node.mints)
        node = Node(config, keyring, database, Outside(http, executor, retired), homes.read_token(home))
        await node.prepare()
        announcing = asyncio.create_task(_announce(home, node, started))
        announcing.add_done_callback(lambda task: None if task.cancelled() or task.exception() is None else stop.set())
        try:
            await run_services(node.parts, stop, started=started)
        finally:
            announcing.cancel()
            await asyncio.wait([announcing])
            homes.clear_control(home)
        if not announcing.cancelled():
            announcing.result()  # a node that could not say where it listens has failed
    return 0


async def _announce(home: Path, node: Node, started: asyncio.Event) -> None:
    await started.wait()
    homes.write_control(home, node.control.url)
    line = {
        "npub": node.keyring.node.npub,
        "control": node.control.url,
        "relays": list(node.config.node.relays),
        "pid": os.getpid(),
    }
    print(json.dumps(line), flush=True)  # noqa: T201 - the one line that says the node is ready


def _log_to_stderr(known: Sequence[str]) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter(known))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    logging.getLogger("alembic").setLevel(logging.WARNING)
    # Says with a traceback what is no HTTP, whoever sent it; our own faults are told by the control plane.
    logging.getLogger("aiohttp.server").setLevel(logging.CRITICAL)


def serve(home: Path) -> int:
    """Run the node of a home directory until SIGTERM or SIGINT; the exit code.

    Raises:
        HomeMissing: there is none.
        ConfigInvalid: its configuration is wrong.
        AlreadyRunning: another process runs it.
    """
    config, keyring = load(home), homes.open_keyring(home)
    _log_to_stderr([keyring.words, homes.read_token(home)])
    # Python puts the working directory before everything else for the processes that it starts with `-c`: a folder
    # `multiprocessing` in it would be run in the workshop's place.
    os.environ["PYTHONSAFEPATH"] = "1"
    sys.setswitchinterval(_SWITCH_S)
    with homes.Lock(home):
        return asyncio.run(_serve(home, config, keyring))
