/** The unmodified library as a client of the server. */

import '../preload.js'
import '../silence.js'

import { BufferJSON, initAuthCreds, makeWASocket } from '../library.js'
import { until } from './support.js'

/** @type {any} */
const QUIET = { level: 'silent', child: () => QUIET, trace() {}, debug() {}, info() {}, warn() {}, error() {} }

export class Client {
	creds = initAuthCreds()
	/** @type {Record<string, any>} */
	keys = {}
	/** @type {any[]} */
	messages = []
	/** @type {any[]} */
	updates = []
	/** @type {any[]} */
	acks = []
	/** @type {number[]} */
	ends = []
	qr = ''
	open = false
	/** @type {import('../library.js').WASocket | undefined} */
	socket
	/** @type {Map<string, any>} */
	sent = new Map()

	/** @param {string} url */
	constructor(url) {
		this.url = url
	}

	/** Connect, and once more when the server asks for it. */
	connect() {
		const socket = makeWASocket({
			auth: { creds: this.creds, keys: this.#store() },
			logger: QUIET,
			waWebSocketUrl: this.url,
			shouldSyncHistoryMessage: () => false,
			markOnlineOnConnect: false,
			getMessage: async ({ id }) => this.sent.get(id ?? ''),
		})
		this.socket = socket
		socket.ev.on('creds.update', (update) => Object.assign(this.creds, update))
		socket.ev.on('connection.update', ({ qr, connection, lastDisconnect }) => {
			if (qr) this.qr = qr
			if (connection === 'open') this.open = true
			if (connection === 'close') {
				this.open = false
				const code = /** @type {any} */ (lastDisconnect?.error)?.output?.statusCode
				this.ends.push(code)
				if (code === 515) this.connect()
			}
		})
		socket.ev.on('messages.upsert', ({ messages, type }) => this.messages.push(...messages.map((message) => ({ ...message, type }))))
		socket.ev.on('messages.update', (updates) => this.updates.push(...updates))
		socket.ws.on('CB:ack,class:message', (/** @type {any} */ node) => this.acks.push(node.attrs))
	}

	/** @param {import('./support.js').WhatsApp} server */
	async pair(server) {
		this.connect()
		await server.ask('POST /scan', { qr: await until('a QR is shown', () => this.qr) })
		await this.opened()
	}

	async opened() {
		await until('the client is open', () => this.open)
	}

	async ended() {
		return await until('the connection ends', () => this.ends.shift())
	}

	/** @param {string} jid @param {any} content @param {string} [messageId] */
	async send(jid, content, messageId) {
		const message = await this.socket?.sendMessage(jid, content, messageId ? { messageId } : {})
		const id = message?.key.id ?? ''
		this.sent.set(id, message?.message)
		return id
	}

	/** @param {string} id */
	async ack(id) {
		return await until('the message is acknowledged', () => this.acks.find((ack) => ack.id === id))
	}

	/** @param {string} id @param {number} status */
	async status(id, status) {
		const fits = (/** @type {any} */ one) => one.key.id === id && one.update.status === status
		return (await until(`status ${status}`, () => this.updates.find(fits))).update
	}

	/** @param {string} id */
	async message(id) {
		return await until('the message comes', () => this.messages.find((one) => one.key.id === id && one.message))
	}

	close() {
		this.socket?.end(undefined)
	}

	/** Keys in memory, copied as a file would. @returns {any} */
	#store() {
		const copy = (/** @type {any} */ value) => JSON.parse(JSON.stringify(value, BufferJSON.replacer), BufferJSON.reviver)
		return {
			get: async (/** @type {string} */ type, /** @type {string[]} */ ids) =>
				Object.fromEntries(ids.flatMap((id) => (this.keys[`${type}/${id}`] ? [[id, copy(this.keys[`${type}/${id}`])]] : []))),
			set: async (/** @type {any} */ data) => {
				for (const type in data) {
					for (const id in data[type]) {
						if (data[type][id]) this.keys[`${type}/${id}`] = copy(data[type][id])
						else delete this.keys[`${type}/${id}`]
					}
				}
			},
		}
	}
}
