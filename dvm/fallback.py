"""Lets a built-in provider do a job of ours, for nothing. Its result passes the same check as a seller's."""

from typing import TYPE_CHECKING

from core.error import InvalidInput
from dvm.acceptance import check_result
from dvm.buyer_event import FallbackDone, FallbackFailed
from dvm.error import ProviderFailed
from dvm.job import Purchase
from dvm.provider.supervision import supervised
from dvm.request import ComputeRequest

if TYPE_CHECKING:
    from dvm.desk import Desk


async def done_by(desk: "Desk", job: Purchase, name: str) -> FallbackDone | FallbackFailed:
    """What came of it: the result, or why there is none."""
    provider = desk.providers.get(name)
    reason = "there is no such provider"
    if provider is not None:
        try:
            ask = await desk.own(job)
            answer = await supervised(provider, ask, desk.policy.fallback_timeout_s)
            check_result(ask, answer.content)
            return FallbackDone(desk.clock.millis(), name, answer.content)
        except (InvalidInput, ProviderFailed) as error:
            reason = error.message
    return FallbackFailed(desk.clock.millis(), name, reason)


async def asked(job: Purchase) -> ComputeRequest:
    """What was asked for, as it was asked."""
    return job.ask
