"""Names for the event kinds that this node uses, and NIP-01's storage classes. Pure."""

METADATA = 0  # NIP-01
NOTE = 1  # NIP-01: a public text
LEGACY_DM = 4  # NIP-04
DELETION = 5  # NIP-09
REACTION = 7  # NIP-25
SEAL = 13  # NIP-59
DM = 14  # NIP-17
FILE = 15  # NIP-17
GIFT_WRAP = 1059  # NIP-59
LABEL = 1985  # NIP-32
LEDGER_ENTRY = 2790  # ours: one signed entry of an effect ledger; never published by itself
BACKUP = 2791  # ours: a node signs what its backup holds; never published
FIRST_REQUEST, LAST_REQUEST = 5000, 5999  # NIP-90
SUMMARY_REQUEST = 5001
TEXT_REQUEST = 5050
DISCOVERY_REQUEST = 5300
POW_REQUEST = 5970
FIRST_RESULT, LAST_RESULT = 6000, 6999
JOB_FEEDBACK = 7000
NUTZAP_REDEEMED = 7376  # NIP-60, NIP-61
NUTZAP = 9321  # NIP-61
ZAP_REQUEST = 9734  # NIP-57
ZAP_RECEIPT = 9735  # NIP-57
RELAY_LIST = 10002  # NIP-65
NUTZAP_INFO = 10019  # NIP-61
DM_RELAYS = 10050  # NIP-17
BLOSSOM_SERVERS = 10063  # BUD-03
HEARTBEAT = 11998  # a provider is up; replaceable, with an expiration
EPHEMERAL_GIFT_WRAP = 21059  # NIP-59
CLIENT_AUTH = 22242  # NIP-42
KEY_LIST = 22243  # ours: keys that one AUTH speaks for (docs/reference/wire.md)
KEY_CONSENT = 22244  # ours: a key agrees to be on such a list
BLOSSOM_AUTH = 24242  # BUD-01
HTTP_AUTH = 27235  # NIP-98
APP_DATA = 30078  # NIP-78
HANDLER_RECOMMENDATION = 31989  # NIP-89
HANDLER = 31990  # NIP-89


def is_request(kind: int) -> bool:
    """Whether it is a job request (NIP-90)."""
    return FIRST_REQUEST <= kind <= LAST_REQUEST


def is_result(kind: int) -> bool:
    """Whether it is a job result (NIP-90)."""
    return FIRST_RESULT <= kind <= LAST_RESULT


def result_of(kind: int) -> int:
    """The result's kind for a request's: always 1000 more (NIP-90)."""
    return kind + 1000


def is_replaceable(kind: int) -> bool:
    """Whether only the newest event per author is kept (NIP-01)."""
    return kind in (0, 3) or 10_000 <= kind < 20_000


def is_ephemeral(kind: int) -> bool:
    """Whether relays pass it on without keeping it (NIP-01)."""
    return 20_000 <= kind < 30_000


def is_addressable(kind: int) -> bool:
    """Whether only the newest event per author and `d` tag is kept (NIP-01)."""
    return 30_000 <= kind < 40_000
