"""Our own jobs as inputs of others: what an input that names one of them becomes on the wire. Pure."""

from dataclasses import replace

from dvm.error import ChainBroken, NotFinished
from dvm.job import ENDED, Purchase, State
from dvm.policy import MARKET
from dvm.request import Datum


def becomes(item: Datum, job: Purchase, *, private: bool) -> Datum:
    """An input of type `job` that names our own job, as it goes out.

    Sellers find a result that we took at the relays, by the id that is sent along. A result that is not there (done by
    a built-in provider, or on a file server) or that nobody else can read (a private job's, a sealed one) goes as text.
    As long as there is no result only a job for which one seller was asked can be built on: to any other a stranger's
    answer, which seems to be the earliest, could pass for the result.

    Args:
        item: the input.
        job: the job that it names.
        private: whether the new job is private too.

    Raises:
        ChainBroken: that job ended without a result, or its privacy would end here.
        NotFinished: it has not come so far that anything could be built on it.
    """
    if job.state in ENDED and job.state is not State.DELIVERED:
        raise ChainBroken(f"Job {job.job_id}, on which this one builds, ended as {job.state.value}: {job.error}")
    if job.private and not private:
        raise ChainBroken(f"Job {job.job_id}, on which this one builds, is private and this one is not.")
    if job.kept is not None and not job.result:
        raise ChainBroken(f"The result of job {job.job_id} is too large to build on: it has {job.kept.size} bytes.")
    if job.state is State.DELIVERED:
        sealed = bool(job.sealed_id) and job.result_id == job.sealed_id
        if job.private or sealed or job.kept or job.provider != MARKET or not job.result_id:
            return Datum(job.result)
        return replace(item, data=job.request_id, pin=job.result_id)
    if job.private or not job.request_id or not job.to:
        raise NotFinished(f"Job {job.job_id}, on which this one builds, is {job.state.value}.")
    return replace(item, data=job.request_id)


def own_text(item: Datum, job: Purchase) -> Datum:
    """The same for a built-in provider, which has no relays to look at: our own result, if there is one."""
    return Datum(job.result) if job.state is State.DELIVERED and job.result else item
