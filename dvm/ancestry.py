"""Jobs of a caller's own that a new one builds on, found by what its inputs name. What that becomes: `dvm.lineage`."""

from dataclasses import replace

from core.identifier import is_hex64
from core.unit import UnitOfWork
from dvm.error import NoSuchJob
from dvm.job import Purchase
from dvm.lineage import becomes, own_text
from dvm.opening import TABLE, check_wire
from dvm.parallel import Parallel
from dvm.policy import Policy
from dvm.record import decode
from dvm.request import ComputeRequest, Datum

OPERATOR = "operator"  # as the gate names who may see every job
JOB = "job"  # the type of an input that names an earlier job


class Ancestry:
    """Finds them.

    Args:
        unit: the database.
        parallel: finds jobs that were given to several sellers.
        policy: how large inputs may be.
    """

    def __init__(self, unit: UnitOfWork, parallel: Parallel, policy: Policy) -> None:
        self._unit, self._parallel, self._policy = unit, parallel, policy

    async def named(self, caller: str, item: Datum) -> Purchase | None:
        """The job of the caller's own that an input names, by its id or its request's."""
        if item.type != JOB:
            return None
        column = "request_id" if is_hex64(item.data) else "id"
        rows = await self._unit.select(TABLE, {column: item.data})
        found = decode(Purchase, rows[0]["body"]) if rows else None
        if found is None and column == "id" and (whole := await self._parallel.view(item.data)) is not None:
            found = whole.purchase
        return found if found is not None and caller in (found.caller, OPERATOR) else None

    async def placed(self, caller: str, request: ComputeRequest) -> tuple[Datum, ...]:
        """The inputs, with what stands for jobs of the caller's own.

        Raises:
            ChainBroken, NotFinished: as `lineage.becomes`.
            NoSuchJob: an input names a job that the caller has not.
            InputTooLarge: with earlier results in place the inputs are over a limit.
        """
        inputs = []
        for item in request.inputs:
            job = await self.named(caller, item)
            if item.type == JOB and job is None and not is_hex64(item.data):
                raise NoSuchJob(f"There is no job {item.data[:64]} to build on.")
            inputs.append(item if job is None else becomes(item, job, private=bool(request.private)))
        whole = replace(request, inputs=tuple(inputs))
        whole.check(self._policy.max_input_bytes)
        if whole.inputs != request.inputs:
            check_wire(whole, len(whole.canonical()))
        return whole.inputs

    async def own(self, purchase: Purchase) -> ComputeRequest:
        """A job as a built-in provider is asked for it: with our own results in their place."""
        found = [(item, await self.named(purchase.caller, item)) for item in purchase.inputs]
        mine = [item if job is None else own_text(item, job) for item, job in found]
        return replace(purchase.ask, inputs=tuple(mine))
