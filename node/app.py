"""The composition root: builds the real parts of one node, in order, and runs them until told to stop.

Everything that performs effects is made here and handed the one gate; nothing else makes any of it.
"""

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp

from core.clock import SystemClock
from core.error import NotFound
from core.money import Msat
from core.unit import Write
from fs.feed import Feed
from fs.namespace import Namespace
from fs.service.compute import Market
from fs.service.treasury import Treasurer
from node.agent.doorman import Doorman
from node.agent.load.library import PURPOSE, Library
from node.agent.outbox import TOPIC as LEDGER
from node.agent.presence import Face, Presence
from node.agent.replay.redactor import Redactor
from node.agent.roster import Roster
from node.agent.tick.engine import Engine
from node.agent.tick.repose import Repose
from node.agent.view import BudgetView, LedgerView, agent_counts, agents, every_agent
from node.collector import Collector
from node.config import AgentSection, Config
from node.depot import Depot
from node.exchange import exchange_of
from node.gate.gate import NodeGate
from node.hosting import settings_of
from node.http.access import door_of
from node.http.bind import listeners
from node.http.control import ControlPlane
from node.http.front import RelayFront
from node.http.hook import HookDoor
from node.http.metric import relay_metrics, sell_metrics, upkeep_metrics
from node.http.once import Once
from node.http.openapi.document import Description
from node.http.token import Tokens
from node.http.token_file import token_file
from node.identity.pairing import Pairings
from node.identity.registry import Identities
from node.identity.rotation import Rotations
from node.identity.signing import AgentDesk, Signing
from node.identity.view import NODE, KeyView, PersonView, live_pubkey
from node.line import hide
from node.meaning import Switch, bracketed, fx_of, limits_of, policy_of
from node.message.admission import Rules, read_rules
from node.message.blossom import Blossom
from node.message.service import OPERATOR, Messages, Reach
from node.message.shelf import Shelf
from node.message.voice import FixedVoices, JoinedVoices
from node.mount import Parts, agent_namespace, operator_namespace
from node.overview import RelayOverview
from node.rail import rail_of
from node.recall import recall_of
from node.relay import OwnRelay
from node.secret.safe import Safe
from node.service import Service as Running
from node.share.household import Announcing
from node.share.sharing import CLOCKS_DIFFER_S, shared
from node.spreading import Spreading
from node.storage.database import Database, Store
from node.toll import CashuToll
from node.trade import trade_of
from node.transit import Transit, transit_of
from node.upkeep import upkeep_of
from node.waking import Waking
from relays.address import canonical
from relays.bunker import Wire
from relays.credential import Credentials
from relays.directory import Directory
from relays.key import Keyring
from relays.local_signer import KeySigner
from relays.nip47 import Address
from relays.outbox import SCAN_OVERLAP_S, Outbox
from relays.pool import Pool
from relays.presence import Profile
from relays.signer import Signer
from wallet.cashu.mint import connect
from wallet.cashu.watcher import watchers
from wallet.fx import Oracle, used
from wallet.probe import Probe
from wallet.wallet import Wallet

if TYPE_CHECKING:
    from node.share.company import Company

log = logging.getLogger(__name__)

_NAMESPACES = 256  # agents whose files are held ready: they are views, made in a millisecond, of 50 KB each
_SOON_MS = 5  # a commit that others are about to make


@dataclass(frozen=True, slots=True)
class Outside:
    """What a node needs and does not own: connections to mints, and processes for heavy work.

    `retired` are mints that are off the list and still hold money of ours; `files` is where agents' files lie. No
    record of an agent shows any of `secrets`. `insecure`: callers on this machine need no token. `nwc`: the
    Lightning wallet.
    """

    http: aiohttp.ClientSession
    workshop: Executor
    retired: Sequence[str] = ()
    files: Path | None = None
    home: Path | None = None
    secrets: Sequence[str] = ()
    insecure: bool = False
    nwc: Address | None = None


class Node:
    """One node, built and not yet running. `services` are in the order of their start."""

    def __init__(
        self,
        config: Config,
        keyring: Keyring,
        database: Store,
        outside: Outside,
        token: str,
        company: "Company | None" = None,
    ) -> None:
        self.config, self.keyring, self.database, self.clock = config, keyring, database, SystemClock()
        self.company = company  # where several processes share the database
        self.feed = Feed()
        database.on_entry(lambda _: self.feed.grew(LEDGER))
        self.gate = NodeGate(database, self.clock, limits_of(config), keyring.node.pubkey, shared=company)
        # what agents' records never show, however they came by it
        self._redactor = Redactor([keyring.words, token, *outside.secrets])
        self.safe = Safe(database, self.clock, keyring, self._hide)
        self._build_relays()
        self._build_identities(outside.http)
        self._build_money(outside)
        self._build_market(outside)
        self._build_upkeep(outside.home)
        self.depot = Depot(outside.home, self.upkeep.disk)
        self.tokens = token_file(outside.home, self.clock, keyring)
        self._build_agents(outside)
        self._build_own_relay(outside.home)
        self.sharing = shared(self, company, self.programs, outside.http) if company is not None else None
        first, *beside = listeners(config.http, config.node.host, config.node.port, outside.home or Path())
        self.control = ControlPlane(
            self.namespace,
            lambda: every_agent(database),
            Tokens.for_operator(token),
            database,
            host=first.host,
            port=first.port,
            beside=beside,
            door=door_of(
                config.http, token, self.tokens, Once(database, self.clock), self.clock, insecure=outside.insecure
            ),
            checks={"relays": self._relays_up, "disk": self.upkeep.disk.ready}
            | ({"lease": company.health} if company is not None else {}),
            metrics=self._numbers,
            hooks=HookDoor(self.waking.porter),
            front=self._relay_front(outside.http),
            turns=self.library.turns,
            visit=self.roster.visit,
            elsewhere=self.sharing.elsewhere if self.sharing is not None else None,
            describe=Description(self._described, version("vendo")),
        )

    def _build_relays(self) -> None:
        # A relay that is shown two keys knows that they belong together: only our own relays are shown any
        ours = frozenset(map(canonical, self.config.node.relays))
        auth = Credentials(KeySigner(self.keyring.node), self._voices, lambda relay, _: relay in ours, self.clock)
        self.pool = Pool(
            self.config.node.relays, unit=self.database, clock=self.clock, check=self.gate.check, auth=auth,
            known=self.config.node.indexers,
        )  # fmt: skip
        overlap_s = SCAN_OVERLAP_S if self.company is None else self.config.tick.seconds + CLOCKS_DIFFER_S
        self.outbox = Outbox(self.pool, self.database, self.clock, self.gate.delivery, overlap_s)
        self.overview = RelayOverview(self.pool, self.database)
        self.directory = Directory(self.pool, self.database, self.clock, indexers=self.config.node.indexers)

    def _build_upkeep(self, home: Path | None) -> None:
        database = self.database
        places = (home, database.path if isinstance(database, Database) else "")
        acting = (self.gate, self.wallet, self.buying, self.treasurer, self.rail.funding)
        self.upkeep = upkeep_of(self.config, database, self.clock, self.keyring.node, places, acting)
        self.gate.is_full = lambda: self.upkeep.disk.low
        database.on_full(self.upkeep.disk.full)

    def _voices(self) -> list[Signer]:
        """Every key with which something is read: the operator's mailbox, and agents' keys, also replaced ones."""
        return [KeySigner(self.keyring.operator), *self.identities.voices()]

    def _build_own_relay(self, home: Path | None) -> None:
        """`[relay]`: a process with a listener of its own, if it is enabled."""
        self.own_relay: OwnRelay | None = None
        self.toll: CashuToll | None = None
        section, mints = self.config.relay, self.config.node.mints
        if home is None or not section.enabled:
            return
        if "payment" in section.write_by:
            self.toll = CashuToll(self.collector, self.database, self.clock, section.price_sat, section.paid_days)
        operator = self.keyring.operator.pubkey
        settings = settings_of(section, home, pubkey=operator, version=version("vendo"), mints=mints)
        if section.share_port:  # clients that come that way name that address in their AUTH
            shared = f"ws://{bracketed(self.config.node.host)}:{self.config.node.port}"
            settings = replace(settings, description=replace(settings.description, public_url=shared))
        self.own_relay = OwnRelay(settings, self.clock, self.toll)
        self.identities.on_change(lambda _: self._name_agents())

    def _relay_front(self, http: aiohttp.ClientSession) -> RelayFront | None:
        own = self.own_relay
        return RelayFront(lambda: own.url, http) if own is not None and self.config.relay.share_port else None

    def _name_agents(self) -> None:
        """The relay answers for the NIP-05 names of the node and its agents."""
        if self.own_relay is not None:
            names = {name: self.identities.current(name).pubkey for name in self.identities}
            self.own_relay.set_names({**names, "_": self.keyring.node.pubkey})

    def _build_identities(self, http: aiohttp.ClientSession) -> None:
        section = self.config.keys
        wire = Wire(http, self.clock, self.gate.check, lambda: self.gate.standing("identity.remote"))
        self.identities = Identities(self.database, self.clock, self.keyring, wire, section.retired_days)
        self.pairings = Pairings(wire, self.config.node.relays, self.config.node.name)

    def _build_money(self, outside: Outside) -> None:
        self.fx = fx_of(self.config.fx, self.clock, outside.http)
        mints = connect(self.config.node.mints, outside.http, self.gate.check)
        self.wallet = Wallet(
            self.database,
            self.keyring,
            self.clock,
            self.gate.check,
            mints,
            permit_for=self.gate.permit,
            collection=self.gate.collection,
            retired=connect(outside.retired, outside.http, self.gate.check),
            watchers=watchers(self.config.node.mints, outside.http, self.clock),
            currencies=self.config.node.currencies,
        )
        self.rail = rail_of(self, outside.nwc)
        self.probe = Probe(self.database, self.gate, self.wallet, self.keyring, self.clock, mints)
        self.treasurer = Treasurer(self.rail.funding, self.gate, self.database, self.clock)
        rules = self.config.wallet.rules()
        self.spreading = Spreading(self.wallet, self.treasurer, self.database, self.clock, rules, self.fx.known)
        self.exchange = exchange_of(self.wallet, self.spreading, self.fx.known, self.treasurer)
        self.collector = Collector(self.wallet, self.treasurer)
        self.recall = recall_of(self, lambda mint: connect([mint], outside.http, self.gate.check)[0])

    def _build_market(self, outside: Outside) -> None:
        trade = trade_of(self, outside.workshop, outside.home)
        self.providers, self.offerings = trade.providers, trade.offerings
        self.discovery, self.selling, self.buying = trade.discovery, trade.selling, trade.buying
        self.reviewing, self.nutzaps, self.zaps = trade.reviewing, trade.nutzaps, trade.zaps
        self.parcels = trade.parcels

    def _build_agents(self, outside: Outside) -> None:
        self.library = Library(
            self.database, self.clock, self.config.tick.limits(), self.config.tick.commands, outside.home or Path(),
            lambda: self.control.url, self.keyring.derive, lambda: self.gate.check(self.gate.standing(PURPOSE)),
            self.safe.reveal,
        )  # fmt: skip
        self.programs = programs = self.library.programs
        self.waking = Waking(
            self.database, self.clock, self.config.inbox, lambda hook: self.keyring.derive("hook", hook).hex(),
            self.notify, lambda agent: self.engine.notify_at(agent, self.clock.millis() + _SOON_MS),
        )  # fmt: skip
        self.waking.intake.check = self.upkeep.disk.check
        self.engine = Engine(
            self.database, self.clock, programs, self.namespace, self.feed, self.config.tick.limits(),
            redactor=self._redactor, touch=self.waking.alarms.touch, bury=self.waking.intake.bury,
            claims=self.company.claims if self.company is not None else None,
        )  # fmt: skip
        self.library.on_reload(self.engine.heal)
        self._build_messages(outside)
        self.presence = Presence(
            self.database, self.outbox, self.identities, self.clock, lambda: self.pool.urls, self._face,
            self.config.messages.heartbeat_s,
        )  # fmt: skip
        company = self.company
        publishing = self.presence if company is None else Announcing(self.presence, lambda: company.leads)
        self.roster: Roster = Roster(
            self.database, self.clock, self.identities, self.engine, self.messages, publishing, self.config.agent,
            self._rules, programs, self._gone, company.named if company is not None else tuple,
        )  # fmt: skip
        self.identities.on_change(self.roster.rekeyed)
        self.engine.attend(self.roster)
        self.doorman = Doorman(self.database, self.clock, self.roster)
        self.roster.on_rest(self.doorman.changed)
        self.repose = Repose(self.database, self.clock, self.engine, self.roster, self.config.tick.idle_minutes)
        self.buying.on_finished(self._finished)
        self.buying.on_moved(self.waking.job_moved)
        self.wallet.on_booked(self.waking.paid)
        self.rotations = Rotations(
            self.identities, self.database, self.gate, self.outbox, self.clock,
            lambda agent, to, text, key: self.messages.send("operator", agent, to, text, key),
            lambda agent: sorted(self.messages.rules(agent).contacts) if agent in self.roster else (),
        )  # fmt: skip
        self.signing = Signing(
            self.identities,
            self.database,
            self.gate,
            self.clock,
            self.notify,
            self.config.keys.agent_kinds,
            self.gate.is_theirs,
            self.waking.herald,
        )
        self.transit: Transit = transit_of(
            self.database, self.clock, outside.home, self.keyring.node,
            (self.engine, self.roster, self.identities, programs),
            self._mounts,
            self.waking.alarms.touch, self.upkeep.disk,
        )  # fmt: skip
        self._parted: Parts = self._parts()
        operator = operator_namespace(self._parted, self.messages, self.roster)
        self._namespaces: dict[str, Namespace] = {OPERATOR: operator}

    def _build_messages(self, outside: Outside) -> None:
        section, operator = self.config.messages, FixedVoices({OPERATOR: KeySigner(self.keyring.operator)})
        reach = Reach(self.directory, collector=self.collector, intake=self.waking.intake)
        if self.company is not None:
            theirs = self.gate.is_theirs
            reach = replace(reach, is_theirs=theirs, ask=self._file_elsewhere, on_rules=self.company.changed)
        if outside.files is not None:
            blossom = Blossom(section.blossom, self.clock, section.max_file_mb << 20)
            shelf = Shelf(outside.files, section.files_mb << 20, self.upkeep.disk.check)
            reach = replace(reach, blossom=blossom, shelf=shelf)
        self.messages = Messages(
            self.pool, self.outbox, self.gate, self.database, JoinedVoices(operator, self.identities),
            {OPERATOR: Rules()}, self.clock, self.notify, self.feed, reach,
        )  # fmt: skip

    def notify(self, agent: str) -> None:
        """Something was committed to an agent's inbox: by whichever process, it has a tick soon."""
        if self.company is None:
            self.engine.notify(agent)
        else:
            self.company.notify(agent)

    def _rules(self, section: AgentSection) -> Rules:
        """Whom an agent hears: its contacts, the owner, and the operator of this node."""
        value = {name: getattr(section, name) for name in Rules().to_dict()}
        known = [*section.contacts, self.config.node.owner, self.keyring.operator.pubkey]
        return read_rules({**value, "contacts": known})

    def _face(self, name: str) -> Face | None:
        """What an agent shows in public; None if nothing."""
        section = self.roster.find(name)
        if section is None or not section.public or not self.roster.is_awake(name):
            return None
        paid = section.strangers == "pay"
        price = None if section.strangers == "none" else Msat.of_sat(section.toll_sat if paid else 0)
        bits = section.pow_bits if section.strangers == "pow" else 0
        return Face(name, section.about, price, bits, self.config.node.mints if paid else (), self._address(name))

    def _hide(self, secrets: Iterable[str]) -> None:
        """Nobody may see these: not in an agent's records, and not in the log."""
        self._redactor.learn(secrets)
        hide(secrets)

    def _gone(self, name: str) -> None:
        self._namespaces.pop(name, None)

    async def _file_elsewhere(self, agent: str, ox: str) -> bytes | None:
        return await self.sharing.elsewhere.find(agent, ox) if self.sharing is not None else None

    def namespace(self, name: str) -> Namespace:
        """The files of an agent, or of the operator under the name `node`.

        Raises:
            NotFound: there is no such agent.
        """
        found = self._namespaces.pop(name, None)
        if found is None:
            if name not in self.roster:
                raise NotFound("There is no agent with this name.")
            found = agent_namespace(self._parted, name, self.messages)
        self._namespaces[name] = found  # as the newest
        if len(self._namespaces) > _NAMESPACES:
            oldest = next(one for one in self._namespaces if one != OPERATOR)
            del self._namespaces[oldest]
        return found

    def _described(self) -> dict[str, Namespace]:
        """What `/openapi.json` tells of: the operator's files, and those of any agent."""
        return {
            OPERATOR: self.namespace(OPERATOR),
            "agent": agent_namespace(self._parted, "agent", self.messages),
        }

    def _mounts(self) -> list[str]:
        """The services that an agent has."""
        return [one.path for one in agent_namespace(self._parted, "", self.messages).mounts]

    def _parts(self) -> Parts:
        day = self.gate.limits.per_day
        usage = BudgetView(self.database, self.clock, day.value, day.unit).usage
        return Parts(
            unit=self.database,
            clock=self.clock,
            feed=self.feed,
            buying=self.buying,
            market=Market(policy_of(self.config).to_dict, self._providers_known, usage, self.reviewing.shown),
            wallet=self.wallet,
            fx=self.fx,
            rates=partial(used, self.database),
            probes=self.probe.findings,
            usage=usage,
            treasurer=self.treasurer,
            spreading=self.spreading,
            recall=self.recall,
            exchange=self.exchange,
            rail=self.rail,
            ledger=LedgerView(self.database),
            switch=Switch(self.gate),
            relays=self.overview.relays,
            facts=self._facts,
            offerings=self.offerings,
            sales=self.selling.list_sales,
            tips=self.nutzaps,
            held=self.selling.custodian.rows,
            person=self._person,
            desk=lambda name: AgentDesk(self.signing, name, self.clock),
            keys=KeyView(
                self.identities,
                self.rotations,
                self.pairings,
                self.keyring,
                self._person,
                lambda name: name in self.roster,
            ),
            lives=self.engine,
            library=self.library,
            limits=self.config.tick.limits(),
            waking=self.waking,
            upkeep=self.upkeep,
            transit=self.transit,
            depot=self.depot,
            tokens=self.tokens,
            safe=self.safe,
            numbers=self._numbers,
        )

    def _numbers(self) -> str:
        """What Prometheus is given."""
        counters = relay_metrics(self.overview.counters()) + upkeep_metrics(self.upkeep.counters())
        return counters + sell_metrics(self.selling.facts())

    def _person(self, name: str) -> PersonView:
        """Who the node or an agent is, as others see it."""
        own = name == NODE
        pubkey = (lambda: self.keyring.node.pubkey) if own else live_pubkey(self.identities, name)

        def profile() -> Profile:
            section = None if own else self.roster.find(name)
            known_as, about = (self.config.node.name, self.config.node.about) if own else (name, "")
            about = section.about if section is not None else about
            return Profile(known_as, about, nip05=self._address(name), bot=not own)

        return PersonView(pubkey, profile, lambda: self.pool.urls, self.identities, name)

    def _address(self, name: str) -> str:
        """The address under our domain (NIP-05), if there is one; the node is the domain itself."""
        domain = self.config.keys.nip05_domain
        return f"{'_' if name == NODE else name}@{domain}" if domain else ""

    async def _finished(self, view: Any) -> Sequence[Write]:
        """A job has ended: the agent that asked for it finds that in its inbox, in the same commit."""
        self.feed.grew("jobs")
        return await self.waking.job_ended(view)

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
            "agent_counts": await agent_counts(self.database),
            "programs": self.library.rows(),
            "open_effects": len(await self.gate.open_effects()),
            "storage": self.database.stats(),
            "messages": dict(self.messages.counts),
            "own_relay": self._own_relay_facts(),
            "inboxes": dict(self.waking.intake.counts),
            "processes": self.company.facts() if self.company is not None else None,
            "disk": self.upkeep.disk.facts(),
            "restored": await self.upkeep.homecoming.facts(),
        }

    def _own_relay_facts(self) -> Mapping[str, Any] | None:
        if self.own_relay is None:
            return None
        return {"url": self.own_relay.url, "restarts": self.own_relay.restarts, **self.own_relay.health}

    @property
    def parts(self) -> list[tuple[str, Running]]:
        """Every service, in the order of its start; they stop in reverse."""
        return self.all_parts if self.sharing is None else self.sharing.parts(self.all_parts)

    @property
    def all_parts(self) -> list[tuple[str, Running]]:
        """The same for a node that is alone."""
        return [
            ("disk", self.upkeep.disk),
            ("standing", self.gate.days),
            *([("own relay", self.own_relay)] if self.own_relay is not None else []),
            ("relay pool", self.pool),
            ("outbox", self.outbox),
            ("identities", self.identities),
            ("pairings", self.pairings),
            ("wallet", self.wallet),
            *self.rail.parts,
            *([("exchange rate", self.fx)] if isinstance(self.fx, Oracle) else []),
            ("treasury", self.treasurer),
            ("spreading", self.spreading),
            ("wallet memo", self.recall.memo),
            ("recovery", self.recall.recovery),
            *([("mint probe", self.probe)] if self.config.settlement.atomic else []),
            *([("large results", self.parcels)] if self.parcels is not None else []),
            ("discovery", self.discovery),
            ("selling", self.selling),
            ("nutzaps", self.nutzaps),
            *([("zaps", self.zaps)] if self.zaps is not None else []),
            ("buying", self.buying),
            ("webhooks", self.library.webhook),
            ("agents", self.engine),
            ("alarms", self.waking.alarms),
            ("messages", self.messages),
            ("doorman", self.doorman),
            ("repose", self.repose),
            ("presence", self.presence),
            ("signing", self.signing),
            ("rotations", self.rotations),
            *self.upkeep.parts,
            ("control plane", self.control),
            ("turns", self.library.turns),
        ]

    async def prepare(self) -> None:
        """What must be known before anything acts: open effects and sagas; among several see `node.share.threshold`."""
        await self.gate.load()
        await self.safe.load()
        if self.company is None:
            await self.take_up()

    async def take_up(self) -> None:
        """Begin to drive what is open: at the start, or when this process has become the steward."""
        await self.upkeep.homecoming.adopt()
        self.messages.not_before(self.upkeep.homecoming.heard_since)
        await self.roster.prepare()
        await self.recall.load()
        await self.wallet.recover()
        await self.offerings.load()
        if self.toll is not None:
            await self.toll.load()
        self._name_agents()
