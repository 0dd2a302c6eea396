// The same customer made of NDK: its own event for job requests and its own reading of what a machine asks for.
// node ndk_customer.mjs --relay=ws://… --provider=<hex> --text=… --wallet=http://…/pay [--kind=5050]
import { end, options, within } from './peer.mjs'
import NDK, { NDKDVMJobFeedback, NDKDVMJobResult, NDKDVMRequest, NDKPrivateKeySigner } from '@nostr-dev-kit/ndk'

const given = options('relay', 'provider', 'text', 'wallet')
const kind = Number(given.kind ?? 5050)
const signer = NDKPrivateKeySigner.generate()
const ndk = new NDK({ explicitRelayUrls: [given.relay], signer, enableOutboxModel: false })
const me = (await signer.user()).pubkey
const report = { customer: me, statuses: [], amount: '', invoice: '', paid: 0, results: 0 }
within(Number(given.wait ?? 50), () => report)

async function pay(invoice) {
  report.invoice = invoice
  const answer = await fetch(given.wallet, { method: 'POST', body: invoice })
  if (!answer.ok) end({ ok: false, ...report, error: await answer.text() })
  report.paid += 1
}

await ndk.connect(5000)
const job = new NDKDVMRequest(ndk)
job.kind = kind
job.addInput(given.text, 'text')
job.tags.push(['relays', given.relay], ['p', given.provider])
await job.sign(signer)

const answers = ndk.subscribe({ kinds: [7000, kind + 1000], '#e': [job.id] }, { closeOnEose: false, groupable: false })
answers.on('event', async (event) => {
  if (event.pubkey !== given.provider) return
  if (event.kind === 7000) {
    const feedback = await NDKDVMJobFeedback.from(event)
    report.statuses.push(feedback.status)
    const [, amount, invoice] = event.getMatchingTags('amount')[0] ?? []
    if (feedback.status === 'payment-required' && invoice && !report.invoice) {
      report.amount = amount
      pay(invoice).catch((error) => end({ ok: false, ...report, error: String(error) }))
    }
    return
  }
  const result = NDKDVMJobResult.from(event)
  report.results += 1
  end({ ok: true, ...report, request: job.id, result: result.result, answers: event.tagValue('e') })
})
await job.publish()
