// A NIP-90 customer that pays by a nutzap (NIP-61): NDK reads where they are taken and makes the event, cashu-ts the coins.
// node nutzap_customer.mjs --relay=ws://… --provider=<hex> --mint=http://… --text=… --sat=… [--kind=5050] [--delay=0]
import { end, options, within } from './peer.mjs'
import { given as coinsFor, opened } from './cashu_part.mjs'
import NDK, { NDKCashuMintList, NDKDVMRequest, NDKNutzap, NDKPrivateKeySigner } from '@nostr-dev-kit/ndk'

const given = options('relay', 'provider', 'mint', 'text', 'sat')
const kind = Number(given.kind ?? 5050)
const signer = NDKPrivateKeySigner.generate()
const ndk = new NDK({ explicitRelayUrls: [given.relay], signer, enableOutboxModel: false })
const me = (await signer.user()).pubkey
const report = { customer: me, statuses: [], nutzap: '', redeemed: false, result: '' }
within(Number(given.wait ?? 50), () => report)

async function zap(quote) {
  const listed = await ndk.fetchEvent({ kinds: [10019], authors: [given.provider] })
  const info = NDKCashuMintList.from(listed)
  report.p2pk = info.p2pk
  report.mints = info.mints
  if (!info.mints.includes(given.mint)) throw new Error(`${given.mint} is not in ${info.mints}`)
  const wallet = await opened(given.mint)
  const coins = await coinsFor(wallet, Number(given.sat), { pubkey: `02${info.p2pk}` })
  const nutzap = new NDKNutzap(ndk)
  nutzap.mint = given.mint
  nutzap.proofs = coins.map(({ id, amount, secret, C, dleq }) => ({ id, amount: Number(amount), secret, C, dleq }))
  nutzap.recipientPubkey = given.provider
  nutzap.tags.push(['e', quote.id, given.relay], ['k', '7000'])
  await nutzap.sign(signer)
  report.valid = nutzap.isValid
  report.nutzap = nutzap.id
  const told = ndk.subscribe({ kinds: [7376], '#e': [nutzap.id] }, { closeOnEose: false, groupable: false })
  told.on('event', (event) => {
    report.redeemed = event.pubkey === given.provider
    ended()
  })
  await new Promise((resolve) => setTimeout(resolve, Number(given.delay ?? 0) * 1000))
  await nutzap.publish()
}

function ended() {
  if (report.result && report.redeemed) end({ ok: true, ...report, request: job.id })
}

await ndk.connect(5000)
const job = new NDKDVMRequest(ndk)
job.kind = kind
job.addInput(given.text, 'text')
job.tags.push(['relays', given.relay], ['p', given.provider])
await job.sign(signer)
const answers = ndk.subscribe({ kinds: [7000, kind + 1000], '#e': [job.id] }, { closeOnEose: false, groupable: false })
answers.on('event', (event) => {
  if (event.pubkey !== given.provider) return
  if (event.kind !== 7000) {
    report.result = event.content
    return ended()
  }
  const [, status] = event.getMatchingTags('status')[0] ?? []
  report.statuses.push(status)
  if (status === 'error') end({ ok: false, ...report, error: event.rawEvent() })
  if (status === 'payment-required' && !report.nutzap && !report.zapping) {
    report.zapping = true
    zap(event).catch((error) => end({ ok: false, ...report, error: String(error?.stack ?? error) }))
  }
})
await job.publish()
