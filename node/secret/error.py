"""What can go wrong with secrets.

VendoError
└── Paused
    └── SecretMissing    secret.missing      503  what needs it waits
"""

from core.error import Paused


class SecretMissing(Paused):
    """A secret that the settings name is not there."""

    code = "secret.missing"
    remedy = "Set it: `vendo write /secrets/NAME - --agent AGENT` reads it from standard input; what waits goes on."
