"""QR codes on a terminal: half a character is one field, so that they are square and small."""

import io


def qr(text: str) -> str:
    """A QR code as lines of text, with the quiet zone that readers want.

    It shows dark fields where the terminal's background is and light ones in its foreground, so it is read on dark
    terminals as it is and by nearly all readers, which take both, on light ones.
    """
    import segno  # most commands do without

    shown = io.StringIO()
    segno.make(text, error="l", micro=False).terminal(shown, compact=True)
    return shown.getvalue().rstrip("\n")


def invoice_uri(invoice: str) -> str:
    """An invoice as wallets look for it. In capitals, which bech32 allows, it takes a smaller code (BOLT 11)."""
    return f"LIGHTNING:{invoice.upper()}"
