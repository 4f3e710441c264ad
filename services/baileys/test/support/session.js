/** A session with a WhatsApp that acknowledges everything, or as told. */

import { EventEmitter } from 'node:events'

import { makeLog } from '../../src/log.js'

export const ACCOUNT = '+14155238886'

export const silent = makeLog('error', { write: () => undefined })

export class FakeSession extends EventEmitter {
	isOpen = true
	account = ACCOUNT
	me = { id: '14155238886:1@s.whatsapp.net', lid: '998877665544332:1@lid' }
	/** Ids handed to WhatsApp. @type {string[]} */
	sent = []
	/** @type {string | undefined} */
	blocked
	restricted = false
	/** The `error` of each acknowledgement in turn; none any more: accepted. @type {(string | 'silence')[]} */
	errors = []
	/** @type {string[]} */
	devices = ['972501234567']
	onWhatsApp = true
	/** @type {(node: import('baileys').BinaryNode) => void} */
	onAck = () => undefined

	socket = {
		getUSyncDevices: async () => this.devices.map((user) => ({ user, device: 0, jid: `${user}@s.whatsapp.net` })),
		onWhatsApp: async () => [{ jid: '972501234567@s.whatsapp.net', exists: this.onWhatsApp }],
		waUploadToServer: async () => ({ mediaUrl: 'https://example.com/file', directPath: '/file' }),
		relayMessage: async (/** @type {string} */ to, /** @type {unknown} */ _message, /** @type {{messageId: string}} */ { messageId }) => {
			this.sent.push(messageId)
			const error = this.errors.shift()
			if (error === 'silence') return
			setImmediate(() =>
				this.onAck({ tag: 'ack', attrs: { id: messageId, from: to, t: '1772366400', ...(error && { error }) } }),
			)
		},
	}

	/** @param {string} reason */
	block(reason) {
		this.blocked = reason
	}

	restrict() {
		this.restricted = true
		this.isOpen = false
	}
}
