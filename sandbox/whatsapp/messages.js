/** What goes between the program and the phones, each with its own Signal sessions. */

import { randomBytes } from 'node:crypto'

import {
	encodeWAMessage,
	extractE2ESessionFromRetryReceipt,
	generateSignalPubKey,
	getBinaryNodeChild,
	getBinaryNodeChildBuffer,
	getBinaryNodeChildren,
	jidNormalizedUser,
	proto,
} from './library.js'
import { compose, describe, stanzaType } from './content.js'
import { node, seconds } from './nodes.js'
import { verifyDevice } from './pairing.js'

/** @typedef {import('./library.js').BinaryNode} BinaryNode */
/** @typedef {import('./connection.js').Connection} Connection */
/** @typedef {import('./store.js').Contact} Contact */
/** @typedef {import('./store.js').Step} Step */

const MOST_RETRIES = 5

export class Messages {
	#server
	/** How often a phone has asked for a message again, by its id. @type {Map<string, number>} */
	#asked = new Map()

	/** @param {import('./server.js').Server} server */
	constructor(server) {
		this.#server = server
	}

	/** Go on with what contacts were about to do. */
	start() {
		for (const step of this.#server.data.steps) this.#arm(step)
	}

	/** The program is there: give it what waits. @param {Connection} connection */
	deliver(connection) {
		connection.active = true
		const { queue } = this.#server.data
		queue.forEach(({ stanza: { tag, attrs, content } }, index) =>
			connection.send(node(tag, { ...attrs, offline: String(index) }, content)),
		)
		connection.send(node('ib', {}, [node('offline', { count: String(queue.length) })]))
	}

	/** The program sends a message. @param {Connection} connection @param {BinaryNode} stanza */
	async sent(connection, stanza) {
		const { data, faults, media } = this.#server
		const { id = '', to = '' } = stanza.attrs
		const ack = { class: 'message', id, from: to, t: seconds() }
		const error = faults.ack_errors.shift()
		if (error) return connection.send(node('ack', { ...ack, error: String(error) }))
		const contact = this.#server.contact(to)
		let filled = !contact
		for (const { jid, enc } of partsOf(stanza)) {
			const phone = this.#server.phoneAt(jid)
			if (!phone || !data.companion) throw new Error('a message for a phone that does not exist')
			const party = this.#server.party(phone)
			if (enc.attrs.type === 'pkmsg') {
				const identity = getBinaryNodeChildBuffer(stanza, 'device-identity')
				verifyDevice(identity, data.companion.identity, this.#server.phone.identity.public)
			}
			filled ||= phone === contact
			let plaintext
			if (phone === contact && faults.undecryptable > 0) faults.undecryptable -= 1
			else plaintext = await party.decrypt(this.#server.companionJid, enc).catch(() => undefined)
			if (!plaintext) {
				if (phone === contact) this.#askAgain(contact, id, to)
				continue
			}
			const message = proto.Message.decode(plaintext)
			if (stanza.attrs.category === 'peer') continue
			const content = describe(message.deviceSentMessage?.message ?? message, media)
			if (phone === contact) this.#arrived(contact, id, to, content)
			else arrive(data.account.sent, id, to, content)
		}
		if (!filled) data.empty.push(id)
		if (faults.swallow_acks > 0) faults.swallow_acks -= 1
		else connection.send(node('ack', ack))
	}

	/** The program confirms a message, or asks for it again. @param {BinaryNode} receipt */
	async received(receipt) {
		const { id = '', type } = receipt.attrs
		if (type === 'retry') return this.#again(id, receipt)
		const more = getBinaryNodeChildren(getBinaryNodeChild(receipt, 'list'), 'item').map(({ attrs }) => attrs.id)
		for (const one of [id, ...more]) this.#forget(({ tag, attrs }) => tag === 'message' && attrs.id === one)
	}

	/** The program confirms a receipt, or refuses a message. @param {BinaryNode} ack */
	acknowledged(ack) {
		const { class: tag, id = '', type, error } = ack.attrs
		const entry = this.#server.data.queue.find(({ stanza }) => stanza.tag === tag && stanza.attrs.id === id)
		// After a retry receipt comes an error too, and the message is on its way again.
		if (error && entry?.retries) return
		if (error && entry) this.#server.data.refused.push(id)
		this.#forget(({ tag: one, attrs }) => one === tag && attrs.id === id && (tag === 'message' || attrs.type === type))
	}

	/**
	 * A contact, or the account's owner on the phone, writes.
	 *
	 * @param {Contact | null} contact who writes; null for the owner
	 * @param {import('./content.js').Writing} writing
	 * @returns {Promise<string>} the message's id
	 */
	async write(contact, writing) {
		const { account } = this.#server.data
		const id = writing.id ?? `3A${randomBytes(9).toString('hex').toUpperCase()}`
		const mode = writing.from === 'lid' ? 'lid' : 'pn'
		const jid = (/** @type {{phone: string, lid: string}} */ { phone, lid }) =>
			mode === 'lid' ? `${lid}@lid` : `${phone}@s.whatsapp.net`
		const partner = contact ?? this.#server.contact(writing.to ?? '')
		if (!partner) throw new Error(`to: no contact has the address ${writing.to}`)
		const writer = contact ?? account
		const chat = { me: jid(writer), them: jid(contact ? account : partner) }
		let message = compose(writing, chat, this.#server.media)
		const t = seconds(writing.at ? Date.parse(writing.at) : Date.now())
		/** @type {Record<string, string>} */
		const attrs = { from: jid(writer), id, t, type: stanzaType(message) }
		if (contact) attrs.notify = contact.name
		else {
			attrs.recipient = jid(partner)
			message = proto.Message.fromObject({ deviceSentMessage: { destinationJid: jid(partner), message } })
		}
		const other = contact ? 'sender' : 'peer_recipient'
		if (mode === 'lid') attrs.addressing_mode = 'lid'
		if (mode === 'pn') attrs[`${other}_lid`] = `${partner.lid}@lid`
		else if (!writing.hide_phone) attrs[`${other}_pn`] = `${partner.phone}@s.whatsapp.net`
		const forged = writing.plaintext
		const plaintext = forged ? Buffer.from(forged, 'base64') : Buffer.from(encodeWAMessage(message))
		const enc = await this.#server.party(writer).encrypt(await this.#session(writer), plaintext)
		this.#enqueue({ stanza: node('message', attrs, [enc]), sender: writer.phone, plaintext, retries: 0 })
		if (writing.hang_up) this.#server.client?.hangUp()
		return id
	}

	/** @param {{phone: string, id: string, to: string, type: 'delivered' | 'read'}} receipt @param {number} [at] */
	receipt({ id, to, type }, at) {
		const attrs = { from: to, id, t: seconds(at), ...(type === 'read' && { type }) }
		this.#enqueue({ stanza: node('receipt', attrs), retries: 0 })
	}

	/** @param {Contact} contact @param {string} id @param {string} to @param {import('./content.js').Description} content */
	#arrived(contact, id, to, content) {
		const isNew = arrive(contact.received, id, to, content)
		const { phone, delivered_after_ms: delivered, read_after_ms: read } = contact
		const plan = (/** @type {Step['type']} */ type, /** @type {number} */ after, /** @type {string} */ text = '') => {
			const step = { due: Date.now() + after, phone, id, to: jidNormalizedUser(to), type, text }
			this.#server.data.steps.push(step)
			this.#arm(step)
		}
		if (delivered !== null) plan('delivered', delivered)
		if (isNew && read !== null) plan('read', read)
		const answer = contact.answer?.replaceAll('{text}', String(content.text ?? ''))
		if (isNew && answer !== undefined) plan('answer', (read ?? 0) + 500, answer)
	}

	/** @param {Step} step */
	#arm(step) {
		const take = async () => {
			const { data } = this.#server
			data.steps.splice(data.steps.indexOf(step), 1)
			const contact = this.#server.contact(step.to)
			const from = step.to.endsWith('@lid') ? 'lid' : 'phone'
			if (step.type !== 'answer') this.receipt({ ...step, type: step.type })
			else if (contact) await this.write(contact, { type: 'text', text: step.text, from })
		}
		setTimeout(() => this.#server.run(take), Math.max(step.due - Date.now(), 0)).unref()
	}

	/** @param {import('./store.js').Pending} pending */
	#enqueue(pending) {
		this.#server.data.queue.push(pending)
		if (this.#server.client?.active) this.#server.client.send(pending.stanza)
	}

	/** @param {(stanza: BinaryNode) => boolean} test */
	#forget(test) {
		const { data } = this.#server
		data.queue = data.queue.filter(({ stanza }) => !test(stanza))
	}

	/** A phone that can't read a message says so. @param {Contact} contact @param {string} id @param {string} to */
	#askAgain(contact, id, to) {
		const count = (this.#asked.get(id) ?? 0) + 1
		this.#asked.set(id, count)
		if (count > MOST_RETRIES) return
		const content = [
			node('retry', { count: String(count), id, t: seconds(), v: '1' }),
			node('registration', {}, this.#server.party(contact).registration),
		]
		this.#enqueue({ stanza: node('receipt', { from: to, id, type: 'retry', t: seconds() }, content), retries: 0 })
	}

	/** @param {string} id @param {BinaryNode} receipt with which the program asks for a message again */
	async #again(id, receipt) {
		const { queue, refused } = this.#server.data
		const entry = queue.find(({ stanza }) => stanza.tag === 'message' && stanza.attrs.id === id)
		const phone = entry && this.#server.phoneAt(`${entry.sender}@s.whatsapp.net`)
		if (!entry?.plaintext || !phone) return
		entry.retries += 1
		if (entry.retries > MOST_RETRIES) {
			refused.push(id)
			return this.#forget((stanza) => stanza === entry.stanza)
		}
		const party = this.#server.party(phone)
		const bundle = extractE2ESessionFromRetryReceipt(receipt)
		if (bundle) await party.meet(this.#server.companionJid, bundle)
		const enc = await party.encrypt(await this.#session(phone), entry.plaintext)
		enc.attrs.count = String(entry.retries)
		entry.stanza = node('message', entry.stanza.attrs, [enc])
		this.#server.client?.send(entry.stanza)
	}

	/**
	 * A phone's session with the program, made of the keys that the program has uploaded.
	 *
	 * @param {Contact | import('./server.js').Account} phone
	 */
	async #session(phone) {
		const { companion } = this.#server.data
		if (!companion) throw new Error('no program is paired')
		const party = this.#server.party(phone)
		const jid = this.#server.companionJid
		if (await party.knows(jid)) return jid
		const key = (/** @type {{id: Buffer, value: Buffer}} */ { id, value }) => ({
			keyId: id.readUIntBE(0, 3),
			publicKey: generateSignalPubKey(value),
		})
		const once = companion.keys.shift()
		const { signature } = companion.signedKey
		await party.meet(jid, {
			registrationId: companion.registration.readUInt32BE(),
			identityKey: generateSignalPubKey(companion.identity),
			signedPreKey: { ...key(companion.signedKey), signature },
			...(once && { preKey: key(once) }),
		})
		return jid
	}
}

/** @param {BinaryNode} stanza @returns {{jid: string | undefined, enc: BinaryNode}[]} */
function partsOf(stanza) {
	const each = getBinaryNodeChildren(getBinaryNodeChild(stanza, 'participants'), 'to')
	const places = [...each.map((to) => ({ jid: to.attrs.jid, at: to })), { jid: stanza.attrs.to, at: stanza }]
	return places.flatMap(({ jid, at }) => {
		const enc = getBinaryNodeChild(at, 'enc')
		return enc ? [{ jid, enc }] : []
	})
}

/**
 * @param {import('./store.js').Arrival[]} list
 * @param {string} id
 * @param {string} to
 * @param {import('./content.js').Description} content
 * @returns {boolean} whether the phone shows it for the first time
 */
function arrive(list, id, to, content) {
	const shown = list.find((one) => one.id === id)
	if (shown) shown.deliveries += 1
	else list.push({ id, at: new Date().toISOString(), deliveries: 1, to, content })
	return !shown
}
