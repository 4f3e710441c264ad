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
import { seconds } from './connection.js'
import { compose, describe, stanzaType } from './content.js'
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
		queue.forEach(({ node }, index) => connection.send({ ...node, attrs: { ...node.attrs, offline: String(index) } }))
		connection.send({ tag: 'ib', attrs: {}, content: [{ tag: 'offline', attrs: { count: String(queue.length) } }] })
	}

	/** The program sends a message. @param {Connection} connection @param {BinaryNode} node */
	async sent(connection, node) {
		const { data, faults, media } = this.#server
		const { id = '', to = '' } = node.attrs
		const ack = { class: 'message', id, from: to, t: seconds() }
		const error = faults.ack_errors.shift()
		if (error) return connection.send({ tag: 'ack', attrs: { ...ack, error: String(error) } })
		const contact = this.#server.contact(to)
		let filled = !contact
		for (const { jid, enc } of partsOf(node)) {
			const phone = this.#server.phoneAt(jid)
			if (!phone || !data.companion) throw new Error('a message for a phone that does not exist')
			const party = this.#server.party(phone)
			if (enc.attrs.type === 'pkmsg')
				verifyDevice(getBinaryNodeChildBuffer(node, 'device-identity'), data.companion.identity, this.#server.phone.identity.public)
			filled ||= phone === contact
			let plaintext
			if (phone === contact && faults.undecryptable > 0) faults.undecryptable -= 1
			else plaintext = await party.decrypt(this.#server.companionJid, enc).catch(() => undefined)
			if (!plaintext) {
				if (phone === contact) this.#askAgain(contact, id, to)
				continue
			}
			const message = proto.Message.decode(plaintext)
			if (node.attrs.category === 'peer') continue
			const content = await describe(message.deviceSentMessage?.message ?? message, media)
			if (phone === contact) this.#arrived(contact, id, to, content)
			else arrive(data.account.sent, id, to, content)
		}
		if (!filled) data.empty.push(id)
		if (faults.swallow_acks > 0) faults.swallow_acks -= 1
		else connection.send({ tag: 'ack', attrs: ack })
	}

	/** The program confirms a message, or asks for it again. @param {BinaryNode} node */
	async received(node) {
		const { id = '', type } = node.attrs
		if (type === 'retry') return this.#again(id, node)
		const more = getBinaryNodeChildren(getBinaryNodeChild(node, 'list'), 'item').map(({ attrs }) => attrs.id)
		for (const one of [id, ...more]) this.#forget((pending) => pending.tag === 'message' && pending.attrs.id === one)
	}

	/** The program confirms a receipt, or refuses a message. @param {BinaryNode} node */
	acknowledged(node) {
		const { class: tag, id = '', type, error } = node.attrs
		const [entry] = this.#server.data.queue.filter((pending) => pending.node.tag === tag && pending.node.attrs.id === id)
		// After a retry receipt comes an error too, and the message is on its way again.
		if (error && entry?.retries) return
		if (error && entry) this.#server.data.refused.push(id)
		this.#forget((pending) => pending.tag === tag && pending.attrs.id === id && (tag === 'message' || pending.attrs.type === type))
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
		const jid = (/** @type {{phone: string, lid: string}} */ { phone, lid }) => (mode === 'lid' ? `${lid}@lid` : `${phone}@s.whatsapp.net`)
		const partner = contact ?? this.#server.contact(writing.to ?? '')
		if (!partner) throw new Error(`to: no contact has the address ${writing.to}`)
		let message = await compose(writing, { me: jid(contact ?? account), them: jid(contact ? account : partner) }, this.#server.media)
		/** @type {Record<string, string>} */
		const attrs = { from: jid(contact ?? account), id, t: seconds(writing.at ? Date.parse(writing.at) : Date.now()), type: stanzaType(message) }
		if (contact) attrs.notify = contact.name
		else {
			attrs.recipient = jid(partner)
			message = proto.Message.fromObject({ deviceSentMessage: { destinationJid: jid(partner), message } })
		}
		const other = contact ? 'sender' : 'peer_recipient'
		if (mode === 'lid') attrs.addressing_mode = 'lid'
		if (mode === 'pn') attrs[`${other}_lid`] = `${partner.lid}@lid`
		else if (!writing.hide_phone) attrs[`${other}_pn`] = `${partner.phone}@s.whatsapp.net`
		const plaintext = Buffer.from(encodeWAMessage(message))
		const phone = contact ?? account
		const enc = await this.#server.party(phone).encrypt(await this.#session(phone), plaintext)
		this.#enqueue({ node: { tag: 'message', attrs, content: [enc] }, sender: phone.phone, plaintext, retries: 0 })
		if (writing.hang_up) this.#server.client?.hangUp()
		return id
	}

	/** @param {{phone: string, id: string, to: string, type: 'delivered' | 'read'}} receipt @param {number} [at] */
	receipt({ id, to, type }, at) {
		const attrs = { from: to, id, t: seconds(at), ...(type === 'read' && { type }) }
		this.#enqueue({ node: { tag: 'receipt', attrs }, retries: 0 })
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
		if (isNew && contact.answer !== null) plan('answer', (read ?? 0) + 500, contact.answer.replaceAll('{text}', String(content.text ?? '')))
	}

	/** @param {Step} step */
	#arm(step) {
		const take = async () => {
			const { data } = this.#server
			data.steps.splice(data.steps.indexOf(step), 1)
			const contact = this.#server.contact(step.to)
			if (step.type !== 'answer') this.receipt({ ...step, type: step.type })
			else if (contact) await this.write(contact, { type: 'text', text: step.text, from: step.to.endsWith('@lid') ? 'lid' : 'phone' })
		}
		setTimeout(() => this.#server.run(take), Math.max(step.due - Date.now(), 0)).unref()
	}

	/** @param {import('./store.js').Pending} pending */
	#enqueue(pending) {
		this.#server.data.queue.push(pending)
		if (this.#server.client?.active) this.#server.client.send(pending.node)
	}

	/** @param {(node: BinaryNode) => boolean} test */
	#forget(test) {
		const { data } = this.#server
		data.queue = data.queue.filter(({ node }) => !test(node))
	}

	/** A phone that can't read a message says so. @param {Contact} contact @param {string} id @param {string} to */
	#askAgain(contact, id, to) {
		const count = (this.#asked.get(id) ?? 0) + 1
		this.#asked.set(id, count)
		if (count > MOST_RETRIES) return
		/** @type {BinaryNode[]} */
		const content = [
			{ tag: 'retry', attrs: { count: String(count), id, t: seconds(), v: '1' } },
			{ tag: 'registration', attrs: {}, content: this.#server.party(contact).registration },
		]
		this.#enqueue({ node: { tag: 'receipt', attrs: { from: to, id, type: 'retry', t: seconds() }, content }, retries: 0 })
	}

	/** @param {string} id @param {BinaryNode} node the program's retry receipt */
	async #again(id, node) {
		const { data } = this.#server
		const entry = data.queue.find((pending) => pending.node.tag === 'message' && pending.node.attrs.id === id)
		const phone = entry && this.#server.phoneAt(`${entry.sender}@s.whatsapp.net`)
		if (!entry?.plaintext || !phone) return
		entry.retries += 1
		if (entry.retries > MOST_RETRIES) {
			data.refused.push(id)
			return this.#forget((pending) => pending === entry.node)
		}
		const party = this.#server.party(phone)
		const bundle = extractE2ESessionFromRetryReceipt(node)
		if (bundle) await party.meet(this.#server.companionJid, bundle)
		const enc = await party.encrypt(await this.#session(phone), entry.plaintext)
		entry.node = { ...entry.node, content: [{ ...enc, attrs: { ...enc.attrs, count: String(entry.retries) } }] }
		this.#server.client?.send(entry.node)
	}

	/** A phone's session with the program, made of the keys that the program has uploaded. @param {Contact | import('./store.js').Data['account']} phone */
	async #session(phone) {
		const { companion } = this.#server.data
		if (!companion) throw new Error('no program is paired')
		const party = this.#server.party(phone)
		const jid = this.#server.companionJid
		if (await party.knows(jid)) return jid
		const key = (/** @type {{id: Buffer, value: Buffer}} */ { id, value }) => ({ keyId: id.readUIntBE(0, 3), publicKey: generateSignalPubKey(value) })
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

/** @param {BinaryNode} node @returns {{jid: string | undefined, enc: BinaryNode}[]} */
function partsOf(node) {
	const parts = getBinaryNodeChildren(getBinaryNodeChild(node, 'participants'), 'to').map((to) => ({ jid: to.attrs.jid, enc: getBinaryNodeChild(to, 'enc') }))
	const direct = { jid: node.attrs.to, enc: getBinaryNodeChild(node, 'enc') }
	return [...parts, direct].flatMap(({ jid, enc }) => (enc ? [{ jid, enc }] : []))
}

/** @param {import('./store.js').Arrival[]} list @param {string} id @param {string} to @param {import('./content.js').Description} content */
function arrive(list, id, to, content) {
	const shown = list.find((one) => one.id === id)
	if (shown) shown.deliveries += 1
	else list.push({ id, at: new Date().toISOString(), deliveries: 1, to, content })
	return !shown
}
