"""What can go wrong in the market.

VendoError
├── InvalidInput
│   ├── InputTooLarge    dvm.input_too_large   413  the job's input is over the policy's limit
│   ├── NobodyServes     dvm.nobody_serves     400  no source of work in the policy serves this kind
│   ├── UnknownKind      dvm.unknown_kind      400  not a NIP-90 request kind
│   └── BadResult        dvm.bad_result        502  a result that fails the buyer's check
│       └── BadSeal      dvm.bad_seal          502  a sealed result that is not what was signed or paid for
├── NoSuchJob            dvm.no_such_job       404
├── NotFinished          dvm.not_finished      409  the result was asked for too early
├── ChainBroken          dvm.chain_broken      409  a job that builds on one that ended without a result
├── JobFailed            dvm.job_failed        409  the result of a job that has none
├── NotNow               dvm.not_now           409  a machine was told something that its state rules out
├── Unpriced             dvm.unpriced          503  what is sold for dollars has no price without a fresh rate
├── KindSold             dvm.kind_sold         409  a kind is put up for sale a second time, on other terms
├── NotSold              dvm.not_sold          404  a kind is not for sale
├── NotStored            dvm.not_stored        502  a large result of ours is on no file server
├── ResultGone           dvm.result_gone       410  a large result is not kept any more
└── ProviderFailed       dvm.provider_failed   502  the work itself did not succeed
"""

from core.error import Conflict, InvalidInput, NotFound, Unavailable, VendoError


class InputTooLarge(InvalidInput):
    """The job's input is too large."""

    code = "dvm.input_too_large"
    status = 413
    remedy = "Send a shorter input."


class UnknownKind(InvalidInput):
    """The kind is not one of a job request (NIP-90: 5000 to 5999)."""

    code = "dvm.unknown_kind"


class NobodyServes(InvalidInput):
    """Nothing in the policy's order serves this kind."""

    code = "dvm.nobody_serves"
    remedy = "Put the market (dvm) in [policy] order, or configure a provider for this kind."


class BadResult(InvalidInput):
    """The result fails the check for its kind."""

    code = "dvm.bad_result"
    status = 502
    remedy = "It does not count as delivered; the job goes on to the next provider."


class BadSeal(BadResult):
    """The sealed result is not what was signed or paid for."""

    code = "dvm.bad_seal"


class NoSuchJob(NotFound):
    """There is no job with this id."""

    code = "dvm.no_such_job"


class NotFinished(VendoError):
    """The job has no result yet."""

    code = "dvm.not_finished"
    status = 409
    remedy = "Read its status, and the result once that says complete."


class ChainBroken(VendoError):
    """A job builds on another one whose result cannot be had."""

    code = "dvm.chain_broken"
    status = 409
    remedy = "Buy the earlier job again, and build on that one."


class JobFailed(VendoError):
    """The job ended without a result."""

    code = "dvm.job_failed"
    status = 409  # the request is in order, and so is the node: it is the job's state that has no result
    remedy = "Its status says what was tried and what became of the money."


class NotNow(VendoError):
    """This cannot happen in the present state."""

    code = "dvm.not_now"
    status = 409


class Unpriced(Unavailable):
    """There is no fresh exchange rate for a price in dollars."""

    code = "dvm.unpriced"
    remedy = "Try again when there is a rate, or set the price in msat."


class KindSold(Conflict):
    """This kind is for sale already, on other terms."""

    code = "dvm.kind_sold"
    remedy = "Change its price with `vendo sell price`, or stop it first."


class NotSold(NotFound):
    """This kind is not for sale."""

    code = "dvm.not_sold"


class ProviderFailed(VendoError):
    """The provider could not do the work."""

    code = "dvm.provider_failed"
    status = 502


class NotStored(VendoError):
    """A large result could not be put on any file server."""

    code = "dvm.not_stored"
    status = 502
    remedy = "Look at the servers in [blobs] of the configuration; the customer's money is not taken."


class ResultGone(VendoError):
    """The result of a job is not kept any more."""

    code = "dvm.result_gone"
    status = 410
    remedy = "Large results are kept as long as [blobs] results_mb has room for them; buy it again."
