// A relay as three client libraries use it: each step is tried by each client and its outcome told.
// node relay_use.mjs --relay=ws://…      stdout: {"ok", "steps": {client: {step: true | "what went wrong"}}}
import { end, options, within } from './peer.mjs'
import WebSocket from 'ws'
import NDK, { NDKEvent, NDKPrivateKeySigner, NDKRelayAuthPolicies, giftUnwrap, giftWrap, NDKUser } from '@nostr-dev-kit/ndk'
import { Relay as AppleRelay } from 'applesauce-relay'
import { PrivateKeySigner } from 'applesauce-signers'
import { filter, firstValueFrom, lastValueFrom, timeout, toArray } from 'rxjs'
import * as nip11 from 'nostr-tools/nip11'
import { unwrapEvent, wrapEvent } from 'nostr-tools/nip17'
import { nip77 } from 'nostr-tools'
import { finalizeEvent, generateSecretKey, getPublicKey, verifyEvent } from 'nostr-tools/pure'
import { Relay, useWebSocketImplementation } from 'nostr-tools/relay'

useWebSocketImplementation(WebSocket)
const { NegentropyStorageVector, NegentropySync } = nip77
const given = options('relay')
const url = given.relay
const steps = { 'nostr-tools': {}, ndk: {}, applesauce: {} }
within(Number(given.wait ?? 50), () => ({ steps }))

const now = () => Math.floor(Date.now() / 1000)
const note = (secret, more = {}) => finalizeEvent({ kind: 1, created_at: now(), content: '', tags: [], ...more }, secret)
const person = () => {
  const secret = generateSecretKey()
  return { secret, pubkey: getPublicKey(secret) }
}
const must = (holds, what) => {
  if (!holds) throw new Error(what)
}
const same = (found, wanted) => {
  const [one, two] = [[...found].sort(), [...wanted].sort()].map((list) => JSON.stringify(list))
  must(one === two, `${one} is not ${two}`)
}
const soon = (promise, what) =>
  Promise.race([promise, new Promise((_, no) => setTimeout(() => no(new Error(`waited for ${what}`)), 6000))])

async function step(client, name, work) {
  try {
    await work()
    steps[client][name] = true
  } catch (error) {
    steps[client][name] = String(error.stack ?? JSON.stringify(error)).slice(0, 600)
  }
}

// ---- nostr-tools

const stored = (relay, ...filters) =>
  soon(
    new Promise((done, no) => {
      const found = []
      const sub = relay.subscribe(filters, {
        onevent: (event) => found.push(event),
        oninvalidevent: () => no(new Error('an invalid event')),
        oneose: () => {
          done(found)
          sub.close()
        },
        onclose: (reason) => no(new Error(reason)),
      })
    }),
    'EOSE',
  )
const ids = (events) => events.map((event) => event.id)

async function nostrTools() {
  const client = 'nostr-tools'
  const { secret, pubkey } = person()
  const relay = await Relay.connect(url)
  const mine = { authors: [pubkey] }
  const notes = [0, 1, 2, 3].map((number) => note(secret, { content: `note ${number}`, created_at: now() - 10 + number }))
  await step(client, 'information', async () => {
    const found = await nip11.fetchRelayInformation(url)
    for (const nip of [1, 9, 11, 42, 45, 50, 77]) must(found.supported_nips.includes(nip), `NIP-${nip} is not named`)
  })
  await step(client, 'publish and read', async () => {
    for (const event of notes) await relay.publish(event)
    same(ids(await stored(relay, mine)), ids(notes))
    same(ids(await stored(relay, { ...mine, limit: 2 })), ids(notes.slice(2)))
    same(ids(await stored(relay, { ids: [notes[0].id] }, { ids: [notes[1].id] })), ids(notes.slice(0, 2)))
  })
  await step(client, 'live', async () => {
    const event = note(secret, { kind: 7, content: '+', tags: [['e', notes[0].id]] })
    const heard = new Promise((done) => relay.subscribe([{ '#e': [notes[0].id] }], { onevent: done }))
    await relay.publish(event)
    must((await soon(heard, 'the event')).id === event.id, 'another event came')
  })
  await step(client, 'a forged event is refused', async () => {
    const refused = await relay.publish({ ...notes[0], content: 'forged' }).then(
      () => false,
      (error) => String(error),
    )
    must(String(refused).includes('invalid'), `it said ${refused}`)
  })
  await step(client, 'count', async () => {
    must((await relay.count([{ ...mine, kinds: [1] }], {})) === notes.length, 'a wrong number')
  })
  await step(client, 'search', async () => {
    const event = note(secret, { content: 'a tamarillo for breakfast' })
    await relay.publish(event)
    same(ids(await stored(relay, { ...mine, search: 'tamarillo' })), [event.id])
  })
  await step(client, 'sync', async () => {
    const store = new NegentropyStorageVector()
    const extra = note(secret, { content: 'only here', created_at: now() - 9 })
    for (const event of [notes[0], notes[1], extra]) store.insert(event.created_at, event.id)
    store.seal()
    const [have, need] = [[], []]
    await soon(
      new Promise((done, no) => {
        const sync = new NegentropySync(relay, store, { ...mine, kinds: [1], until: now() - 7 }, {
          onhave: (id) => have.push(id),
          onneed: (id) => need.push(id),
          onclose: (reason) => (reason ? no(new Error(reason)) : done()),
        })
        sync.start()
      }),
      'the end of the sync',
    )
    same(have, [extra.id])
    same(need, ids(notes.filter((event) => event.created_at <= now() - 7).slice(2)))
  })
  await step(client, 'delete', async () => {
    await relay.publish(note(secret, { kind: 5, tags: [['e', notes[0].id]] }))
    same(await stored(relay, { ids: [notes[0].id] }), [])
  })
  await step(client, 'letters after auth', async () => {
    const friend = person()
    const letter = wrapEvent(friend.secret, { publicKey: pubkey }, 'for you alone')
    await relay.publish(letter)
    const refused = await stored(relay, { kinds: [1059], '#p': [pubkey] }).catch((error) => String(error))
    must(String(refused).includes('auth-required'), `it said ${JSON.stringify(refused)}`)
    await relay.auth(async (template) => finalizeEvent(template, secret))
    const [found] = await stored(relay, { kinds: [1059], '#p': [pubkey] })
    must(unwrapEvent(found, secret).content === 'for you alone', 'another letter came')
    const other = await stored(relay, { kinds: [1059], '#p': [friend.pubkey] }).catch(() => [])
    same(other, [])
  })
  relay.close()
}

// ---- NDK

async function ndk() {
  const client = 'ndk'
  const signer = NDKPrivateKeySigner.generate()
  const kit = new NDK({ explicitRelayUrls: [url], signer, enableOutboxModel: false, aiGuardrails: false })
  kit.relayAuthDefaultPolicy = NDKRelayAuthPolicies.signIn({ ndk: kit, signer })
  await kit.connect(4000)
  const me = await signer.user()
  const mine = { authors: [me.pubkey] }
  const fetched = async (filter) => ids([...(await soon(kit.fetchEvents(filter, { groupable: false }), 'EOSE'))])
  const made = []
  await step(client, 'information', async () => {
    const found = await [...kit.pool.relays.values()][0].fetchInfo()
    must(found.supported_nips.includes(42), 'NIP-42 is not named')
  })
  await step(client, 'publish and read', async () => {
    for (const content of ['one', 'two', 'three']) {
      const event = new NDKEvent(kit, { kind: 1, content, tags: [['t', 'ndk']], created_at: now() - 5 })
      await event.publish()
      made.push(event.id)
    }
    same(await fetched({ ...mine, kinds: [1] }), made)
    same(await fetched({ ...mine, '#t': ['ndk'] }), made)
  })
  await step(client, 'live', async () => {
    // somebody else writes: NDK shows its own events to its own subscriptions before a relay has them
    const other = await Relay.connect(url)
    const event = note(generateSecretKey(), { kind: 7, content: '+', tags: [['e', made[0]]] })
    const sub = kit.subscribe({ kinds: [7], '#e': [made[0]] }, { closeOnEose: false, groupable: false })
    const heard = new Promise((done) => sub.on('event', done))
    await soon(new Promise((done) => sub.on('eose', done)), 'EOSE')
    await other.publish(event)
    must((await soon(heard, 'the event')).id === event.id, 'another event came')
    other.close()
  })
  await step(client, 'count', async () => {
    const found = await soon(kit.count({ ...mine, kinds: [1] }), 'the count')
    must(found.count === made.length, `it said ${JSON.stringify(found)}`)
  })
  await step(client, 'replaceable', async () => {
    for (const name of ['first', 'second']) {
      me.profile = { name }
      const event = new NDKEvent(kit, { kind: 0, content: JSON.stringify({ name }), tags: [], created_at: now() - (name === 'first') })
      await event.publish()
    }
    const found = [...(await kit.fetchEvents({ ...mine, kinds: [0] }, { groupable: false }))]
    must(found.length === 1 && JSON.parse(found[0].content).name === 'second', `it has ${found.map((one) => one.content)}`)
  })
  await step(client, 'delete', async () => {
    const event = await kit.fetchEvent(made[0])
    await event.delete('no more', true)
    same(await fetched({ ids: [made[0]] }), [])
  })
  await step(client, 'letters after auth', async () => {
    const friend = NDKPrivateKeySigner.generate()
    const heard = new Promise((done) =>
      kit.subscribe({ kinds: [1059], '#p': [me.pubkey] }, { closeOnEose: false, groupable: false }).on('event', done),
    )
    const rumor = new NDKEvent(kit, { kind: 14, content: 'for you', tags: [['p', me.pubkey]], created_at: now(), pubkey: (await friend.user()).pubkey })
    await (await giftWrap(rumor, new NDKUser({ pubkey: me.pubkey }), friend)).publish()
    must((await giftUnwrap(await soon(heard, 'the letter'), undefined, signer)).content === 'for you', 'another letter')
  })
  for (const relay of kit.pool.relays.values()) relay.disconnect()
}

// ---- applesauce

async function applesauce() {
  const client = 'applesauce'
  const { secret, pubkey } = person()
  const signer = new PrivateKeySigner(secret)
  const relay = new AppleRelay(url)
  const mine = { authors: [pubkey] }
  const all = (wanted) => lastValueFrom(relay.request(wanted).pipe(timeout(6000), toArray()))
  const notes = [0, 1, 2].map((number) => note(secret, { content: `sauce ${number}`, created_at: now() - 10 + number }))
  await step(client, 'information', async () => {
    const found = await soon(relay.getSupported(), 'the document')
    must(found.includes(77), `it supports ${found}`)
    must((await relay.getLimitations()).max_limit > 0, 'no limits')
  })
  await step(client, 'publish and read', async () => {
    for (const event of notes) must((await relay.publish(event)).ok, 'refused')
    const found = await all(mine)
    must(found.every(verifyEvent), 'an invalid event')
    same(ids(found), ids(notes))
  })
  await step(client, 'live', async () => {
    const event = note(secret, { kind: 7, content: '+' })
    const heard = firstValueFrom(
      relay.subscription({ ...mine, kinds: [7] }).pipe(
        filter((one) => typeof one === 'object' && one.id),
        timeout(6000),
      ),
    )
    await new Promise((go) => setTimeout(go, 300))
    await relay.publish(event)
    must((await heard).id === event.id, 'another event came')
  })
  await step(client, 'count', async () => {
    const found = await firstValueFrom(relay.count({ ...mine, kinds: [1] }).pipe(timeout(6000)))
    must(found.count === notes.length, `it said ${JSON.stringify(found)}`)
  })
  await step(client, 'sync', async () => {
    const [got, sent] = [[], []]
    const store = [notes[0], note(secret, { content: 'only here', created_at: now() - 8 })]
    await soon(
      relay.negentropy(store, { ...mine, kinds: [1] }, async (have, need) => {
        sent.push(...have)
        got.push(...need)
      }),
      'the end of the sync',
    )
    same(got, ids(notes.slice(1)))
    same(sent, [store[1].id])
  })
  await step(client, 'delete', async () => {
    await relay.publish(note(secret, { kind: 5, tags: [['e', notes[0].id]] }))
    same(ids(await all({ ids: [notes[0].id] })), [])
  })
  await step(client, 'letters after auth', async () => {
    const friend = person()
    await relay.publish(wrapEvent(friend.secret, { publicKey: pubkey }, 'for you'))
    if (!relay.challenge) await firstValueFrom(relay.challenge$.pipe(timeout(6000)))
    must((await relay.authenticate(signer)).ok, 'the proof was refused')
    const found = await all({ kinds: [1059], '#p': [pubkey] })
    must(found.length === 1 && unwrapEvent(found[0], secret).content === 'for you', 'another letter')
  })
  relay.close()
}

for (const [name, use] of Object.entries({ 'nostr-tools': nostrTools, ndk, applesauce })) {
  await use().catch((error) => (steps[name]['to begin with'] = String(error.stack ?? error)))
}
end({ ok: true, steps })
