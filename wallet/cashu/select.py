"""Which coins to spend, and which to ask for. Few coins: every input costs a fee. Pure."""

from collections.abc import Mapping, Sequence

from wallet.cashu.keyset import KeysetInfo, fee
from wallet.cashu.proof import Proof, total

MAX_INPUTS = 200
_EXACT_TRIES = 4_096
_MANY = 24
_TIDY_INPUTS = 10


def split(amount: int) -> list[int]:
    """The fewest powers of two that sum to it, rising."""
    return [1 << bit for bit in range(amount.bit_length()) if amount >> bit & 1]


def with_fee(net: int, ppk: int) -> int:
    """The least sum whose coins, one per power of two, are worth `net` after the fee for spending them."""
    gross = net
    while gross - -(-gross.bit_count() * ppk // 1000) < net:
        gross += 1
    return gross


def select(coins: Sequence[Proof], amount: int, infos: Mapping[str, KeysetInfo]) -> tuple[Proof, ...] | None:
    """Coins worth at least `amount` after the fee for spending them, or None if they do not suffice.

    An exact sum wins, since it leaves no change to pay for later; then the fewest coins; then the least change.
    """

    def covers(chosen: Sequence[Proof]) -> int:
        return total(chosen) - _due(chosen, infos) - amount

    ranked = sorted(coins, key=lambda coin: coin.amount, reverse=True)[:MAX_INPUTS]
    if covers(ranked) < 0:
        return None
    greedy: list[Proof] = []
    for coin in ranked:
        greedy.append(coin)
        if covers(greedy) >= 0:
            break
    # Replace the last coin by the smallest that still does, then drop what became needless.
    for coin in reversed(ranked):
        if coin not in greedy and covers([*greedy[:-1], coin]) >= 0:
            greedy[-1] = coin
            break
    for coin in sorted(greedy, key=lambda coin: coin.amount):
        rest = [other for other in greedy if other is not coin]
        if rest and covers(rest) >= 0:
            greedy = rest
    exact = _exact(ranked, amount, infos, max(_TIDY_INPUTS, len(greedy)))
    if exact is not None and _due(exact, infos) <= _due(greedy, infos):
        return exact
    return tuple(_tidied(greedy, ranked, infos))


def _due(chosen: Sequence[Proof], infos: Mapping[str, KeysetInfo]) -> int:
    return fee((coin.keyset for coin in chosen), infos)


def _tidied(chosen: list[Proof], ranked: Sequence[Proof], infos: Mapping[str, KeysetInfo]) -> list[Proof]:
    """With many coins about, the smallest come along as long as the fee, which is rounded up, stays the same."""
    if len(ranked) <= _MANY:
        return chosen
    due = _due(chosen, infos)
    for coin in reversed(ranked[_MANY // 2 :]):
        more = [*chosen, coin]
        if coin not in chosen and len(more) <= _TIDY_INPUTS and _due(more, infos) == due:
            chosen = more
    return chosen


def _exact(
    ranked: Sequence[Proof], amount: int, infos: Mapping[str, KeysetInfo], most: int
) -> tuple[Proof, ...] | None:
    """An exact sum with at most `most` coins, looked for greedily and in bounded time."""
    tries = 0

    def search(start: int, chosen: tuple[Proof, ...], left: int) -> tuple[Proof, ...] | None:
        nonlocal tries
        tries += 1
        if tries > _EXACT_TRIES:
            return None
        due = _due(chosen, infos)
        if chosen and left + due == 0:
            return chosen
        if len(chosen) == most or left + due <= 0:
            return None
        last = 0
        for index in range(start, len(ranked)):
            coin = ranked[index]
            # A coin far above what is left cannot lead to an exact sum; equal amounts need one try only.
            if coin.amount == last or coin.amount > left + most + 1:
                continue
            last = coin.amount
            found = search(index + 1, (*chosen, coin), left - coin.amount)
            if found is not None:
                return found
        return None

    return search(0, (), amount)
