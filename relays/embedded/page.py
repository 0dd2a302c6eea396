"""What people get from the relay with a browser. Pure."""

from html import escape

from relays.embedded.information import Description, Rules, limitation, rates_of, supported

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"

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
label {{ display: block; margin: .5rem 0; }}
input, textarea {{ width: 100%; font: inherit; box-sizing: border-box; }}
</style>
</head>
<body>
<h1>{name}</h1>
<p>{about}</p>
<p>This is a Nostr relay. Give a Nostr client this address: <code>{url}</code></p>
<h2>Who may use it</h2>
<ul>
{rules}
</ul>
{payment}<h2>Now</h2>
<table>
<tr><th>Stored events</th><td>{events}</td></tr>
<tr><th>Connections</th><td>{connections}</td></tr>
<tr><th>NIPs</th><td>{nips}</td></tr>
</table>
<h2>Limits</h2>
<table>
{limits}
</table>
</body>
</html>
"""

_PAYMENT = """<h2>Pay to write</h2>
<p>{sats} sats for {days} days, as a Cashu token of one of these mints: {mints}</p>
<form method="post" action="pay">
<label>Your public key <input name="pubkey" required maxlength="100" placeholder="npub1…"></label>
<label>Cashu token <textarea name="token" required rows="4" maxlength="100000"></textarea></label>
<button>Pay</button>
</form>
"""

_ANSWER = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{title}</title></head>
<body><h1>{title}</h1><p>{text}</p><p><a href="./">Back</a></p></body></html>
"""


def page(
    description: Description, rules: Rules, url: str, events: int, connections: int, mints: tuple[str, ...] = ()
) -> str:
    """The page. `mints` are where tokens for a payment may be from; none if payments are not taken."""
    numbers: dict[str, int | bool] = {**limitation(rules), **rates_of(rules.rates)}
    rows = [
        f"<tr><th>{escape(name.replace('_', ' '))}</th><td>{value}</td></tr>"
        for name, value in numbers.items()
        if type(value) is int
    ]
    return _PAGE.format(
        name=escape(description.name),
        about=escape(description.about),
        url=escape(description.public_url or url),
        rules="\n".join(f"<li>{escape(line)}</li>" for line in sentences(rules)),
        payment=_payment(rules, mints),
        events=events,
        connections=connections,
        nips=" ".join(map(str, supported(description.nips))),
        limits="\n".join(rows),
    )


def _payment(rules: Rules, mints: tuple[str, ...]) -> str:
    access = rules.access
    if "payment" not in access.write_by or not mints:
        return ""
    listed = ", ".join(f"<code>{escape(mint)}</code>" for mint in mints)
    return _PAYMENT.format(sats=-(-access.price_msat // 1_000), days=access.paid_days, mints=listed)


def sentences(rules: Rules) -> list[str]:
    """The rules of access in words."""
    access = rules.access
    ways = {
        "key": "a key that belongs to this relay",
        "pow": f"proof of work of {access.pow_bits} bits (NIP-13)",
        "payment": "a payment",
    }
    out = ["Writing needs " + ", or ".join(ways[way] for way in access.write_by) + "." if access.write_by else ""]
    out += ["" if access.write_by else "Everybody may write."]
    out += ["Writers say first who they are (NIP-42)." if access.auth_to_write else ""]
    reading = {
        "open": "Everybody may read.",
        "auth": "Readers say first who they are (NIP-42).",
        "key": "Only keys that belong to this relay read, after they said who they are (NIP-42).",
    }
    out += [reading[access.read_by]]
    out += ["Private messages go to their sender and receiver only (NIP-42)." if access.private else ""]
    return [line for line in out if line]


def answer_page(title: str, text: str) -> str:
    """A small page that answers a form."""
    return _ANSWER.format(title=escape(title), text=escape(text))
