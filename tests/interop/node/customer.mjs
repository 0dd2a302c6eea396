// A plain NIP-90 customer made of nostr-tools: asks one machine for one free job and reads what comes back.
// node customer.mjs --relay=ws://… --provider=<hex> --text=… [--kind=5050] [--wait=20]
import { end, options, within } from './peer.mjs'
import { SimplePool } from 'nostr-tools/pool'
import { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'

const given = options('relay', 'provider', 'text')
const kind = Number(given.kind ?? 5050)
const secret = generateSecretKey()
const me = getPublicKey(secret)
const pool = new SimplePool()

const job = finalizeEvent(
  {
    kind,
    created_at: Math.floor(Date.now() / 1000),
    content: '',
    tags: [
      ['i', given.text, 'text'],
      ['output', 'text/plain'],
      ['relays', given.relay],
      ['p', given.provider],
    ],
  },
  secret,
)
const statuses = []
const forged = []
within(Number(given.wait ?? 20), () => ({ request: job.id, statuses, forged }))

const tag = (event, name) => event.tags.find((one) => one[0] === name)

function take(event) {
  if (!verifyEvent(event)) return forged.push(event.id)
  if (event.pubkey !== given.provider) return
  if (event.kind === 7000) {
    statuses.push(tag(event, 'status')?.[1] ?? '')
    if (statuses.at(-1) === 'error') {
      const error = [event.content, ...(tag(event, 'status') ?? []).slice(2)].filter(Boolean).join(' ')
      end({ ok: false, request: job.id, statuses, forged, error })
    }
  }
  if (event.kind === kind + 1000) {
    const request = tag(event, 'request')
    end({
      ok: forged.length === 0,
      request: job.id,
      customer: me,
      statuses,
      forged,
      result: event.content,
      result_kind: event.kind,
      signed_by: event.pubkey,
      addressed_to: tag(event, 'p')?.[1] ?? '',
      answers: tag(event, 'e')?.[1] ?? '',
      request_is_quoted: request !== undefined && JSON.parse(request[1]).id === job.id,
    })
  }
}

pool.subscribeMany([given.relay], { kinds: [7000, kind + 1000], '#e': [job.id] }, { onevent: take })
await Promise.all(pool.publish([given.relay], job)).catch((error) => end({ ok: false, error: String(error) }))
