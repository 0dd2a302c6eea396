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
├── NoFraud              dvm.no_fraud          409  a proof of fraud was asked for where none can be shown
├── NotDeterministic     dvm.not_deterministic 400  several sellers are to agree on what has no one right answer
├── TooFewSellers        dvm.too_few_sellers   503  fewer sellers of a kind are known than are to do a job
├── Unpriced             dvm.unpriced          503  what is sold for dollars has no price without a fresh rate
├── KindSold             dvm.kind_sold         409  a kind is put up for sale a second time, on other terms
├── NotSold              dvm.not_sold          404  a kind is not for sale
├── ProviderFailed       dvm.provider_failed   502  the work itself did not succeed
├── NotStored            dvm.not_stored        502  a large result of ours is on no file server
├── ResultGone           dvm.result_gone       410  a large result is not kept any more
├── DepositRefused       prepaid.refused       409  no deposit is opened: which rule says so stands in the message
├── NoSuchDeposit        prepaid.no_such_deposit  404
└── VoucherRefused       prepaid.voucher       409  a voucher that is not worked for
    ├── VoucherDeposit   prepaid.deposit       409  of no deposit that the customer has open here
    ├── VoucherExpired   prepaid.expired       409  the deposit can be taken back too soon
    ├── VoucherBusy      prepaid.busy          409  another job of the deposit is at work
    ├── VoucherRequest   prepaid.request       409  for another request
    ├── VoucherSignature prepaid.signature     409  not signed by the deposit's key, or malformed
    ├── VoucherReplayed  prepaid.replayed      409  its number is not above the last one
    ├── VoucherTotal     prepaid.total         409  not what was earned before plus this job's price
    └── VoucherExceeds   prepaid.exceeds       409  above the deposit
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


class NoFraud(VendoError):
    """No fraud can be shown: the job had none, or what is kept of it proves none."""

    code = "dvm.no_fraud"
    status = 409
    remedy = "Only a sealed result that the key which was paid for does not open can be proven a fraud."


class NotDeterministic(InvalidInput):
    """Results of this kind differ though both are good, so that several sellers cannot agree."""

    code = "dvm.not_deterministic"
    remedy = "Leave out redundancy; or name the kind in [policy] deterministic, if its results are always the same."


class TooFewSellers(Unavailable):
    """Fewer sellers of this kind are known than are to do the job."""

    code = "dvm.too_few_sellers"
    remedy = "Ask for fewer, or wait until more have announced themselves: vendo cat /compute/providers"


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


class DepositRefused(VendoError):
    """A deposit is not opened."""

    code = "prepaid.refused"
    status = 409
    unchanged = "No money has moved."
    remedy = "See [settlement] prepaid_msat and prepaid_after, and what the seller takes."


class NoSuchDeposit(NotFound):
    """There is no deposit of ours with this id."""

    code = "prepaid.no_such_deposit"


class VoucherRefused(VendoError):
    """A voucher is not accepted, and nothing is worked for it."""

    code = "prepaid.voucher"
    status = 409
    unchanged = "Nothing was drawn from the deposit."


class VoucherDeposit(VoucherRefused):
    """The voucher is of no deposit that this customer has open here."""

    code = "prepaid.deposit"


class VoucherExpired(VoucherRefused):
    """The deposit could be taken back before the job is paid for."""

    code = "prepaid.expired"
    remedy = "Close the deposit and open another one."


class VoucherBusy(VoucherRefused):
    """Another job is at work for this deposit."""

    code = "prepaid.busy"
    remedy = "Wait until that has ended."


class VoucherRequest(VoucherRefused):
    """The voucher is for another request."""

    code = "prepaid.request"


class VoucherSignature(VoucherRefused):
    """The voucher is not signed by the deposit's key, or is no voucher at all."""

    code = "prepaid.signature"


class VoucherReplayed(VoucherRefused):
    """The voucher's number is not above that of the last one."""

    code = "prepaid.replayed"


class VoucherTotal(VoucherRefused):
    """The voucher's total is not what was earned before together with this job's price."""

    code = "prepaid.total"


class VoucherExceeds(VoucherRefused):
    """The voucher's total is above the deposit."""

    code = "prepaid.exceeds"
    remedy = "Close the deposit and open another one."


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
