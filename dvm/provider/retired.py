"""Stands in for the provider of a kind that is sold no more, so that open sales of that kind still end.

What was delivered is claimed, what was paid and not done fails at once (its customer takes the money back after the
locktime), and quotes lapse.
"""

from dvm.error import ProviderFailed
from dvm.provider.provider import Answer
from dvm.request import ComputeRequest


class Retired:
    """Serves nothing."""

    name = "retired"
    kinds: frozenset[int] = frozenset()

    def check(self, request: ComputeRequest) -> None:
        """Nobody asks: there is no such service."""

    async def run(self, request: ComputeRequest) -> Answer:
        """Always fails.

        Raises:
            ProviderFailed: always.
        """
        raise ProviderFailed("This kind is served here no more.")
