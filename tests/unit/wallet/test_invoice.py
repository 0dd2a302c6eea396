import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.model_mint import invoice
from wallet.error import InvoiceRejected
from wallet.invoice import check_invoice, read_invoice

NOW = 1_800_000_000
GOOD = invoice(21_000, NOW, "x")


def test_an_invoice_for_exactly_what_was_asked_passes():
    found = check_invoice(GOOD, 21, NOW)
    assert (found.amount_msat, found.currency, found.expires_at) == (21_000, "bc", NOW + 3600)
    assert check_invoice(GOOD.upper(), 21, NOW).payment_hash == found.payment_hash


@pytest.mark.parametrize(
    ("text", "sat", "now"),
    [
        (GOOD, 22, NOW),
        (GOOD, 21, NOW + 3600),
        (invoice(21_500, NOW, "x"), 21, NOW),
        (invoice(21_000, NOW, "x", currency="tb"), 21, NOW),
        (invoice(21_000, NOW, "x", currency="bcrt"), 21, NOW),
        (GOOD[:-1], 21, NOW),
        (GOOD[:30] + ("q" if GOOD[30] != "q" else "p") + GOOD[31:], 21, NOW),
        ("", 21, NOW),
        ("bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq", 21, NOW),
        ("lnbc" + "q" * 5000, 21, NOW),
    ],
)
def test_any_other_invoice_is_refused(text, sat, now):
    with pytest.raises(InvoiceRejected):
        check_invoice(text, sat, now)


@given(st.text(max_size=60), st.sampled_from(["", "lnbc", "lnbc21u1", "lntb1"]))
def test_no_text_raises_anything_else(text, prefix):
    with pytest.raises(InvoiceRejected):
        read_invoice(prefix + text)
