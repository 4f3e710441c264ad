/** One WebSocket of the program under test: handshake, registration or login, stanzas. */

import { S_WHATSAPP_NET, decodeBinaryNode, encodeBinaryNode, getBinaryNodeChild } from './library.js'
import { Noise } from './noise.js'
import { node, seconds } from './nodes.js'
import { Pairing } from './pairing.js'
import { answer } from './queries.js'

/** @typedef {import('./library.js').BinaryNode} BinaryNode */
/** @typedef {import('./server.js').Server} Server */

export class Connection {
	/** While the program isn't paired. @type {Pairing | undefined} */
	pairing
	/** Whether it wants what waits for it. */
	active = false
	#socket
	#server
	#noise = new Noise()
	/** @type {'hello' | 'finish' | 'open'} */
	#stage = 'hello'
	/** What is to be sent when the state behind it is saved; null ends the connection. @type {((() => Buffer) | null)[]} */
	#out = []
	#delayed = Promise.resolve()
	#ids = 0

	/** @param {any} socket of the `ws` library @param {Server} server */
	constructor(socket, server) {
		this.#socket = socket
		this.#server = server
		socket.on('message', (/** @type {Buffer} */ data) => {
			try {
				for (const frame of this.#noise.frames(data)) server.run(() => this.#frame(frame)).catch((error) => this.#fail(error))
			} catch (error) {
				this.#fail(error)
			}
		})
		socket.on('error', () => this.cut())
		socket.on('close', () => server.left(this))
	}

	/** Send after the work at hand is saved. @param {BinaryNode} stanza */
	send(stanza) {
		const encoded = encodeBinaryNode(stanza)
		this.#out.push(() => this.#noise.seal(encoded))
	}

	/** A question of the server's own. @param {BinaryNode[]} content */
	ask(content) {
		this.send(node('iq', { from: S_WHATSAPP_NET, type: 'set', id: `s${++this.#ids}` }, content))
	}

	/** Send a last stanza and close. @param {BinaryNode} stanza */
	end(stanza) {
		this.send(stanza)
		this.hangUp()
	}

	/** Close after what was sent. */
	hangUp() {
		this.active = false
		this.#out.push(null)
	}

	/** Close without a word. */
	cut() {
		this.active = false
		this.#socket.terminate()
	}

	/** Let out what was to be sent, as the faults allow. */
	flush() {
		const { silent, delay_ms: delay } = this.#server.faults
		if (silent) return
		for (const item of this.#out.splice(0)) {
			this.#delayed = this.#delayed.then(async () => {
				if (delay) await new Promise((resolve) => setTimeout(resolve, delay))
				if (item === null) this.#socket.close()
				else this.#socket.send(item())
			})
		}
	}

	/** @param {Buffer} frame */
	async #frame(frame) {
		if (this.#stage === 'hello') {
			this.#stage = 'finish'
			const hello = this.#noise.hello(frame)
			this.#out.push(() => hello)
		} else if (this.#stage === 'finish') {
			this.#stage = 'open'
			const { key, payload } = this.#noise.finish(frame)
			this.#enter(key, payload)
		} else await this.#stanza(await decodeBinaryNode(this.#noise.unseal(frame)))
	}

	/** @param {Buffer} key @param {import('./library.js').proto.ClientPayload} payload */
	#enter(key, payload) {
		const { data, faults } = this.#server
		if (faults.refuse) return this.end(node('failure', { reason: String(faults.refuse) }))
		if (payload.devicePairingData) {
			this.pairing = new Pairing(this.#server, this, key, payload.devicePairingData)
			return this.pairing.offer()
		}
		const { companion, account } = data
		const named = String(payload.username) === account.phone && payload.device === companion?.device
		if (!named || !companion?.noise.equals(key)) return this.end(node('failure', { reason: '401', location: 'frc' }))
		this.#server.entered(this)
		this.send(node('success', { t: seconds(), lid: this.#server.companionJid }))
	}

	/** @param {BinaryNode} stanza */
	async #stanza(stanza) {
		const { messages } = this.#server
		const { tag, attrs } = stanza
		if (tag === 'iq' && attrs.type === 'result') {
			if (getBinaryNodeChild(stanza, 'pair-device-sign')) this.pairing?.confirm(stanza)
		} else if (tag === 'iq') {
			const content = await answer(this.#server, this, stanza)
			if (content) this.send(node('iq', { from: S_WHATSAPP_NET, type: 'result', id: attrs.id ?? '' }, content))
		}
		if (this.pairing) return
		if (tag === 'message') await messages.sent(this, stanza)
		if (tag === 'receipt') await messages.received(stanza)
		if (tag === 'ack') messages.acknowledged(stanza)
	}

	/** @param {unknown} error */
	#fail(error) {
		this.#server.data.violations.push(error instanceof Error ? error.message : String(error))
		this.#server.store.save()
		this.cut()
	}
}
