// A remote signer (NIP-46) made of NDK or applesauce. It serves until its standard input ends.
// BUNKER_USER=<hex> node bunker.mjs --client=ndk|applesauce --relays=ws://…,ws://… [--refuse=KIND] [--lie=1] [--call=URI]
// First line: {"bunker", "signer", "user"}. --lie: what it signs is not what it was asked to sign.
import { end, options } from './peer.mjs'
import { randomBytes } from 'node:crypto'
import NDK, { NDKNip46Backend, NDKPrivateKeySigner } from '@nostr-dev-kit/ndk'
import { RelayPool } from 'applesauce-relay'
import { NostrConnectProvider, PrivateKeySigner } from 'applesauce-signers'
import { getPublicKey } from 'nostr-tools/pure'

const given = options('client', 'relays')
const relays = given.relays.split(',')
const hex = process.env.BUNKER_USER
const secret = Uint8Array.from(Buffer.from(hex, 'hex'))
const refused = Number(given.refuse ?? -1)
const password = randomBytes(8).toString('hex')

function ready(signer) {
  const where = relays.map((url) => `relay=${encodeURIComponent(url)}`).join('&')
  const bunker = `bunker://${signer}?${where}&secret=${password}`
  process.stdout.write(JSON.stringify({ bunker, signer, user: getPublicKey(secret) }) + '\n')
}

// Requests are ephemeral: whoever says that it is ready must be subscribed. An answer on the same socket proves it.
function answered(relay) {
  return new Promise((done) => relay.request({ kinds: [0], limit: 1 }).subscribe({ complete: done, error: done }))
}

async function ndk() {
  const signer = new NDKPrivateKeySigner(hex)
  const client = new NDK({ explicitRelayUrls: relays, signer, enableOutboxModel: false, aiGuardrails: false })
  await client.connect(3000)
  const known = new Set()
  const backend = new NDKNip46Backend(
    client,
    signer,
    async ({ method, pubkey, params }) => {
      if (method === 'connect') return known.has(pubkey)
      const kind = method === 'sign_event' ? params.kind : -2
      return known.has(pubkey) && kind !== refused
    },
    relays,
  )
  backend.applyToken = async (pubkey, token) => {
    if (token !== password) throw new Error('wrong secret')
    known.add(pubkey)
  }
  await backend.start()
  await client.fetchEvents({ kinds: [0], limit: 1 })
  ready(getPublicKey(secret))
}

async function applesauce() {
  const upstream = new PrivateKeySigner(secret)
  const sign = upstream.signEvent.bind(upstream)
  if (given.lie) upstream.signEvent = (draft) => sign({ ...draft, content: `${draft.content}, and more` })
  const signer = new PrivateKeySigner()
  const pool = new RelayPool()
  const provider = new NostrConnectProvider({
    relays,
    upstream,
    signer,
    pool,
    bunkerSecret: given.call ? undefined : password,
    onSignEvent: (draft) => draft.kind !== refused,
  })
  await provider.start(given.call)
  await Promise.all(relays.map((url) => answered(pool.relay(url))))
  ready(await signer.getPublicKey())
}

process.stdin.resume()
process.stdin.on('end', () => process.exit(0))
process.on('unhandledRejection', (error) => process.stderr.write(`${error.stack ?? error}\n`))
await { ndk, applesauce }[given.client]().catch((error) => end({ ok: false, error: String(error.stack ?? error) }))
