// NIP-17 by three clients: opens the gift wraps that it is given, and writes one back with each.
// stdin: {"secret": hex, "peer": hex, "text": …, "wraps": [event, …]}  stdout: {"ok", "letters": {client: {read, made}}}
import { end, within } from './peer.mjs'
import { text } from 'node:stream/consumers'
import NDK, { giftUnwrap, giftWrap, NDKEvent, NDKPrivateKeySigner, NDKUser } from '@nostr-dev-kit/ndk'
import { GiftWrapFactory, WrappedMessageFactory } from 'applesauce-common/factories'
import { unlockGiftWrap } from 'applesauce-common/helpers/gift-wrap'
import { PrivateKeySigner } from 'applesauce-signers'
import { unwrapEvent, wrapEvent } from 'nostr-tools/nip17'
import { getPublicKey } from 'nostr-tools/pure'

const given = JSON.parse(await text(process.stdin))
const secret = Uint8Array.from(Buffer.from(given.secret, 'hex'))
within(20, () => ({ letters: {} }))

const copy = (event) => JSON.parse(JSON.stringify(event))
const plain = (rumor) => ({
  id: rumor.id,
  kind: rumor.kind,
  pubkey: rumor.pubkey,
  content: rumor.content,
  tags: rumor.tags,
  created_at: rumor.created_at,
})

async function nostrTools() {
  return {
    read: given.wraps.map((wrap) => plain(unwrapEvent(copy(wrap), secret))),
    made: wrapEvent(secret, { publicKey: given.peer }, given.text, 'a subject'),
  }
}

async function ndk() {
  const signer = new NDKPrivateKeySigner(given.secret)
  const client = new NDK({ signer, enableOutboxModel: false, aiGuardrails: false })
  const read = []
  for (const wrap of given.wraps) read.push(plain(await giftUnwrap(new NDKEvent(client, copy(wrap)), undefined, signer)))
  const rumor = new NDKEvent(client, {
    kind: 14,
    content: given.text,
    tags: [
      ['p', given.peer],
      ['subject', 'a subject'],
    ],
    created_at: Math.floor(Date.now() / 1000),
    pubkey: getPublicKey(secret),
  })
  const made = await giftWrap(rumor, new NDKUser({ pubkey: given.peer }), signer)
  return { read, made: made.rawEvent() }
}

async function applesauce() {
  const signer = new PrivateKeySigner(secret)
  const read = []
  for (const wrap of given.wraps) read.push(plain(await unlockGiftWrap(copy(wrap), signer)))
  const rumor = WrappedMessageFactory.create(given.peer, given.text).subject('a subject')
  return { read, made: copy(await GiftWrapFactory.create(signer, given.peer, rumor)) }
}

const letters = {}
for (const [name, client] of Object.entries({ 'nostr-tools': nostrTools, ndk, applesauce })) {
  try {
    letters[name] = await client()
  } catch (error) {
    letters[name] = { error: String(error.stack ?? error) }
  }
}
end({ ok: true, letters })
