"""With which keys an agent speaks and hears: one signs, older ones still decrypt (rotation)."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from relays.signer import Signer


class Voices(Protocol):
    """The agents' identities by name; a live view."""

    def get(self, name: str, /) -> Signer | None:
        """The key that signs for an agent now, or None if there is no such agent."""

    def older(self, name: str) -> Sequence[Signer]:
        """Keys that an agent had before, for what is still sent to them."""

    def __iter__(self) -> Iterator[str]:
        """The agents' names."""


class FixedVoices:
    """Identities that are given once and never rotated: the operator's own, and those of tests."""

    def __init__(self, signers: Mapping[str, Signer]) -> None:
        self._signers = dict(signers)

    def get(self, name: str, /) -> Signer | None:
        """See `Voices`."""
        return self._signers.get(name)

    def older(self, name: str) -> Sequence[Signer]:
        """See `Voices`."""
        return ()

    def __iter__(self) -> Iterator[str]:
        """See `Voices`."""
        return iter(self._signers)


class JoinedVoices:
    """Two sets of identities as one; a name of the first hides the same of the second."""

    def __init__(self, first: Voices, second: Voices) -> None:
        self._first, self._second = first, second

    def get(self, name: str, /) -> Signer | None:
        """See `Voices`."""
        found = self._first.get(name)
        return found if found is not None else self._second.get(name)

    def older(self, name: str) -> Sequence[Signer]:
        """See `Voices`."""
        return self._first.older(name) if self._first.get(name) is not None else self._second.older(name)

    def __iter__(self) -> Iterator[str]:
        """See `Voices`."""
        yield from self._first
        yield from (name for name in self._second if self._first.get(name) is None)
