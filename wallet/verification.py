"""Is this payment good? Everything that can be known without the mint comes first, cheapest first, the mint last."""

import json
from dataclasses import replace

from core.money import Msat
from wallet.cashu.book import KeysetBook
from wallet.cashu.keyset import fee
from wallet.cashu.lock import HashLock, Lock, read_hash_lock, read_key_lock, read_lock, revealed
from wallet.cashu.port import CoinState
from wallet.cashu.proof import Proof, total
from wallet.cashu.signature import is_signed, was_signed
from wallet.cashu.token import Payment
from wallet.error import TokenForged, TokenKeyset, TokenLock, TokenQuote, TokenSpent, TokenTooSmall, TokenUnit
from wallet.model import Unlock, VerifyTerms
from wallet.record import Plan

MAX_COINS = 64


def check_locks(payment: Payment, terms: VerifyTerms) -> int:
    """The earliest locktime, once every coin is locked to us alone for long enough.

    Raises:
        TokenQuote: it names another quote.
        TokenUnit: not in sat.
        TokenLock: another condition, another key, or too short.
        TokenTooSmall: even without fees.
    """
    if payment.id != terms.quote_id:
        raise TokenQuote
    if payment.unit != "sat":
        raise TokenUnit
    if len(payment.proofs) > MAX_COINS:
        raise TokenLock("The payment has too many coins to be worth claiming.")
    if Msat.of_sat(total(payment.proofs)).value < terms.price.value:
        raise TokenTooSmall
    locks = [_lock(proof.secret, terms) for proof in payment.proofs]
    earliest = min(lock.locktime for lock in locks)
    if earliest < terms.min_locktime:
        raise TokenLock("The payment can be taken back too early.")
    return earliest


def _lock(secret: str, terms: VerifyTerms) -> Lock | HashLock:
    if not terms.hash:
        lock = read_lock(secret)
        if lock.pubkey != terms.wallet_pubkey:
            raise TokenLock("A coin is locked to another key.")
        return lock
    sealed = read_hash_lock(secret)
    if (sealed.hash, sealed.seller, sealed.cosigner) != (terms.hash, terms.wallet_pubkey, terms.cosigner):
        raise TokenLock("A coin is locked to another hash or other keys.")
    return sealed


def check_given(payment: Payment, pubkey: str, not_before: int, giver: str) -> None:
    """Whether each coin was given to us alone (NIP-61): locked to `pubkey`, written just so, and to nobody else soon.

    Args:
        payment: the coins, as their sender says.
        pubkey: compressed hex, with the sign that was announced.
        not_before: Unix seconds before which no lock may open to others.
        giver: who says to have sent them, a Nostr key. What is public can be shown by others as well: a lock that names
            its sender counts for that one alone.

    Raises:
        TokenUnit: not in sat.
        TokenLock: no lock, another condition, another key, or one that opens to others too early.
    """
    if payment.unit != "sat":
        raise TokenUnit
    if len(payment.proofs) > MAX_COINS:
        raise TokenLock("The payment has too many coins to be worth claiming.")
    for proof in payment.proofs:
        lock = read_key_lock(proof.secret)
        if lock.pubkey != pubkey:
            raise TokenLock("A coin is locked to another key.")
        if lock.locktime is not None and lock.locktime < not_before:
            raise TokenLock("A coin can be taken by others too early.")
        if lock.giver not in ("", giver):
            raise TokenLock("A coin says that somebody else has sent it.")


async def check_coins(payment: Payment, book: KeysetBook, *, needs_dleq: bool = True) -> tuple[Proof, ...]:
    """The coins under their keysets' whole ids, each shown to be signed by the mint (NUT-12).

    Raises:
        TokenKeyset: a keyset or amount that the mint does not have.
        TokenForged: a coin whose DLEQ is missing or does not hold.
    """
    coins = []
    for proof in payment.proofs:
        whole = replace(proof, keyset=await book.expand(proof.keyset))
        key = (await book.keys(whole.keyset)).keys.get(whole.amount)
        if key is None:
            raise TokenKeyset("A coin has an amount that its keyset does not have.")
        if (needs_dleq or whole.dleq is not None) and not was_signed(whole, key):
            raise TokenForged
        coins.append(whole)
    return tuple(coins)


def net_worth(coins: tuple[Proof, ...], book: KeysetBook) -> int:
    """What swapping these coins leaves, in the unit."""
    return total(coins) - fee((coin.keyset for coin in coins), book.infos)


def check_worth(coins: tuple[Proof, ...], book: KeysetBook, terms: VerifyTerms, locktime: int) -> Msat:
    """What a claim leaves.

    Raises:
        TokenTooSmall: less than the price.
        TokenKeyset: a keyset ends before the lock does, or the mint has withdrawn it since the coins were checked.
    """
    for coin in coins:
        info = book.infos.get(coin.keyset)  # between there and here another task may have asked the mint again
        if info is None:
            raise TokenKeyset
        if info.final_expiry is not None and info.final_expiry <= locktime:
            raise TokenKeyset("A coin's keyset ends before its lock.")
    net = Msat.of_sat(net_worth(coins, book))
    if net.value < terms.price.value or net.value <= 0:
        raise TokenTooSmall
    return net


async def check_unspent(coins: tuple[Proof, ...], book: KeysetBook) -> None:
    """Ask the mint (NUT-07).

    Raises:
        TokenSpent: a coin is spent or in use.
        Unavailable: the mint does not answer.
    """
    reports = await book.mint.states([coin.y for coin in coins])
    if any(report.state is not CoinState.UNSPENT for report in reports.values()):
        raise TokenSpent


def unlocked(digest: str, coins: tuple[Proof, ...], unlock: Unlock, wallet_pubkey: str) -> Plan:
    """The plan to spend coins that are locked to a hash. A mint that refuses it has seen the preimage: all is checked.

    Raises:
        TokenLock: the preimage is another one's, a coin is locked to another key, or is not co-signed.
    """
    locks = [read_hash_lock(coin.secret) for coin in coins]
    given = revealed(json.dumps({"preimage": unlock.preimage}), locks[0].hash)
    if given is None or any(lock.hash != locks[0].hash or lock.seller != wallet_pubkey for lock in locks):
        raise TokenLock("A coin is locked to another hash or key.")
    if not any(lock.cosigner for lock in locks):
        return Plan(digest, coins, ("wallet",), preimage=given)
    if len(unlock.cosigned) != len(coins):
        raise TokenLock("The payment is not co-signed.")
    cosigned = {coin.secret: signature for coin, signature in zip(coins, unlock.cosigned, strict=True)}
    if not all(
        is_signed(coin.secret, cosigned[coin.secret], lock.cosigner) for coin, lock in zip(coins, locks, strict=True)
    ):
        raise TokenLock("A coin is not co-signed by the key that its lock names.")
    return Plan(digest, coins, ("wallet",), preimage=given, cosigned=cosigned)
