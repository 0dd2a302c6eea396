"""Where a Lightning wallet's address comes from, and what of it is shown."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from core.clock import SystemClock
from core.effect import Permit
from core.error import InvalidInput
from core.identifier import EffectId, OperationId
from core.unit import Insert, Update
from node.config import parse
from node.error import ConfigInvalid
from node.lightning import LightningSection, address_of
from node.rail import rail_of
from node.retention.family import gather
from node.storage.memory import MemoryDatabase
from relays.key import Key, Keyring
from relays.nip47 import parse_address
from tests.wallet_part import BUYER_WORDS, allow
from wallet.debt import Debts
from wallet.lightning import Direction, Payment, Stage
from wallet.lightning_error import InvoiceKnown
from wallet.lightning_record import LightningBook, Order
from wallet.record import Vault

WALLET, OURS = Key(b"\x05" * 32), Key(b"\x06" * 32)
SECRET = OURS.secret.hex()
URI = f"nostr+walletconnect://{WALLET.pubkey}?relay=wss://relay.example&secret={SECRET}"


def test_the_environment_goes_first_and_is_left_without_it(tmp_path: Path) -> None:
    environ = {"VENDO_NWC": URI, "HOME": "/"}
    found = address_of(tmp_path, LightningSection(nwc_file="not there"), environ)
    assert found is not None
    assert found.key.pubkey == OURS.pubkey
    assert environ == {"HOME": "/"}


def test_a_file_in_the_home_is_read_if_it_is_its_owner_s_alone(tmp_path: Path) -> None:
    file, section = tmp_path / "wallet.nwc", LightningSection(nwc_file="wallet.nwc")
    file.write_text(URI + "\n")
    file.chmod(0o640)
    with pytest.raises(InvalidInput, match="chmod 600"):
        address_of(tmp_path, section, {})
    file.chmod(0o600)
    found = address_of(tmp_path, section, {})
    assert found is not None
    assert found.wallet == WALLET.pubkey


def test_without_a_setting_there_is_none(tmp_path: Path) -> None:
    assert address_of(tmp_path, LightningSection(), {}) is None


def test_a_file_that_is_wrong_or_away_is_told_without_what_it_holds(tmp_path: Path) -> None:
    section = LightningSection(nwc_file="wallet.nwc")
    with pytest.raises(InvalidInput):
        address_of(tmp_path, section, {})
    (tmp_path / "wallet.nwc").write_text(SECRET)
    (tmp_path / "wallet.nwc").chmod(0o600)
    with pytest.raises(InvalidInput) as caught:
        address_of(tmp_path, section, {})
    assert SECRET not in str(caught.value)


def test_the_address_itself_does_not_belong_into_the_settings() -> None:
    text = f'[node]\nowner = "{WALLET.npub}"\nrelays = ["ws://127.0.0.1:1"]\n[lightning]\nnwc_file = "{URI}"\n'
    with pytest.raises(ConfigInvalid) as caught:
        parse(text)
    assert SECRET not in str(caught.value)


def test_limits_are_in_msat_and_the_fee_is_the_larger_of_both() -> None:
    limits = LightningSection(max_payment_sat=5, max_day_sat=7, fee_sat=2, fee_ppm=10_000).limits()
    assert (limits.per_payment, limits.per_day) == (5_000, 7_000)
    assert (limits.fee(1_000), limits.fee(1_000_001)) == (2_000, 10_001)


async def test_an_effect_that_paid_over_lightning_is_kept_as_long_as_one_that_moved_coins() -> None:
    unit = MemoryDatabase()
    effect = {
        "id": "e",
        "caller": "operator",
        "path": "/wallet/lightning/pay",
        "key": "k",
        "digest": "d",
        "subject": "s",
    }
    row = {"wallet": "nwc:one", "payment_hash": "h", "sealed": b"", "expires_at": 1, "created_at": 1, "updated_at": 1}
    await unit.commit(
        [
            Insert("effect", {**effect, "subject": "s", "effect": 4, "state": "commit", "begun_at": 1}),
            Insert("lightning", {**row, "id": "s", "kind": "pay", "state": "paid", "effect_id": "e", "amount": 1}),
        ]
    )
    (one,) = await gather(unit, await unit.select("effect"))
    assert (one.moved_money, one.closed) == (True, True)
    for state, closed in (("unknown", False), ("sent", False), ("waiting", False), ("failed", True)):
        await unit.commit([Update("lightning", {"id": "s"}, {"state": state})])
        (one,) = await gather(unit, await unit.select("effect"))
        assert one.closed is closed


async def test_the_driver_pays_on_the_node_s_own_networks_and_asks_what_coins_pay() -> None:
    async def pays(payment_hash: str) -> OperationId | None:
        return OperationId("melt") if payment_hash == "ab" * 32 else None

    debts = Debts()
    debts.add(pays)
    node = SimpleNamespace(
        database=MemoryDatabase(),
        clock=SystemClock(),
        keyring=Keyring(BUYER_WORDS),
        gate=SimpleNamespace(check=allow, permit=Permit, standing=lambda _: Permit(EffectId("day"))),
        wallet=SimpleNamespace(debts=debts),
        config=SimpleNamespace(lightning=LightningSection(), node=SimpleNamespace(currencies=frozenset({"bcrt"}))),
    )
    lightning = rail_of(node, parse_address(URI)).lightning
    assert lightning is not None
    assert lightning._currencies == frozenset({"bcrt"})
    await debts.check("cd" * 32, "ours")
    with pytest.raises(InvoiceKnown):
        await lightning._debts.check("ab" * 32, "ours")


async def test_what_a_wallet_pays_or_may_have_paid_is_known_when_none_is_connected_any_more() -> None:
    unit, vault = MemoryDatabase(), Vault(Keyring(BUYER_WORDS).derive("seal"))
    payment = Payment(OperationId("over there"), Direction.PAY, Stage.PREPARED, 2_000, 1_900)
    book = LightningBook(unit, vault, SystemClock())
    insert, _ = book.begin(Order(payment, "wallet", "ab" * 32, EffectId("e"), 1_000, 10, "lnbc", "{}"))
    await unit.commit([insert])
    debts = Debts()
    node = SimpleNamespace(
        database=unit,
        clock=SystemClock(),
        keyring=Keyring(BUYER_WORDS),
        gate=SimpleNamespace(check=allow, permit=Permit),
        wallet=SimpleNamespace(debts=debts),
    )
    assert rail_of(node, None).lightning is None
    with pytest.raises(InvoiceKnown, match="over there"):
        await debts.check("ab" * 32, "ours")
    for state, free in (("unknown", False), ("sent", False), ("paid", False), ("failed", True)):
        await unit.commit([Update("lightning", {"id": "over there"}, {"state": state})])
        assert (await book.pays("ab" * 32) is None) == free
