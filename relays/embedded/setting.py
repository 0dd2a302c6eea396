"""Everything that one relay is told when it starts, as data that can be handed to another process. Pure."""

from dataclasses import dataclass, field
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from core.error import InvalidInput
from core.identifier import PubKey
from relays.embedded.access import Access
from relays.embedded.information import Description
from relays.embedded.limit import Limits
from relays.embedded.rate import Rates


@dataclass(frozen=True, slots=True)
class RelaySettings:
    """How one relay is set up.

    Attributes:
        path: the event file.
        host: the address to listen on.
        port: the port; 0 takes a free one.
        limits: sizes.
        access: who may do what.
        rates: how often.
        description: what NIP-11 and the page say.
        names: NIP-05 names: local part → public key.
        mints: where payments for writing may be from; none if nothing is sold.
        synchronous: `FULL` (fsync before each OK) or `NORMAL`.
    """

    path: Path
    host: str = "127.0.0.1"
    port: int = 7777
    limits: Limits = field(default_factory=Limits)
    access: Access = field(default_factory=Access)
    rates: Rates = field(default_factory=Rates)
    description: Description = field(default_factory=Description)
    names: dict[str, PubKey] = field(default_factory=dict)
    mints: tuple[str, ...] = ()
    synchronous: str = "FULL"

    def to_json(self) -> bytes:
        """One line of JSON."""
        return _adapter.dump_json(self)

    @classmethod
    def of_json(cls, text: bytes | str) -> "RelaySettings":
        """Undo `to_json`.

        Raises:
            InvalidInput: it is something else.
        """
        try:
            return _adapter.validate_json(text)
        except ValidationError as error:
            raise InvalidInput(f"These are no settings of a relay: {error.error_count()} faults.") from error


_adapter: TypeAdapter[RelaySettings] = TypeAdapter(RelaySettings)
