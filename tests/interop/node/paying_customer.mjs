// A plain NIP-90 customer made of nostr-tools: reads the invoice in the quote, has its wallet pay it, takes the result.
// node paying_customer.mjs --relay=ws://… --provider=<hex> --text=… --wallet=http://…/pay [--kind=5050] [--delay=0]
import { end, options, within } from './peer.mjs'
import { SimplePool } from 'nostr-tools/pool'
import { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'

const given = options('relay', 'provider', 'text', 'wallet')
const kind = Number(given.kind ?? 5050)
const secret = generateSecretKey()
const me = getPublicKey(secret)
const pool = new SimplePool()
const report = { customer: me, statuses: [], amount: '', invoice: '', paid: 0, results: 0 }
within(Number(given.wait ?? 50), () => report)

const job = finalizeEvent(
  {
    kind,
    created_at: Math.floor(Date.now() / 1000),
    content: '',
    tags: [
      ['i', given.text, 'text'],
      ['relays', given.relay],
      ['p', given.provider],
    ],
  },
  secret,
)
const tag = (event, name) => event.tags.find((one) => one[0] === name)

async function pay(invoice) {
  report.invoice = invoice
  await new Promise((resolve) => setTimeout(resolve, Number(given.delay ?? 0) * 1000))
  const answer = await fetch(given.wallet, { method: 'POST', body: invoice })
  if (!answer.ok) end({ ok: false, ...report, error: await answer.text() })
  report.paid += 1
}

function take(event) {
  if (!verifyEvent(event) || event.pubkey !== given.provider) return
  if (event.kind === 7000) {
    const status = tag(event, 'status')?.[1] ?? ''
    report.statuses.push(status)
    if (status === 'error') end({ ok: false, ...report, error: (tag(event, 'status') ?? []).slice(2).join(' ') })
    const [, amount, invoice] = tag(event, 'amount') ?? []
    if (status === 'payment-required' && invoice && !report.invoice) {
      report.amount = amount
      pay(invoice).catch((error) => end({ ok: false, ...report, error: String(error) }))
    }
  }
  if (event.kind === kind + 1000) {
    report.results += 1
    end({ ok: true, ...report, request: job.id, result: event.content, answers: tag(event, 'e')?.[1] ?? '' })
  }
}

pool.subscribeMany([given.relay], { kinds: [7000, kind + 1000], '#e': [job.id] }, { onevent: take })
await Promise.all(pool.publish([given.relay], job)).catch((error) => end({ ok: false, error: String(error) }))
