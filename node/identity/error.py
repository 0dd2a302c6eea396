"""What can go wrong with identities.

VendoError
├── PassphraseNeeded  key.locked    401  the keys are encrypted, and no source gave a passphrase
├── KeysDamaged       key.damaged   422  keys.json is not what this program wrote
├── IdentityExists    key.exists    409
├── IdentityInUse     key.in_use    409  an agent speaks with it
└── IdentityUnknown   key.unknown   404
"""

from core.error import Conflict, InvalidInput, NotFound, Refused


class PassphraseNeeded(Refused):
    """The keys are encrypted, and nothing gave a passphrase."""

    code = "key.locked"
    status = 401
    remedy = "Set VENDO_PASSPHRASE, name a file in [keys] passphrase_file, or run it at a terminal."


class KeysDamaged(InvalidInput):
    """The file of keys is damaged."""

    code = "key.damaged"
    status = 422
    remedy = "Restore it from your words: vendo init --words FILE with another --home."


class IdentityExists(Conflict):
    """There is an identity of this name already."""

    code = "key.exists"
    remedy = "Choose another name, or give it a new key with `vendo key rotate`."


class IdentityInUse(Conflict):
    """An agent speaks with this identity."""

    code = "key.in_use"
    remedy = "Delete the agent first (`vendo agent delete`), or give it another key (`vendo key rotate`)."


class IdentityUnknown(NotFound):
    """There is no identity of this name."""

    code = "key.unknown"
    remedy = "`vendo key list` shows those that there are."
