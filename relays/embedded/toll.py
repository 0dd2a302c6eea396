"""Paying for the right to write. The relay knows who has paid; taking the money is somebody else's business."""

from collections.abc import Mapping
from typing import Protocol

from core.error import Refused
from core.identifier import PubKey


class PaymentRefused(Refused):
    """The payment was not taken."""

    code = "relay.payment"
    unchanged = ""
    remedy = "Look at the reason, and try again with the right token."


class Toll(Protocol):
    """Takes payments, and remembers them."""

    @property
    def mints(self) -> tuple[str, ...]:
        """Where tokens may be from."""

    @property
    def paid(self) -> Mapping[PubKey, int]:
        """Until when (Unix seconds) each key has paid; a live view."""

    async def pay(self, pubkey: PubKey, token: str) -> int:
        """Take a Cashu token for this key. Returns the Unix second until which it may write.

        Raises:
            PaymentRefused: the token is not worth the price, is of another mint, or was used.
            Unavailable: it may or may not have been taken; the same token may be sent again.
        """
