// @nostr-relay/core with its own SQLite store, as its users would put it together.
// node relay.mjs --port=P --db=FILE
import { options } from './peer.mjs'
import { NostrRelay } from '@nostr-relay/core'
import { EventRepositorySqlite } from '@nostr-relay/event-repository-sqlite'
import { Validator } from '@nostr-relay/validator'
import { WebSocketServer } from 'ws'

const given = options('port', 'db')
const store = new EventRepositorySqlite(given.db)
await store.init()
const validator = new Validator()
const quiet = { setLogLevel() {}, debug() {}, info() {}, warn() {}, error: console.error }
const relay = new NostrRelay(store, { maxSubscriptionsPerClient: 2000, logger: quiet })
const server = new WebSocketServer({ host: '127.0.0.1', port: Number(given.port) })

server.on('connection', (socket) => {
  relay.handleConnection(socket)
  socket.on('error', () => socket.terminate())
  socket.on('close', () => relay.handleDisconnect(socket))
  socket.on('message', async (data) => {
    try {
      await relay.handleMessage(socket, await validator.validateIncomingMessage(data))
    } catch (error) {
      socket.send(JSON.stringify(['NOTICE', String(error.message)]))
    }
  })
})

// A search that its SQLite does not like ("language:en") would end the process.
process.on('unhandledRejection', (error) => console.error(error))
process.on('uncaughtException', (error) => console.error(error))
process.on('SIGTERM', async () => {
  server.close()
  await relay.destroy()
  await store.destroy()
  process.exit(0)
})
