// A wallet made of cashu-ts: makes tokens, plain or locked (NUT-11), and takes them.
// node cashu_wallet.mjs --mint=http://… --do=send '--asked=[{"sat": 8, "lock": {"pubkey": "02…", "locktime": …}}]'
// node cashu_wallet.mjs --mint=http://… --do=receive --token=cashuB… [--secret=<hex>]
import { end, options, within } from './peer.mjs'
import { given as coinsFor, opened } from './cashu_part.mjs'
import { getEncodedTokenV4 } from '@cashu/cashu-ts'

const given = options('mint', 'do')
within(Number(given.wait ?? 50), () => ({}))

async function send(wallet) {
  const made = []
  for (const { sat, lock } of JSON.parse(given.asked)) {
    const proofs = await coinsFor(wallet, sat, lock)
    const token = getEncodedTokenV4({ mint: given.mint, proofs, unit: 'sat' })
    made.push({ token, secrets: proofs.map((one) => one.secret) })
  }
  return { made }
}

async function receive(wallet) {
  const proofs = await wallet.receive(given.token, given.secret ? { privkey: given.secret } : {})
  return { sat: proofs.reduce((sum, one) => sum + Number(one.amount), 0) }
}

const work = given.do === 'send' ? send : receive
opened(given.mint).then(work).then(
  (report) => end({ ok: true, ...report }),
  (error) => end({ ok: false, error: String(error?.message ?? error) }),
)
