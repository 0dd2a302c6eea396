"""What every provider offers. The same one serves customers (selling) and our own jobs (the built-in fallback)."""

from dataclasses import dataclass
from typing import Protocol

from core.error import InvalidInput
from dvm.request import ComputeRequest


@dataclass(frozen=True, slots=True)
class Answer:
    """A finished piece of work."""

    content: str
    mime: str = "text/plain"


class Provider(Protocol):
    """Something that does the work of some job kinds."""

    @property
    def name(self) -> str:
        """The word by which configuration and `/compute/providers` know it."""

    @property
    def kinds(self) -> frozenset[int]:
        """The request kinds that it serves."""

    def check(self, request: ComputeRequest) -> None:
        """Whether it could do this. Cheap: it runs for strangers, before any price.

        Raises:
            InvalidInput: with what is wrong.
        """

    async def run(self, request: ComputeRequest) -> Answer:
        """Do it. Heavy work happens outside the event loop; cancelling stops it soon.

        Raises:
            InvalidInput: the request cannot be served.
            ProviderFailed: the work did not succeed.
        """


def only_text(request: ComputeRequest) -> str:
    """All inputs as one text; nothing is ever fetched for a job (M7).

    Raises:
        InvalidInput: an input is a reference instead of text, or all are empty.
    """
    for item in request.inputs:
        if item.type != "text":
            raise InvalidInput(f"Only inputs of type text are served, not {item.type}.")
    text = "\n\n".join(item.data for item in request.inputs)
    if not text.strip():
        raise InvalidInput("The input is empty.")
    return text
