// What scripts with cashu-ts share: a wallet at a mint, and coins from an invoice that pays itself.
import { Wallet } from '@cashu/cashu-ts'

/** A wallet that has the mint's keysets. */
export async function opened(mint) {
  const wallet = new Wallet(mint, { unit: 'sat' })
  await wallet.loadMint()
  return wallet
}

/** Coins of so many sats. */
export async function funded(wallet, sat) {
  const quote = await wallet.createMintQuoteBolt11(sat)
  for (let tries = 0; tries < 100; tries++) {
    if ((await wallet.checkMintQuoteBolt11(quote.quote)).state === 'PAID') return wallet.mintProofsBolt11(sat, quote.quote)
    await new Promise((resolve) => setTimeout(resolve, 200))
  }
  throw new Error('the invoice was not paid')
}

/** Coins of exactly so many sats for somebody else, locked (NUT-11) if `lock` says to whom. */
export async function given(wallet, sat, lock) {
  const coins = await funded(wallet, sat + 16)
  const made = await wallet.send(sat, coins, {}, lock ? { send: { type: 'p2pk', options: lock } } : undefined)
  return made.send
}
