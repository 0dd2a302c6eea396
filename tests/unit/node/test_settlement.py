"""`[settlement]`: where zaps reach us."""

import pytest
from pydantic import ValidationError

from core.error import InvalidInput
from node.settlement import SettlementSection
from relays.key import Key
from relays.nip57 import lnurl_of

KEY = Key(b"\x21" * 32)


@pytest.mark.parametrize("zapper", [KEY.pubkey, KEY.npub])
def test_an_address_and_the_key_of_its_server_make_an_account(zapper: str) -> None:
    account = SettlementSection(lud16="me@wallet.example", zapper=zapper).account()
    assert account is not None
    assert (account.address, account.provider) == ("me@wallet.example", KEY.pubkey)
    assert account.lnurl == lnurl_of("me@wallet.example")


def test_without_an_address_no_zaps_count() -> None:
    assert SettlementSection().account() is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"lud16": "me@wallet.example"},
        {"zapper": KEY.pubkey},
        {"lud16": "https://wallet.example", "zapper": KEY.pubkey},
        {"lud16": "me@wallet.example", "zapper": "nobody"},
        {"nutzaps": "sometimes"},
    ],
)
def test_an_address_is_not_shown_without_the_means_to_check_zaps_to_it(wrong: dict[str, str]) -> None:
    with pytest.raises((ValidationError, InvalidInput)):
        SettlementSection.model_validate(wrong)
