// What every script here begins with: crypto and WebSocket where an older Node has none, and one way to end.
import { webcrypto } from 'node:crypto'
import WebSocket from 'ws'

globalThis.crypto ??= webcrypto
globalThis.WebSocket ??= WebSocket

/** The values of --name=value arguments; every name is required. */
export function options(...names) {
  const given = Object.fromEntries(
    process.argv.slice(2).map((part) => {
      const at = part.indexOf('=')
      return [part.slice(2, at), part.slice(at + 1)]
    }),
  )
  const missing = names.filter((name) => !(name in given))
  if (missing.length) end({ ok: false, error: `missing: ${missing.map((name) => `--${name}=`).join(' ')}` })
  return given
}

let ended = false

/** Print the one JSON object of this run and leave. */
export function end(report) {
  if (ended) return
  ended = true
  process.stdout.write(JSON.stringify(report) + '\n', () => process.exit(report.ok ? 0 : 1))
}

/** Give up after so many seconds, with what is known by then. */
export function within(seconds, report) {
  setTimeout(() => end({ ...report(), ok: false, error: `nothing more came within ${seconds} s` }), seconds * 1000)
}
