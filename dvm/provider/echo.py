"""Kind 5050: gives the prompt back. For trying a node out, and for measuring it."""

from dvm.provider.provider import Answer, only_text
from dvm.request import ComputeRequest

GENERATE_TEXT = 5050


class Echo:
    """Answers with the input, unchanged."""

    name = "echo"
    kinds = frozenset({GENERATE_TEXT})

    def check(self, request: ComputeRequest) -> None:
        """Text only.

        Raises:
            InvalidInput: an input is not text, or there is none.
        """
        only_text(request)

    async def run(self, request: ComputeRequest) -> Answer:
        """The text of all inputs."""
        return Answer(only_text(request))
