"""Whether locked coins were really taken by the key that they were locked to. Asks the mint, and changes nothing."""

from core.money import Msat
from wallet.cashu.book import KeysetBook
from wallet.cashu.port import CoinState
from wallet.cashu.proof import total
from wallet.cashu.signature import signed_by
from wallet.cashu.token import Payment
from wallet.error import NotProven
from wallet.verification import check_coins


async def check_taken(payment: Payment, book: KeysetBook, pubkey: str) -> Msat:
    """What the coins were worth.

    Each was signed by the mint (NUT-12), is spent (NUT-07), and was spent with a signature of `pubkey` (NUT-11): a coin
    that went back to whoever locked it shows another key's.

    Raises:
        NotProven: one of these is not so, or the mint does not say by which signature a coin was spent.
        TokenKeyset, TokenForged: the coins are not this mint's.
        Unavailable: the mint does not answer.
    """
    coins = await check_coins(payment, book)
    reports = await book.mint.states([coin.y for coin in coins])
    for coin in coins:
        report = reports[coin.y]
        if report.state is not CoinState.SPENT:
            raise NotProven("A coin of the receipt is not spent.")
        if not signed_by(coin.secret, report.witness, pubkey):
            raise NotProven("A coin of the receipt was not taken by the seller.")
    return Msat.of_sat(total(coins))
