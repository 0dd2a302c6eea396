"""What people and programs get from the relay over plain HTTP: a page, or the NIP-11 document. Pure."""

from dataclasses import dataclass
from html import escape
from typing import Any

from relays.embedded.limit import Limits, limitation

SUPPORTED = (1, 9, 11, 40, 45, 70)
POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
:root {{ color-scheme: light dark; }}
body {{ font: 1rem/1.5 system-ui, sans-serif; max-width: 40rem; margin: 3rem auto; padding: 0 1rem; }}
code {{ font-size: 1.05em; overflow-wrap: anywhere; }}
table {{ border-collapse: collapse; width: 100%; }}
th, td {{ text-align: left; font-weight: normal; padding: .25rem 0; border-bottom: 1px solid #8884; }}
td {{ text-align: right; font-variant-numeric: tabular-nums; }}
</style>
</head>
<body>
<h1>{name}</h1>
<p>{about}</p>
<p>This is a Nostr relay. Give a Nostr client this address: <code>{url}</code></p>
<h2>Now</h2>
<table>
<tr><th>Stored events</th><td>{events}</td></tr>
<tr><th>Connections</th><td>{connections}</td></tr>
</table>
<h2>Limits</h2>
<table>
{limits}
</table>
</body>
</html>
"""


@dataclass(frozen=True, slots=True)
class Description:
    """What the relay says about itself. `pubkey` is its operator's, 64 hex digits, or empty."""

    name: str = "vendo relay"
    about: str = "The relay inside a vendo node."
    pubkey: str = ""
    version: str = ""


def document(description: Description, limits: Limits) -> dict[str, Any]:
    """The relay information document (NIP-11)."""
    out: dict[str, Any] = {
        "name": description.name,
        "description": description.about,
        "software": "vendo",
        "version": description.version,
        "supported_nips": list(SUPPORTED),
        "limitation": limitation(limits),
    }
    if description.pubkey:
        out["pubkey"] = description.pubkey
    return out


def page(description: Description, limits: Limits, url: str, events: int, connections: int) -> str:
    """The page for a browser."""
    rows = [
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{value}</td></tr>"
        for name, value in limitation(limits).items()
        if type(value) is int
    ]
    return _PAGE.format(
        name=escape(description.name),
        about=escape(description.about),
        url=escape(url),
        events=events,
        connections=connections,
        limits="\n".join(rows),
    )
