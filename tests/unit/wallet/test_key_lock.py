"""Tokens that others lock to a key (NUT-11): which are ours to take, and those that we make."""

import json

import pytest

from relays.key import Key
from tests.unit.wallet.test_wallet import EFFECT, PERMIT, Stage, clean
from wallet.cashu.lock import KeyLock, Lock, read_key_lock
from wallet.cashu.token import decode, encode
from wallet.error import OperationReused, TokenLock
from wallet.payment import State

OURS, OTHER = Key(b"\x21" * 32).compressed, Key(b"\x22" * 32).compressed
NONCE = "00" * 16


def secret(data: str = OURS, tags: list[list[str]] | None = None, kind: str = "P2PK", **more: object) -> str:
    return json.dumps([kind, {"nonce": NONCE, "data": data, "tags": tags or [], **more}])


@pytest.mark.parametrize(
    ("good", "lock"),
    [
        (secret(), KeyLock(OURS)),
        (json.dumps(["P2PK", {"nonce": NONCE, "data": OURS}]), KeyLock(OURS)),
        (secret(tags=[["sigflag", "SIG_INPUTS"]]), KeyLock(OURS)),
        (secret(tags=[["n_sigs", "1"]]), KeyLock(OURS)),
        (secret(tags=[["locktime", "1900000000"]]), KeyLock(OURS, 1_900_000_000)),
        (secret(tags=[["locktime", "1900000000"], ["refund", OTHER]]), KeyLock(OURS, 1_900_000_000, 1)),
        (secret(tags=[["locktime", "1900000000"], ["refund", OTHER, OURS]]), KeyLock(OURS, 1_900_000_000, 2)),
        (secret(tags=[["e", "ab" * 32], ["P", OTHER[2:]]]), KeyLock(OURS, giver=OTHER[2:])),
        (KeyLock(OURS).secret(NONCE), KeyLock(OURS)),
        (Lock(OURS, 1_900_000_000, OTHER).secret(NONCE), KeyLock(OURS, 1_900_000_000, 1)),
    ],
)
def test_a_lock_that_one_key_opens_is_read(good: str, lock: KeyLock) -> None:
    assert read_key_lock(good) == lock


@pytest.mark.parametrize(
    "bad",
    [
        "ab" * 32,
        secret(kind="HTLC"),
        secret(data="02" + "00" * 32),
        secret(data=OURS[2:]),
        secret(data=OURS.upper()),
        secret(tags=[["pubkeys", OTHER]]),
        secret(tags=[["pubkeys", OTHER], ["n_sigs", "2"]]),
        secret(tags=[["n_sigs", "2"]]),
        secret(tags=[["n_sigs", "0"]]),
        secret(tags=[["n_sigs_refund", "2"], ["locktime", "9"], ["refund", OTHER, OURS]]),
        secret(tags=[["sigflag", "SIG_ALL"]]),
        secret(tags=[["refund", OTHER]]),
        secret(tags=[["locktime", "0"]]),
        secret(tags=[["locktime", "-1"]]),
        secret(tags=[["locktime", "1"], ["locktime", "2"]]),
        secret(tags=[["locktime", "1"], ["refund", "02" + "11" * 31]]),
        secret(tags=[["locktime", "1"], ["refund", *[OTHER] * 9]]),
        secret(tags=[["unheard", "of"]]),
        secret(extra="x"),
        f'["P2PK", {{"nonce": "0", "data": "{OURS}", "data": "{OTHER}", "tags": []}}]',
        "[" * 1000,
    ],
)
def test_any_other_condition_is_not_ours_to_take(bad: str) -> None:
    with pytest.raises(TokenLock):
        read_key_lock(bad)


def test_a_lock_opens_to_its_key_whichever_sign_it_is_written_with() -> None:
    for sign in ("02", "03"):
        assert KeyLock(sign + OURS[2:]).opens_to(OURS)
    assert not KeyLock(OTHER).opens_to(OURS)


def test_a_lock_for_good_is_written_to_a_key_alone() -> None:
    for lock in (KeyLock("not-a-key"), KeyLock("02" + "ff" * 32), KeyLock(OURS, 5)):
        with pytest.raises(TokenLock):
            lock.secret(NONCE)


@pytest.fixture
async def stage() -> Stage:
    made = Stage()
    await made.fund(255)
    return made


@pytest.mark.parametrize("sign", ["02", "03"])
async def test_a_token_that_is_locked_to_us_for_good_is_received(stage: Stage, sign: str) -> None:
    pubkey = sign + stage.seller.key.compressed[2:]
    token = await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT, pubkey=pubkey)
    assert all(read_key_lock(coin.secret) == KeyLock(pubkey) for coin in decode(token).proofs)
    assert sum(coin.amount for coin in decode(token).proofs) == 20
    received = await stage.seller.receive("take", token, EFFECT, PERMIT)
    assert received.amount_sat + received.fee_sat == 20
    await stage.buyer.audit()  # sees that it was taken
    assert (await stage.buyer.audit()).mints[0].journal["withdrawals"] == 20
    await clean(stage.buyer, stage.seller)


async def test_a_token_that_is_locked_to_somebody_else_is_refused_and_the_mint_is_not_asked(stage: Stage) -> None:
    token = await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT, pubkey=OTHER)
    before = len(stage.mint.calls)
    with pytest.raises(TokenLock):
        await stage.seller.receive("take", token, EFFECT, PERMIT)
    assert "swap" not in stage.mint.calls[before:]


async def test_a_token_of_which_some_coins_are_locked_is_refused(stage: Stage) -> None:
    locked = decode(await stage.buyer.send("a", stage.mint.url, 20, EFFECT, PERMIT, pubkey=stage.seller.key.compressed))
    plain = decode(await stage.buyer.send("b", stage.mint.url, 20, EFFECT, PERMIT))
    mixed = encode(stage.mint.url, "sat", [*locked.proofs, *plain.proofs])
    with pytest.raises(TokenLock, match="others are not"):
        await stage.seller.receive("take", mixed, EFFECT, PERMIT)


async def test_the_same_key_gives_the_same_locked_token_and_another_lock_is_another_request(stage: Stage) -> None:
    first = await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT, pubkey=OTHER)
    assert await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT, pubkey=OTHER) == first
    view = await stage.buyer.find("send")
    assert view is not None
    assert view.state is State.DONE
    for lock in ("", OURS):
        with pytest.raises(OperationReused):
            await stage.buyer.send("send", stage.mint.url, 20, EFFECT, PERMIT, pubkey=lock)
