// A NIP-90 customer made of nostr-tools that encrypts its request, as other clients do, and decrypts the answers.
// node private_customer.mjs --relay=ws://… --provider=<hex> --text=… --scheme=nip04|nip44 [--inside=all] [--wait=20]
// With --inside=all relays and bid are encrypted too, as NDK does it; else only inputs and parameters, as NIP-90 says.
import { end, options, within } from './peer.mjs'
import * as nip04 from 'nostr-tools/nip04'
import * as nip44 from 'nostr-tools/nip44'
import { SimplePool } from 'nostr-tools/pool'
import { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'

const given = options('relay', 'provider', 'text', 'scheme')
const secret = generateSecretKey()
const me = getPublicKey(secret)
const pool = new SimplePool()
const shared = nip44.v2.utils.getConversationKey(secret, given.provider)

const ciphers = {
  nip04: { hide: (text) => nip04.encrypt(secret, given.provider, text), show: (text) => nip04.decrypt(secret, given.provider, text) },
  nip44: { hide: (text) => nip44.v2.encrypt(text, shared), show: (text) => nip44.v2.decrypt(text, shared) },
}
const cipher = ciphers[given.scheme]
const asked = [['i', given.text, 'text'], ['param', 'model', 'any']]
const around = [['relays', given.relay], ['bid', '5000']]
const whole = given.inside === 'all'
const job = finalizeEvent(
  {
    kind: 5050,
    created_at: Math.floor(Date.now() / 1000),
    content: await cipher.hide(JSON.stringify(whole ? [...asked, ...around] : asked)),
    tags: [['p', given.provider], ['encrypted'], ...(whole ? [] : around)],
  },
  secret,
)
const statuses = []
const seen = []
within(Number(given.wait ?? 20), () => ({ request: job.id, statuses }))

async function take(event) {
  if (!verifyEvent(event) || event.pubkey !== given.provider) return
  seen.push(JSON.stringify(event))
  if (event.kind === 7000) statuses.push(event.tags.find((one) => one[0] === 'status')?.[1] ?? '')
  if (event.kind !== 6050) return
  end({
    ok: true,
    customer: me,
    statuses,
    result: await cipher.show(event.content),
    marked: event.tags.some((one) => one[0] === 'encrypted'),
    legacy: event.content.includes('?iv='),
    names: event.tags.filter((one) => ['i', 'request'].includes(one[0])).length,
    answers: event.tags.find((one) => one[0] === 'e')?.[1] === job.id,
    leaked: seen.some((one) => one.includes(given.text)),
  })
}

pool.subscribeMany([given.relay], { kinds: [7000, 6050], '#e': [job.id] }, { onevent: (event) => void take(event).catch((error) => end({ ok: false, error: String(error) })) })
await Promise.all(pool.publish([given.relay], job)).catch((error) => end({ ok: false, error: String(error) }))
