"""What can go wrong at the gate, beside the refusals that everybody knows (core.error).

VendoError
└── ForeignLedger     gate.foreign_ledger 500  the database belongs to a node with another key
"""

from core.error import VendoError


class ForeignLedger(VendoError):
    """The database belongs to a node with another key."""

    code = "gate.foreign_ledger"
    remedy = "Start the node with the seed words of this home, or use another home."
