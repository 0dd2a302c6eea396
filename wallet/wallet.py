"""The wallet: deposits, payments locked to sellers, claims, refunds, tokens. The only driver of mints in the node.

An operation is known by an id that the caller chooses; the same id gives the same result and never a second payment.
Its effect has already begun at the gate: the permit is asked for before anything is written and at every call that
changes something at a mint.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import orjson

from core.clock import Clock
from core.effect import Permit
from core.error import Conflict, InvalidInput, NotFound, Unavailable
from core.identifier import EffectId, OperationId, derived_id
from core.money import Msat
from core.unit import Among, UnitOfWork, Write
from relays.key import Keyring
from wallet.auditor import Auditor
from wallet.cashu.book import KeysetBook
from wallet.cashu.curve import is_point
from wallet.cashu.derive import Derivation
from wallet.cashu.lock import condition, read_lock
from wallet.cashu.mint import canonical_url
from wallet.cashu.port import CoinState, Mint, QuoteState
from wallet.cashu.proof import Proof, total
from wallet.cashu.token import Payment, decode, encode, from_payload, to_payload
from wallet.engine import Engine
from wallet.error import (
    InsufficientFunds,
    MintLied,
    MintRefused,
    MintRejected,
    MintUnlisted,
    OperationReused,
    PaymentUnknown,
    TokenLock,
    TokenMint,
    TokenReused,
    TokenSpent,
    TokenUnit,
    TooDear,
)
from wallet.invoice import MAINNET, check_invoice
from wallet.journal import postings
from wallet.keeper import Keeper
from wallet.model import (
    Audit,
    Balance,
    Deposit,
    Locked,
    LockTerms,
    OperationResult,
    OperationView,
    Received,
    Restored,
    SpentState,
    VerifiedPayment,
    VerifyTerms,
)
from wallet.payment import Kind, Operation, QuoteExpired, QuotePaid, Restarted, State
from wallet.planner import Planned, Planner, lock_cost
from wallet.purse import OPEN, Purse, Stored
from wallet.record import Plan, Vault
