// A person's NIP-17 client made of nostr-tools: sends an agent one encrypted DM and decrypts the reply.
// DM_SECRET=<hex> node dm.mjs --relay=ws://… --agent=<hex> --text=… [--wait=30]
import { end, options, within } from './peer.mjs'
import { unwrapEvent, wrapManyEvents } from 'nostr-tools/nip17'
import { SimplePool } from 'nostr-tools/pool'
import { getPublicKey, verifyEvent } from 'nostr-tools/pure'

const given = options('relay', 'agent', 'text')
const secret = Uint8Array.from(Buffer.from(process.env.DM_SECRET, 'hex'))
const me = getPublicKey(secret)
const pool = new SimplePool()
const seen = new Set()
const own = []
const forged = []
const wait = Number(given.wait ?? 30)
within(wait, () => ({ own, forged }))

function take(wrap) {
  if (!verifyEvent(wrap)) return forged.push(wrap.id)
  const rumor = unwrapEvent(wrap, secret)
  if (seen.has(rumor.id)) return
  seen.add(rumor.id)
  if (rumor.pubkey === me) return own.push(rumor.content)
  if (rumor.pubkey !== given.agent) return
  end({
    ok: forged.length === 0,
    me,
    own,
    forged,
    reply: rumor.content,
    kind: rumor.kind,
    from: rumor.pubkey,
    addressed_to: rumor.tags.find((tag) => tag[0] === 'p')?.[1] ?? '',
    wrap_kind: wrap.kind,
    wrap_signed_by: wrap.pubkey,
    backdated_by_s: Math.floor(Date.now() / 1000) - wrap.created_at,
  })
}

// Wraps are dated back by up to two days, so `since` must reach further than that.
const since = Math.floor(Date.now() / 1000) - 3 * 86_400
pool.subscribeMany([given.relay], { kinds: [1059], '#p': [me], since }, { onevent: take })
const wraps = wrapManyEvents(secret, [{ publicKey: given.agent, relayUrl: given.relay }], given.text)
await Promise.all(wraps.flatMap((wrap) => pool.publish([given.relay], wrap))).catch((error) =>
  end({ ok: false, error: String(error) }),
)
