// A machine made of nostr-tools that sells over Lightning alone: one job, with an invoice of a Cashu mint.
// node lightning_dvm.mjs --relay=ws://… --mint=http://… --sat=21 --text=<the input it serves> [--when=before|after] [--kind=5050] [--wait=50]
import { end, options, within } from './peer.mjs'
import { SimplePool } from 'nostr-tools/pool'
import { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'

const given = options('relay', 'mint', 'sat', 'text')
const kind = Number(given.kind ?? 5050)
const after = given.when === 'after'
const secret = generateSecretKey()
const me = getPublicKey(secret)
const pool = new SimplePool()
const now = () => Math.floor(Date.now() / 1000)
const report = { machine: me, quotes: [], polls: 0, messages: 0 }
within(Number(given.wait ?? 50), () => report)

function say(kind, content, tags) {
  return Promise.all(pool.publish([given.relay], finalizeEvent({ kind, created_at: now(), content, tags }, secret)))
}

async function mint(path, body) {
  const answer = await fetch(`${given.mint}/v1/mint/quote/bolt11${path}`, {
    method: body ? 'POST' : 'GET',
    headers: { 'content-type': 'application/json' },
    body: body && JSON.stringify(body),
  })
  if (!answer.ok) throw new Error(`the mint says ${answer.status}: ${await answer.text()}`)
  return answer.json()
}

async function paid(quote) {
  for (;;) {
    report.polls += 1
    const seen = await mint(`/${quote.quote}`).catch(() => ({})) // a mint that is busy is asked again
    if (['PAID', 'ISSUED'].includes(seen.state)) return
    await new Promise((resolve) => setTimeout(resolve, 250))
  }
}

let busy = false
async function serve(job) {
  const text = job.tags.find((tag) => tag[0] === 'i')?.[1]
  if (busy || !verifyEvent(job) || text !== given.text) return
  busy = true
  const about = [['e', job.id], ['p', job.pubkey]]
  const quote = await mint('', { amount: Number(given.sat), unit: 'sat' })
  report.quotes.push(quote.quote)
  const amount = ['amount', String(Number(given.sat) * 1000), quote.request]
  const result = () => say(kind + 1000, text, [...about, ['request', JSON.stringify(job)], ...(after ? [amount] : [])])
  if (after) {
    await result()
    await paid(quote)
  } else {
    await say(7000, '', [['status', 'payment-required', 'pay me'], amount, ...about])
    await paid(quote)
    await say(7000, '', [['status', 'processing'], ...about])
    await result()
  }
  end({ ok: true, ...report, request: job.id, customer: job.pubkey, pays: job.tags.filter((tag) => tag[0] === 'pay') })
}

pool.subscribeMany([given.relay], { kinds: [1059], '#p': [me] }, { onevent: () => (report.messages += 1) })
pool.subscribeMany(
  [given.relay],
  { kinds: [kind], since: now() - 60 },
  { onevent: (job) => serve(job).catch((error) => end({ ok: false, ...report, error: String(error) })) },
)
await say(31990, JSON.stringify({ name: 'a foreign machine' }), [['d', 'echo'], ['k', String(kind)]])
