"""What `Wallet.verify` finds of a payment before it asks the mint, with the product's own checks."""

from typing import Any

from core.money import Msat
from tests.simulation.pure.mint import Mint
from tests.simulation.pure.paper import Book, paper
from wallet import verification
from wallet.error import TokenQuote, TokenSpent
from wallet.model import VerifyTerms


def appraised(node: Any, body: dict[str, Any], terms: VerifyTerms) -> tuple[Mint, tuple[str, ...], Msat, int]:
    """Its mint, its coins, what claiming them leaves, and the earliest locktime.

    Raises:
        TokenRejected: with the reason as its type.
    """
    mint = next((mint for mint in node.mints if mint.url == body["mint"]), None)
    if mint is None or mint.url not in terms.mints:
        raise TokenQuote
    payment = paper(body)
    locktime = verification.check_locks(payment, terms)
    book = Book(mint)
    coins = at_once(verification.check_coins(payment, book))
    net = verification.check_worth(coins, book, terms, locktime)
    names = tuple([coin.name for coin in body["coins"]])
    if any(node.incoming.get(name, terms.quote_id) != terms.quote_id for name in names):
        raise TokenSpent
    return mint, names, net, locktime


def unspent(mint: Mint, names: tuple[str, ...]) -> bool:
    """NUT-07, at the mint."""
    return not any(name in mint.spent or name in mint.pending for name in names)


def at_once(work: Any) -> Any:
    """The result of a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("it waited")
