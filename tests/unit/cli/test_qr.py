"""The QR code of an invoice is one that a reader reads, as a terminal shows it."""

import numpy
import pytest
import zxingcpp

from cli.qr import invoice_uri, qr

INVOICE = (
    "lnbcrt210n1pj48ugqpp5qqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqqqsyqcyq5rqwzqfqypqdq5xysxxatsyp3k7enxv4jsxqzpu"
    "9qrsgquk0rl77nj30yxdy8j9vdx85fkpmdla2087ne0xh8nhedh8w27kyke0lp53ut353s06fv3qfegext0eh0ymjpf39tuven09sam30g4vgp"
)
DARK, LIGHT = 0, 255


def picture(code: str, *, dark_terminal: bool, scale: int = 4) -> numpy.ndarray:
    """What a camera sees of the lines: each character is two fields, one above the other."""
    fields = {" ": (0, 0), "\u2580": (1, 0), "\u2584": (0, 1), "\u2588": (1, 1)}
    rows: list[list[int]] = []
    for line in code.splitlines():
        rows += [[fields[char][half] for char in line] for half in (0, 1)]
    seen = numpy.array(rows, dtype=numpy.uint8)
    shown = numpy.where(seen == 1, *((LIGHT, DARK) if dark_terminal else (DARK, LIGHT))).astype(numpy.uint8)
    edge = numpy.pad(shown, 4, constant_values=DARK if dark_terminal else LIGHT)
    return numpy.kron(edge, numpy.ones((scale, scale), dtype=numpy.uint8))


@pytest.mark.parametrize("dark_terminal", [True, False])
@pytest.mark.parametrize("text", [invoice_uri(INVOICE), invoice_uri("lnbc1" + "q" * 500)])
def test_a_reader_reads_it_from_a_dark_terminal_and_from_a_light_one(text, dark_terminal):
    found = zxingcpp.read_barcodes(picture(qr(text), dark_terminal=dark_terminal))
    assert [one.text for one in found] == [text]


def test_an_invoice_in_capitals_takes_a_code_that_fits_a_terminal_of_eighty_columns():
    shown = qr(invoice_uri(INVOICE))
    assert max(map(len, shown.splitlines())) <= 80
    assert len(shown) < len(qr("lightning:" + INVOICE))
