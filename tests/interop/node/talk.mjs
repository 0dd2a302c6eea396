// A person who talks to an agent by NIP-17 on a relay that asks who reads (NIP-42), with a client of choice.
// DM_SECRET=<hex> node talk.mjs --client=nostr-tools|ndk|applesauce --relay=ws://… --agent=<hex> --text=… --expect=… [--wait=30]
import { end, options, within } from './peer.mjs'
import NDK, { giftUnwrap, giftWrap, NDKEvent, NDKPrivateKeySigner, NDKRelayAuthPolicies, NDKUser } from '@nostr-dev-kit/ndk'
import { GiftWrapFactory, WrappedMessageFactory } from 'applesauce-common/factories'
import { unlockGiftWrap } from 'applesauce-common/helpers/gift-wrap'
import { Relay as AppleRelay } from 'applesauce-relay'
import { PrivateKeySigner } from 'applesauce-signers'
import { unwrapEvent, wrapManyEvents } from 'nostr-tools/nip17'
import { SimplePool } from 'nostr-tools/pool'
import { finalizeEvent, getPublicKey } from 'nostr-tools/pure'
import { filter, firstValueFrom, timeout } from 'rxjs'

const given = options('client', 'relay', 'agent', 'text', 'expect')
const hex = process.env.DM_SECRET
const secret = Uint8Array.from(Buffer.from(hex, 'hex'))
const me = getPublicKey(secret)
const own = []
const wait = Number(given.wait ?? 30)
within(wait, () => ({ own }))

function take(rumor) {
  if (rumor.pubkey === me) own.push(rumor.content)
  if (rumor.pubkey !== given.agent || rumor.kind !== 14) return
  if (!rumor.content.startsWith(given.expect)) return // an answer to an earlier letter
  const to = rumor.tags.filter((tag) => tag[0] === 'p').map((tag) => tag[1])
  end({ ok: true, me, own, reply: rumor.content, from: rumor.pubkey, to })
}

const now = () => Math.floor(Date.now() / 1000)
const inbox = { kinds: [1059], '#p': [me], since: now() - 3 * 86_400 }

async function nostrTools() {
  const prove = async (template) => finalizeEvent(template, secret)
  const pool = new SimplePool({ automaticallyAuth: () => prove })
  pool.subscribeMany([given.relay], inbox, { onauth: prove, onevent: (wrap) => take(unwrapEvent(wrap, secret)) })
  const wraps = wrapManyEvents(secret, [{ publicKey: given.agent, relayUrl: given.relay }], given.text)
  await Promise.all(wraps.flatMap((wrap) => pool.publish([given.relay], wrap, { onauth: prove })))
}

async function ndk() {
  const signer = new NDKPrivateKeySigner(hex)
  const kit = new NDK({ explicitRelayUrls: [given.relay], signer, enableOutboxModel: false, aiGuardrails: false })
  kit.relayAuthDefaultPolicy = NDKRelayAuthPolicies.signIn({ ndk: kit, signer })
  await kit.connect(4000)
  kit.subscribe(inbox, { closeOnEose: false }).on('event', async (wrap) => take(await giftUnwrap(wrap, undefined, signer)))
  for (const receiver of [given.agent, me]) {
    const tags = [['p', given.agent]]
    const rumor = new NDKEvent(kit, { kind: 14, content: given.text, tags, created_at: now(), pubkey: me })
    await (await giftWrap(rumor, new NDKUser({ pubkey: receiver }), signer)).publish()
  }
}

async function applesauce() {
  const signer = new PrivateKeySigner(secret)
  const relay = new AppleRelay(given.relay)
  const rumor = WrappedMessageFactory.create(given.agent, given.text)
  for (const receiver of [given.agent, me]) {
    const sent = await relay.publish(await GiftWrapFactory.create(signer, receiver, rumor))
    if (!sent.ok) throw new Error(sent.message)
  }
  if (!relay.challenge) await firstValueFrom(relay.challenge$.pipe(filter(Boolean), timeout(8000)))
  await relay.authenticate(signer)
  relay.subscription(inbox).subscribe(async (wrap) => {
    if (typeof wrap === 'object' && wrap.id) take(await unlockGiftWrap(wrap, signer))
  })
}

await { 'nostr-tools': nostrTools, ndk, applesauce }[given.client]().catch((error) =>
  end({ ok: false, own, error: String(error.stack ?? JSON.stringify(error)) }),
)
