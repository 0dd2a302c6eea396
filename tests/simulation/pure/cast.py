"""Who can be in a history, what they may want, and what can go wrong. Plain values, so that a plot can shrink."""

from dataclasses import dataclass

HONEST = "honest"
# How honest sellers are paid: locked ecash, a sealed result (in mode B, or as well in mode A), an invoice before the
# work, a deposit, an invoice after the work.
PLAIN, SEALED, ORDERED, INVOICED, PREPAID, LENT = "", "sealed", "ordered", "invoiced", "prepaid", "lent"
# Sellers that are no nodes of ours.
ROGUES = (
    "sleeper", "thief", "quitter", "tardy", "junk", "late claim", "promiser", "donor", "giver", "wrong key", "changer",
    "dear", "foreign", "expired", "slow", "implicit", "decliner", "usurer", "double", "mute",
)  # fmt: skip
# Sellers of sealed results: what they publish is not what they signed, or they come when it is too late.
SEAL_ROGUES = (
    "wrong ciphertext", "other key", "empty seal", "switched seal", "keeps the co-signature", "latecomer",
    "silent", "blank",
)  # fmt: skip
ORDER_ROGUES = (*SEAL_ROGUES, "breaks an order off", "gives what was ordered")
# Machines with a Lightning node of their own. The first two are honest.
MACHINES = (
    "machine", "machine afterwards", "paid and gone", "paid and late", "wrong amount", "ended invoice",
    "other network", "one invoice for all", "junk for an invoice",
)  # fmt: skip
# Customers and bystanders that are none.
STRANGERS = (
    "spam from fresh keys", "flood of one key", "forged receipts", "impostor", "deleter", "token for two quotes",
    "replayed token", "short lock", "lock to another key", "small token", "forged token", "forged second coin",
    "token for another quote", "foreign mint", "early refund", "late payment", "fetch", "bystander",
)  # fmt: skip
SEAL_STRANGERS = (
    "too short a lock", "never signs", "signs wrongly", "lock to another hash", "another co-signer",
    "takes back too early",
)  # fmt: skip
ORDER_STRANGERS = ("orders and leaves",)
# Sellers that hold deposits, and customers that draw on theirs (ADR 27).
DEPOSITARIES = (
    "never says its terms", "takes no deposit", "terms of a thief", "refuses the deposit", "silent with the deposit",
    "keeps the deposit", "counts too much", "counts an old voucher", "gives back too little", "gives back junk",
    "gives back spent coins", "gives back and takes nothing", "gives back and takes at last",
    "draws and delivers nothing", "says that it delivered", "closes unasked", "takes at the last moment",
    "says it at the last moment",
)  # fmt: skip
DEPOSITORS = (
    "voucher twice", "lower voucher", "voucher of another deposit", "voucher above the deposit",
    "voucher with another key", "voucher for another request", "closes at work", "takes the deposit back",
    "asks all the time", "too short a deposit", "too small a deposit", "deposit to another key", "forged deposit",
    "coins for two deposits", "speaks for others",
)  # fmt: skip
# Who gives in public (NIP-61): some pay so, some cheat.
GIVERS = (
    "pays by nutzap", "pays in parts", "pays by nutzap and by invoice", "pays by nutzap too late", "nutzap too large",
    "nutzap for nothing", "replayed nutzap", "nutzap for two jobs", "nutzap to another key", "nutzap of a foreign mint",
    "nutzap of spent coins", "forged nutzap", "nutzap that ends", "nutzap in another's name", "copies nutzaps",
    "gives and takes back",
)  # fmt: skip
# Customers that have work done before they pay.
BORROWERS = (
    "never pays a result", "pays a result twice", "pays a result late", "borrows without end", "a stranger borrows",
    "asks again for a result", "pays a result by nutzap",
)  # fmt: skip
PAYERS = ("pays and asks again", "pays too late", "cancels and pays", "never pays")  # fmt: skip
FAULTS = (
    "drop", "repeat", "reorder", "delay", "partition", "lost OK", "forge",
    "mint: request lost", "mint: answer lost", "mint: late request", "mint: false answer", "mint: away",
    "mint: refuses", "mint: busy", "mint: stalls", "mint: stalls long", "mint: blind", "mint: keyset rotates",
    "mint: signs a part", "clumsy provider", "no room in the budget", "no funds", "no funds at one mint",
    "clock stands still", "mint: hides the key", "mint: pays slowly", "mint: says pending for ever",
    "mint: cannot pay", "mint: shows another preimage",
)  # fmt: skip
SEAL_FAULTS = ("mint: hides the key",)
MELT_FAULTS = FAULTS[-4:]
COMMON_FAULTS = FAULTS[:-5]
PREPAID_FAULTS = ("voucher lost",)
NWC_FAULTS = (
    "nwc: away", "nwc: request lost", "nwc: late request", "nwc: answer lost", "nwc: turns away", "nwc: cannot pay",
    "nwc: says failed and pays", "nwc: lies for long", "nwc: pays slowly", "nwc: shows another preimage", "nwc: blind",
    "nwc: finds nothing",
)  # fmt: skip
FAULTS += (*PREPAID_FAULTS, *NWC_FAULTS)
# Where nodes die: the label of what was persisted last.
BUYER_POINTS = (
    "staged/none", "quoting/none", "paying/locking", "working/locked", "working/claimed", "delivered/locked",
    "delivered/claimed", "delivered/refunding", "delivered/refunded", "delivered/none", "fallback/none",
    "fallback/locked", "fallback/claimed", "fallback/locking", "fallback/refunding", "failed/none", "failed/locking",
    "failed/locked", "failed/claimed", "failed/refunding", "failed/refunded", "cancelled/none", "cancelled/locking",
    "cancelled/locked", "cancelled/claimed", "cancelled/refunding", "cancelled/refunded",
)  # fmt: skip
SEALED_POINTS = ("ordered/none", "sealed/locked", "sealed/claimed", "sealed/refunding")
BALANCE_POINTS = (
    *(
        f"buyer balance {name}"
        for name in (
            "asked", "locking", "sent", "open", "closing", "taking", "returned", "refunding", "failed", "closed",
            "refunded", "lost",
        )
    ),
    *(f"seller balance {name}" for name in ("open", "claiming", "returning", "closed", "released", "lost")),
    *(f"buyer receive {name}" for name in ("prepared", "unknown", "done", "refused")),
    *(f"seller send {name}" for name in ("prepared", "unknown", "done", "refused")),
)  # fmt: skip
GIFT_POINTS = tuple(f"seller tip {name}" for name in ("seen", "taken", "kept", "owed", "repaid", "refused"))
SELLER_POINTS = ("quoted", "working", "delivered", "done", "expired", "failed", "lost", "cancelled", "incoming coins")
INVOICED_POINTS = ("invoicing", "lapsed", "owed", "repaid")
WALLET_POINTS = {
    "buyer": (
        "lock prepared", "lock unknown", "lock done", "lock refused", "refund prepared", "refund unknown",
        "refund done", "refund refused", "melt prepared", "melt unknown", "melt done", "melt refused",
        "deposit waiting", "deposit prepared", "deposit unknown", "deposit done",
        "deposit refused",
    ),
    "seller": (
        "claim prepared", "claim unknown", "claim done", "claim refused", "deposit waiting", "deposit prepared",
        "deposit unknown", "deposit done", "deposit refused",
    ),
}  # fmt: skip
POINTS = (
    *(f"buyer {name}" for name in (*BUYER_POINTS, *SEALED_POINTS, *WALLET_POINTS["buyer"])),
    *(f"seller {name}" for name in (*SELLER_POINTS, "sealed", *INVOICED_POINTS, *WALLET_POINTS["seller"])),
)
LENT_POINTS = ("seller billed",)
NWC_POINTS = tuple(f"buyer nwc {name}" for name in ("prepared", "sent", "unknown", "waiting", "paid", "failed"))
ALL_POINTS = (*POINTS, *BALANCE_POINTS, *GIFT_POINTS, *LENT_POINTS, *NWC_POINTS)


# Not together: what is refused for good is taken to be refused in every copy (docs/explanation/simulation.md).
DOUBTFUL = {"mint: late request", "mint: refuses"}


@dataclass(frozen=True)
class Stall:
    """One seller: what it asks (msat), at which mints (a mask), of what sort it is, and how it is paid."""

    price: int
    mints: int = 3
    style: str = HONEST
    way: str = PLAIN


@dataclass(frozen=True)
class Job:
    """What the buyer wants, and when (ms)."""

    at: int = 0
    maximum: int = 20_000  # µUSD, or msat where the budget is in msat
    cancel_at: int | None = None
    free: bool = False
    route: tuple[str, ...] = ("dvm", "builtin")
    modes: tuple[str, ...] = ()  # in which a sealed result is taken
    invoices: bool = False  # whether invoices are paid


@dataclass(frozen=True)
class Balance:
    """A deposit that a buyer opens at a seller: at which one, how large, when, and when it is closed by hand (ms)."""

    stall: int = 0
    sat: int = 20
    at: int = 0
    close_at: int | None = None


@dataclass(frozen=True)
class Crash:
    """The first node that persists something under this label dies, before or after, and is away for `down` ms."""

    point: str
    before: bool = False
    down: int = 200
    number: int = 1


@dataclass(frozen=True)
class Plot:
    """One history. Everything in it follows from this."""

    seed: int
    stalls: tuple[Stall, ...]
    jobs: tuple[Job, ...] = (Job(),)
    faults: tuple[str, ...] = ()
    strangers: tuple[str, ...] = ()
    crashes: tuple[Crash, ...] = ()
    unit: str = "uusd"
    buyers: int = 1
    deposit: bool = False
    margin_s: int = 300
    balances: tuple[Balance, ...] = ()  # of each buyer
    nwc: bool = False  # whether buyers have a Lightning wallet of their own
    gifts: bool = False  # whether sellers take nutzaps
    lasts_s: int = 300  # after so long a deposit can be taken back
    apart_s: int = 60  # before that: nothing more is drawn on it
    groups: int = 1  # a request goes to the sellers of one group; many in a large history

    @property
    def nodes(self) -> int:
        return self.buyers + len(self.stalls)
