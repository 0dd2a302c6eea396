"""The edge between the market and the work: a provider may take too long or break, and never takes the node with it."""

import asyncio
import logging

from core.error import InvalidInput, VendoError
from core.guard import attempted
from dvm.error import ProviderFailed
from dvm.provider.provider import Answer, Provider
from dvm.request import ComputeRequest

log = logging.getLogger(__name__)


async def supervised(provider: Provider, request: ComputeRequest, timeout_s: float) -> Answer:
    """Run a provider within a time.

    Raises:
        InvalidInput: it says that the request cannot be served.
        ProviderFailed: it took too long, or broke.
    """

    async def run() -> Answer:
        return await asyncio.wait_for(provider.run(request), timeout_s)

    answer, error = await attempted(run())
    if answer is not None:
        return answer
    if isinstance(error, TimeoutError):
        raise ProviderFailed(f"It took longer than {timeout_s:g} s.") from error
    if isinstance(error, InvalidInput | ProviderFailed):
        raise error
    word = error.message if isinstance(error, VendoError) else type(error).__name__
    log.warning("A provider broke: %s", word, extra={"action": "provider_broke", "provider": provider.name})
    raise ProviderFailed(f"The provider {provider.name} broke: {word}") from error
