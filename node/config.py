"""The configuration: `config.toml` in the home directory, parsed once and checked whole.

Settings are documented in the file that `vendo init` writes (`TEMPLATE` below); docs/reference/settings.md is
tested against the models here.
"""

import json
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, ValidationError, model_validator

from core.error import InvalidInput
from core.money import MicroUsd, Money, Msat
from node.agent.inbox.overflow import MOST_DEAD, MOST_DEPTH, Overflow, Policy
from node.agent.tick.limit import Own, TickLimits
from node.blob import TEMPLATE as BLOB_TEMPLATE
from node.blob import BlobSection
from node.error import ConfigInvalid, HomeMissing
from node.fx import TEMPLATE as FX_TEMPLATE
from node.fx import FxSection
from node.hosting import RelaySection
from node.http.setting import TEMPLATE as HTTP_TEMPLATE
from node.http.setting import HttpSection, refusal
from node.lightning import TEMPLATE as LIGHTNING_TEMPLATE
from node.lightning import LightningSection
from node.market import MARKET_TEMPLATE, SELL_TEMPLATE, PolicySection, SellSection, StrangerSection
from node.section import Section, Usd
from node.settlement import TEMPLATE as SETTLEMENT_TEMPLATE
from node.settlement import SettlementSection
from node.storage.address import OWN_FILE, check_database, has_password
from node.wallet import TEMPLATE as WALLET_TEMPLATE
from node.wallet import WalletSection
from relays.key import parse_pubkey
from relays.nip49 import DEFAULT_LOG_N, MAX_LOG_N, MIN_LOG_N

FILE = "config.toml"
_PREFIXES = {"bitcoin": "bc", "testnet": "tb", "signet": "tbs", "regtest": "bcrt"}


class NodeSection(Section):
    """The node itself."""

    name: str = Field("vendo", min_length=1, max_length=64)
    about: str = Field("", max_length=500)
    host: str = Field("127.0.0.1", max_length=45)
    port: int = Field(8080, ge=0, le=65_535)
    owner: str
    relays: tuple[str, ...] = Field(min_length=1)
    indexers: tuple[str, ...] = ()
    mints: tuple[str, ...] = ()
    network: Literal["bitcoin", "testnet", "signet", "regtest"] = "bitcoin"

    @property
    def currencies(self) -> frozenset[str]:
        """What invoices of the network begin with, after `ln` (BOLT-11)."""
        return frozenset({_PREFIXES[self.network]})

    @model_validator(mode="after")
    def _check(self) -> "NodeSection":
        parse_pubkey(self.owner)
        for url in (*self.relays, *self.indexers):
            if not url.startswith(("ws://", "wss://")):
                raise ValueError(f"a relay's address begins with ws:// or wss://, not {url!r}")
        for url in self.mints:
            if not url.startswith(("http://", "https://")) or url.endswith("/"):
                raise ValueError(
                    f"a mint's address begins with http:// or https:// and has no slash at its end: {url!r}"
                )
        return self


class LimitSection(Section):
    """What may be spent. Every limit is finite; one unit, µUSD or msat (DESIGN M8)."""

    unit: Literal["uusd", "msat"] = "uusd"
    per_job_usd: Usd = 100_000
    per_day_usd: Usd = 1_000_000
    per_seller_usd: Usd = 500_000
    per_job_msat: int = Field(100_000, ge=0)
    per_day_msat: int = Field(1_000_000, ge=0)
    per_seller_msat: int = Field(500_000, ge=0)

    def amount(self, which: Literal["per_job", "per_day", "per_seller"]) -> Money:
        """One of the limits, in the unit that counts."""
        value: int = getattr(self, f"{which}_{'usd' if self.unit == 'uusd' else 'msat'}")
        return MicroUsd(value) if self.unit == "uusd" else Msat(value)


class KeySection(Section):
    """The keys at rest, and what becomes of those that were replaced."""

    passphrase_from: tuple[Literal["environment", "file", "keyring", "prompt"], ...] = (
        "environment",
        "file",
        "keyring",
        "prompt",
    )
    passphrase_file: str = ""
    scrypt_log_n: int = Field(DEFAULT_LOG_N, ge=MIN_LOG_N, le=MAX_LOG_N)
    retired_days: int = Field(30, ge=1, le=3_650)
    agent_kinds: tuple[int, ...] = (1, 7, 1111, 1985, 30_023, 31_989)
    nip05_domain: str = Field("", max_length=253, pattern=r"^([a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?)?$")


class TickSection(Section):
    """Ticks of all agents, and what an agent may use that has no limits of its own."""

    seconds: float = Field(30.0, ge=0.05, le=3_600)
    tries: int = Field(5, ge=1, le=100)
    away_tries: int = Field(15, ge=1, le=100)
    back_off_ms: int = Field(500, ge=1, le=600_000)
    quarantine: int = Field(15, ge=1, le=10_000)
    parallel: int = Field(32, ge=1, le=1_024)
    open: int = Field(1_024, ge=1, le=100_000)
    commands: int = Field(4, ge=1, le=1_024)
    in_a_row: int = Field(16, ge=1, le=10_000)
    state_kb: int = Field(256, ge=1, le=16_384)
    ticks_per_minute: int = Field(6_000, ge=0, le=60_000_000)
    compute_s_per_day: int = Field(3_600, ge=0, le=86_400)
    storage_mb: int = Field(100, ge=0, le=1_048_576)
    idle_minutes: int = Field(30, ge=0, le=525_600)

    def limits(self) -> TickLimits:
        """As the engine takes them."""
        return TickLimits(
            seconds=self.seconds, tries=self.tries, away_tries=self.away_tries, back_off_ms=self.back_off_ms,
            quarantine=self.quarantine, parallel=self.parallel, open=max(self.open, self.parallel),
            in_a_row=self.in_a_row, state_bytes=self.state_kb << 10, per_minute=self.ticks_per_minute,
            compute_s=self.compute_s_per_day, storage_bytes=self.storage_mb << 20,
        )  # fmt: skip


class InboxSection(Section):
    """The inbox of each agent; `/inbox/overflow` sets another bound for one of them."""

    max_depth: int = Field(1_000, ge=1, le=MOST_DEPTH)
    policy: Literal["reject_new", "drop_oldest", "dead_letter"] = "dead_letter"
    dead_letter_max: int = Field(100, ge=1, le=MOST_DEAD)
    hook_per_minute: int = Field(120, ge=1, le=60_000)

    def overflow(self) -> Overflow:
        """As the inboxes' door takes it."""
        return Overflow(self.max_depth, Policy(self.policy), self.dead_letter_max)


class AgentSection(Section):
    """One agent."""

    name: str = Field(pattern=r"^[a-z][a-z0-9-]{0,30}$")
    program: str = "buyer"
    config: dict[str, Any] = Field(default_factory=dict)
    tick_seconds: float | None = Field(None, ge=0.05, le=3_600)
    ticks_per_minute: int | None = Field(None, ge=0, le=60_000_000)
    compute_s_per_day: int | None = Field(None, ge=0, le=86_400)
    storage_mb: int | None = Field(None, ge=0, le=1_048_576)
    about: str = Field("", max_length=500)
    public: bool = True
    contacts: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    strangers: Literal["none", "pow", "pay", "all"] = "none"
    pow_bits: int = Field(20, ge=0, le=32)
    toll_sat: int = Field(10, ge=0, le=1_000_000)
    per_minute: int = Field(60, ge=0, le=10_000)
    strangers_per_minute: int = Field(60, ge=0, le=100_000)
    mentions: Literal["none", "contacts", "all"] = "contacts"
    acknowledge: bool = False

    @model_validator(mode="after")
    def _check(self) -> "AgentSection":
        if self.name in ("node", "operator"):
            raise ValueError(f"{self.name!r} is the operator's own name")
        for contact in (*self.contacts, *self.deny):
            parse_pubkey(contact)
        return self

    def limits(self) -> Own:
        """What it has instead of the node's limits."""
        storage = None if self.storage_mb is None else self.storage_mb << 20
        return Own(self.tick_seconds, self.ticks_per_minute, self.compute_s_per_day, storage)


class StorageSection(Section):
    """Where the database is."""

    url: str = Field(OWN_FILE, max_length=2_000)
    password_file: str = ""
    unsafe: bool = False

    @model_validator(mode="after")
    def _check(self) -> "StorageSection":
        try:
            check_database(self.url)
        except InvalidInput as error:
            raise ValueError(error.message.rstrip(".")) from error
        if has_password(self.url):
            raise ValueError("the password belongs into password_file or VENDO_DATABASE_PASSWORD, not into the url")
        return self


class ProcessSection(Section):
    """Several processes that share one PostgreSQL database."""

    lease_s: float = Field(15.0, ge=1.0, le=600.0)
    renew_s: float = Field(3.0, ge=0.1, le=60.0)

    @model_validator(mode="after")
    def _check(self) -> "ProcessSection":
        if self.renew_s * 3 > self.lease_s:
            raise ValueError("a lease is renewed at least three times before it ends: renew_s is at most a third of it")
        return self


class MessageSection(Section):
    """Messages of all agents."""

    heartbeat_s: int = Field(300, ge=0, le=86_400)
    blossom: tuple[str, ...] = ()
    max_file_mb: int = Field(8, ge=1, le=1_024)
    files_mb: int = Field(512, ge=1, le=1_048_576)

    @model_validator(mode="after")
    def _check(self) -> "MessageSection":
        for url in self.blossom:
            if not url.startswith(("http://", "https://")):
                raise ValueError(f"a file server's address begins with http:// or https://, not {url!r}")
        return self


class RetentionSection(Section):
    """What is deleted after so many days; 0 keeps it for ever. Nothing of which money is open ever goes."""

    every_minutes: int = Field(60, ge=0, le=10_080)
    inbox_payload_days: int = Field(7, ge=0, le=36_500)
    inbox_days: int = Field(180, ge=0, le=36_500)
    inbox_rows: int = Field(2_000_000, ge=0)
    dead_days: int = Field(90, ge=0, le=36_500)
    tick_days: int = Field(90, ge=0, le=36_500)
    tick_rows: int = Field(1_000_000, ge=0)
    recording_days: int = Field(14, ge=0, le=36_500)
    recording_rows: int = Field(100_000, ge=0)
    log_days: int = Field(30, ge=0, le=36_500)
    log_rows: int = Field(1_000_000, ge=0)
    message_days: int = Field(90, ge=0, le=36_500)
    outbox_days: int = Field(7, ge=0, le=36_500)
    free_days: int = Field(30, ge=0, le=36_500)
    effect_days: int = Field(400, ge=0, le=36_500)
    budget_days: int = Field(90, ge=0, le=36_500)
    rate_days: int = Field(400, ge=0, le=36_500)
    receipt_days: int = Field(720, ge=0, le=36_500)
    relay_list_days: int = Field(90, ge=0, le=36_500)
    identity_days: int = Field(365, ge=0, le=36_500)


class DiskSection(Section):
    """When the disk counts as nearly full."""

    min_free_mb: int = Field(128, ge=0, le=1_048_576)


class Config(Section):
    """A whole configuration."""

    node: NodeSection
    limits: LimitSection = LimitSection()
    fx: FxSection = FxSection()
    wallet: WalletSection = WalletSection()
    lightning: LightningSection = LightningSection()
    policy: PolicySection = PolicySection()
    settlement: SettlementSection = SettlementSection()
    blobs: BlobSection = BlobSection()
    strangers: StrangerSection = StrangerSection()
    keys: KeySection = KeySection()
    messages: MessageSection = MessageSection()
    tick: TickSection = TickSection()
    inbox: InboxSection = InboxSection()
    storage: StorageSection = StorageSection()
    processes: ProcessSection = ProcessSection()
    http: HttpSection = HttpSection()
    relay: RelaySection = RelaySection()
    retention: RetentionSection = RetentionSection()
    disk: DiskSection = DiskSection()
    sell: tuple[SellSection, ...] = ()
    agent: tuple[AgentSection, ...] = ()

    @model_validator(mode="after")
    def _check(self) -> "Config":
        if len({service.kind for service in self.sell}) != len(self.sell):
            raise ValueError("each kind is sold at one price: two [[sell]] tables name the same kind")
        if len({agent.name for agent in self.agent}) != len(self.agent):
            raise ValueError("two [[agent]] tables have the same name")
        if reason := refusal(self.http, self.node.host, shares_port=self.relay.share_port):
            raise ValueError(reason)
        if self.relay.share_port and not self.node.port:
            raise ValueError("[relay] share_port needs a [node] port that stays the same, not 0")
        if "payment" in self.relay.write_by and not self.node.mints:
            raise ValueError('[relay] write_by "payment" needs at least one mint to be paid at')
        if any(not service.tariff().is_free for service in self.sell) and not self.node.mints:
            raise ValueError("a price above zero needs at least one mint to be paid at")
        return self


def parse(text: str) -> Config:
    """Check the text of a configuration.

    Raises:
        ConfigInvalid: with each setting that is wrong, and why.
    """
    try:
        return Config.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ConfigInvalid(f"config.toml is not valid TOML: {error}.") from error
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in one['loc']) or 'file'}: {one['msg']}" for one in error.errors()]
        raise ConfigInvalid("config.toml is not valid: " + "; ".join(lines) + ".") from error


def load(home: Path) -> Config:
    """Read the configuration of a home directory.

    Raises:
        HomeMissing: there is none.
        ConfigInvalid: it is not valid.
    """
    try:
        return parse((home / FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise HomeMissing(f"There is no {FILE} in {home}.") from error


def render(
    *,
    owner: str,
    relays: tuple[str, ...],
    mints: tuple[str, ...],
    port: int,
    name: str = "vendo",
    services: tuple[SellSection, ...] = (),
    passphrase_file: str = "",
    log_n: int = DEFAULT_LOG_N,
    database: str = OWN_FILE,
) -> str:
    """The commented file that `vendo init` writes."""

    def quoted(items: tuple[str, ...]) -> str:
        return "[" + ", ".join(f'"{item}"' for item in items) + "]"

    text = TEMPLATE.format(
        owner=owner,
        relays=quoted(relays),
        mints=quoted(mints),
        port=port,
        name=name,
        passphrase_file=json.dumps(passphrase_file, ensure_ascii=False),  # JSON's strings are TOML's basic strings
        log_n=log_n,
        database=json.dumps(database, ensure_ascii=False),
    )
    for one in services:
        text += f'\n[[sell]]\nkind = {one.kind}\nprice_msat = {one.price_msat}\nprovider = "{one.provider}"\n'
    return text


TEMPLATE = (
    """\
# vendo: one node. Every setting takes effect at the next start (`vendo up`).

[node]
name = "{name}"                 # shown to others (kind 0 and NIP-89 announcements)
about = ""                     # shown to others
host = "127.0.0.1"             # the control plane listens on this machine only; any other address needs [http]
port = {port}                    # 0 takes a free port; `vendo up` prints it
owner = "{owner}"              # whose DMs the agents answer; nobody else's cost anything
relays = {relays}              # where everything is published and read
indexers = []                  # relays where people publish their relay lists; ours go there too
mints = {mints}                # the only Cashu mints that are ever asked or trusted
network = "bitcoin"            # the only one whose Lightning invoices count; coins of the others are worth nothing

[limits]                       # no job, day or seller can cost more than this, fees included
unit = "uusd"                  # "uusd" counts dollars at the rate of [fx]; "msat" needs no rate
per_job_usd = "0.10"           # for one job
per_day_usd = "1.00"           # for all jobs of one day (UTC)
per_seller_usd = "0.50"        # to one seller in one day
per_job_msat = 100000          # these three count when unit = "msat"
per_day_msat = 1000000         # for all jobs of one day (UTC)
per_seller_msat = 500000       # to one seller in one day

"""
    + FX_TEMPLATE
    + WALLET_TEMPLATE
    + LIGHTNING_TEMPLATE
    + MARKET_TEMPLATE
    + SETTLEMENT_TEMPLATE
    + BLOB_TEMPLATE
    + """\
[keys]                         # the seed words at rest (`vendo key encrypt`), and keys that were replaced
passphrase_from = ["environment", "file", "keyring", "prompt"]  # who is asked for the passphrase, in this order
passphrase_file = {passphrase_file}           # for "file": its first line; it must be readable by its owner alone
scrypt_log_n = {log_n}              # what a try of a passphrase costs: 16 is 64 MiB and 0.3 s; each step doubles both
retired_days = 30              # how long a replaced key still opens what is sent to it
agent_kinds = [1, 7, 1111, 1985, 30023, 31989]  # what agents may sign by themselves; messages and lists go other ways
nip05_domain = ""              # agents are then NAME@domain (NIP-05), once the domain serves their names

[[agent]]
name = "agent"                 # a-z, 0-9 and -; `vendo send agent "summarize: ..."`
program = "buyer"              # turns a DM into a job and its result into the answer
config = {{}}                    # its program's own settings: {{ name = "value" }}
# tick_seconds = 30.0          # its own limits, instead of those of [tick]: how long one of its ticks may take
# ticks_per_minute = 6000      # its ticks; 0 is no limit, here and below
# compute_s_per_day = 3600     # its code, in all, per day (UTC)
# storage_mb = 100             # what it keeps
about = ""                     # shown to others in its profile
public = true                  # publish its profile, relay lists and, if strangers may write, an announcement
contacts = []                  # npubs that may write to it besides the owner
deny = []                      # npubs that may not, whatever else holds
strangers = "none"             # everybody else: "none" (not heard), "pow", "pay" (a Cashu token in it), or "all"
pow_bits = 20                  # for "pow": leading zero bits that a message's wrap needs (NIP-13)
toll_sat = 10                  # for "pay": what a stranger's first message brings; it then counts for 30 days
per_minute = 60                # messages of one sender; those of ten minutes may come at once
strangers_per_minute = 60      # messages of all strangers together
mentions = "contacts"          # whose public notes that name it reach its inbox: "none", "contacts", "all"
acknowledge = false            # answer a message that was taken with a ✓

[tick]                         # one tick is all that an agent does for one trigger
seconds = 30.0                 # how long it may take; then nothing of it is kept
tries = 5                      # so often is a trigger tried; then it is in the dead letter
away_tries = 15                # the same where an agent's webhook does not answer: about three hours
back_off_ms = 500              # the wait before the second try; doubled before each more
quarantine = 15                # so many failed ticks in a row, and the agent is set aside until it is released
parallel = 32                  # agents that compute at once
open = 1024                    # ticks at once, with those that wait for something outside
commands = 4                   # processes of agents that are commands, at once
in_a_row = 16                  # ticks of one agent before others that wait have a turn
state_kb = 256                 # an agent's state, as JSON
ticks_per_minute = 6000        # of one agent; those of a minute may come at once; 0 is no limit, here and below
compute_s_per_day = 3600       # one agent's code, in all, per day (UTC)
storage_mb = 100               # what one agent keeps: state, values, goals
idle_minutes = 30              # if over 500 agents are awake, those without a tick for so long hibernate; 0: never

[inbox]                        # what waits for an agent; /inbox/overflow sets another bound for one of them
max_depth = 1000               # so many triggers; jobs, payments and alarms always come in
policy = "dead_letter"         # what becomes of the next one: also "reject_new", or "drop_oldest"
dead_letter_max = 100          # what the agent failed at, or had no room for; then newcomers without room are dropped
hook_per_minute = 120          # authentic calls of one webhook; all of them may come at once

[storage]
url = {database}  # or "postgresql://USER@HOST/DATABASE", which several processes may share
password_file = ""             # PostgreSQL's password: the first line of a file; VENDO_DATABASE_PASSWORD goes first
unsafe = false                 # true takes a PostgreSQL that may lose what it acknowledged (fsync off): for tests

[processes]                    # several that share one PostgreSQL database; one alone needs none of this
lease_s = 15.0                 # one that is not heard of for so long is put out, and others go on with its work
renew_s = 3.0                  # how often each says that it is there; at most a third of lease_s

[messages]
heartbeat_s = 300              # how often agents that strangers may write to say that they are there; 0: never
blossom = []                   # Blossom servers where files that agents send are put, encrypted; the first must take it
max_file_mb = 8                # the largest file that is fetched for a contact, or sent
files_mb = 512                 # all files that are kept; then the oldest go

"""
    + HTTP_TEMPLATE
    + """
[relay]                        # the node's own relay; `vendo relay up` runs it alone with the same settings
enabled = false                # true: it starts and ends with the node, as a process of its own
host = "127.0.0.1"             # where it listens; "0.0.0.0" or "::" is the whole world
port = 7777                    # 0 takes a free one
public_url = ""                # its address for others, if a proxy or a name stands before it: "wss://relay.example.com"
share_port = false             # also answer on the control plane's port; only for this machine
name = "vendo relay"           # shown to others
about = "The relay inside a vendo node."  # shown to others
contact = ""                   # shown to others: an address or URI of its operator
max_mb = 4096                  # size of its event file; then new events are refused
retention = []                 # as in NIP-11, the first for a kind holds: {{kinds = [[5000, 7000]], time = 604800}}
trim = 0.0                     # 0.9: the oldest ordinary events go when the file is so full; 0.0: new ones are refused
private_messages = "parties"   # kinds 4, 1059 and 21059 go to their "parties" only (NIP-42), or to "everybody"
read_by = "open"               # who reads: "open", "auth" (any key that proved itself), "key" (one of `keys`)
write_by = []                  # who writes; any one is enough, none is everybody: "key", "pow", "payment"
auth_to_write = false          # whether writers must have proved a key
keys = []                      # npubs that belong to it; gift wraps to them are taken as well
denied_keys = []               # npubs whose events are refused
kinds = []                     # kinds that are taken, "1059" or "5000-5999"; none is all
denied_kinds = []              # kinds that are not
addresses = []                 # networks that may connect, "10.0.0.0/8"; none is all
denied_addresses = []          # networks that may not
proxies = []                   # your reverse proxies: their X-Forwarded-For is believed
trusted = []                   # npubs of nodes whose key lists are believed without consents
pow_bits = 20                  # for "pow" (NIP-13)
price_sat = 1000               # for "payment": a Cashu token of one of [node] mints buys `paid_days`
paid_days = 30                 # for "payment"
events_per_minute = 6000       # from one address; a third of it may come at once; 0 is no limit, here and below
events_per_minute_and_key = 3000  # by one author
requests_per_minute = 1200     # from one address
auths_per_minute = 120         # from one address
megabytes_per_minute = 120     # from one address; more is read more slowly
connects_per_minute = 120      # new connections from one address
connections_per_address = 50   # open ones
connections = 1000             # in all
unlimited = ["127.0.0.0/8", "::1/128"]  # networks to which no rate applies

[retention]                    # what goes after so many days, a little at a time; 0 keeps it. Never of open money
every_minutes = 60             # how often it is looked for; 0: only when `vendo gc` is run
inbox_payload_days = 7         # a trigger that was dealt with loses what it said; its id stays known
inbox_days = 180               # then its id is forgotten: the same trigger would be acted on again
inbox_rows = 2000000           # or when there are more than so many; then the oldest go. 0: any number, here and below
dead_days = 90                 # dead letters that nobody handed out again
tick_days = 90                 # what is known of each tick
tick_rows = 1000000            # the oldest go beyond that
recording_days = 14            # what `vendo replay` needs
recording_rows = 100000        # the oldest go beyond that
log_days = 30                  # agents' traces
log_rows = 1000000             # the oldest go beyond that
message_days = 90              # messages, in and out
outbox_days = 7                # events that relays have taken or refused
free_days = 30                 # effects that moved no money, with their jobs and sales; their idempotency keys too
effect_days = 400              # the same where money moved, with the wallet's operations; sums stay in the books
budget_days = 90               # what was spent on a day
rate_days = 400                # rates that were used
receipt_days = 720             # what others' receipts say of sellers; older ones count for nothing anyway
relay_list_days = 90           # where others read and write; looked up again when needed
identity_days = 365            # replaced keys, beyond [keys] retired_days

[disk]
min_free_mb = 128              # with less room new work is refused, open money is finished; 0: only a full disk counts
"""
    + SELL_TEMPLATE
)
