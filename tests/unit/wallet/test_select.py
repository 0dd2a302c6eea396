from hypothesis import given
from hypothesis import strategies as st

from wallet.cashu.keyset import KeysetInfo, fee
from wallet.cashu.proof import Proof, total
from wallet.cashu.select import select, split, with_fee

KEYSET = "01" + "00" * 32
powers = st.lists(st.integers(0, 10).map(lambda bit: 1 << bit), min_size=1, max_size=40)


def coins(amounts: list[int]) -> list[Proof]:
    return [Proof(KEYSET, amount, f"secret-{place}", "02") for place, amount in enumerate(amounts)]


def infos(ppk: int) -> dict[str, KeysetInfo]:
    return {KEYSET: KeysetInfo(KEYSET, "sat", True, ppk)}


@given(powers, st.integers(1, 3_000), st.sampled_from([0, 100, 1000]))
def test_a_selection_covers_amount_and_fee_or_nothing_does(amounts, wanted, ppk):
    have = coins(amounts)
    chosen = select(have, wanted, infos(ppk))
    if chosen is None:
        # Coins worth less than their own fee never help.
        worth = [coin for coin in have if coin.amount * 1000 > ppk] or have
        assert total(worth) - fee([KEYSET] * len(worth), infos(ppk)) < wanted or ppk == 1000
    else:
        assert len(set(chosen)) == len(chosen)
        assert total(chosen) - fee([KEYSET] * len(chosen), infos(ppk)) >= wanted


def test_an_exact_sum_wins_so_that_no_change_is_left():
    chosen = select(coins([64, 8, 4, 2, 1]), 10, infos(100))
    assert sorted(coin.amount for coin in chosen) == [1, 2, 8]


def test_one_coin_is_taken_rather_than_many():
    chosen = select(coins([64, 1, 1, 1, 1, 1, 1]), 5, infos(1000))
    assert [coin.amount for coin in chosen] == [64]


def test_a_wallet_full_of_small_change_is_tidied_where_the_fee_stays_the_same():
    chosen = select(coins([64] + [1] * 40), 50, infos(100))
    assert len(chosen) == 10
    assert total(chosen) == 73


def test_too_little_is_none():
    assert select(coins([4, 2]), 6, infos(100)) is None
    assert select([], 1, infos(0)) is None


@given(st.integers(1, 100_000), st.sampled_from([0, 1, 100, 500, 1000]))
def test_a_price_with_its_fee_is_the_least_sum_that_leaves_the_price(net, ppk):
    gross = with_fee(net, ppk)
    assert gross - -(-len(split(gross)) * ppk // 1000) >= net
    below = gross - 1
    assert below < net or below - -(-len(split(below)) * ppk // 1000) < net


@given(st.integers(1, 1 << 40))
def test_a_split_is_of_distinct_powers_of_two(amount):
    parts = split(amount)
    assert sum(parts) == amount
    assert len(set(parts)) == len(parts)
    assert all(part & (part - 1) == 0 for part in parts)
