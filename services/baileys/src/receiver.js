/** Writes to the inbox what the session hands over, and never gives anything up. */

import { setTimeout as pause } from 'node:timers/promises'

import { cut } from './cut.js'
import { BadDocumentError } from './queue/documents.js'
import { inWords } from './queue/files.js'
import { chatOf, phoneOf, timeOf, translate } from './translate.js'

/** @typedef {import('baileys').BinaryNode} BinaryNode */
/** @typedef {import('baileys').WAMessage} WAMessage */
/** @typedef {import('./session.js').Session} Session */

const RETRY_MS = 5_000
const IDLE_MS = 5_000
/** Receipts by the `type` attribute of their stanza; without one it is a delivery. */
const RECEIPTS = new Map([
	['', 'delivered'],
	['inactive', 'delivered'],
	['read', 'read'],
	['played', 'played'],
])

export class Receiver {
	undecryptable = 0
	#inbox
	#record
	#received
	#media
	#log
	/** @type {Session} */
	#session
	/** @type {Set<Promise<void>>} */
	#working = new Set()
	#stopping = new AbortController()

	/**
	 * @param {{
	 *   inbox: import('./inbox.js').Inbox,
	 *   record: import('./record.js').Record,
	 *   received: import('./received.js').Received,
	 *   media: import('./media.js').Media,
	 *   session: Session,
	 *   log: import('./log.js').Log,
	 * }} parts
	 */
	constructor({ inbox, record, received, media, session, log }) {
		this.#inbox = inbox
		this.#record = record
		this.#received = received
		this.#media = media
		this.#session = session
		this.#log = log
	}

	/**
	 * What was decrypted and never handed over: by an earlier run, or because the connection ended
	 * between the two. WhatsApp's redelivery of it can't be decrypted again.
	 */
	async recover() {
		const { me } = this.#session
		if (!me) return
		for (const { message, delivery } of await this.#received.left(me)) this.messages([message], delivery)
	}

	/** @param {WAMessage[]} messages @param {'notify' | 'append'} delivery */
	messages(messages, delivery) {
		for (const message of messages) {
			// In no order: whoever waits for a file must not hold up the others.
			const work = this.#until(() => this.#message(message, delivery))
			this.#working.add(work)
			work.finally(() => this.#working.delete(work))
		}
	}

	/** @param {import('baileys').LIDMapping} mapping */
	lid({ lid, pn }) {
		const at = new Date().toISOString()
		const work = this.#until(async () => {
			const [hidden, phone] = [chatOf(lid), chatOf(pn)]
			if (!hidden || !phone || !this.#session.account) return
			await this.#inbox.write('lid', { account: this.#session.account, lid: hidden, phone, at })
		})
		this.#working.add(work)
		work.finally(() => this.#working.delete(work))
	}

	/**
	 * Write what a receipt says of messages of ours. WhatsApp forgets the receipt afterwards.
	 *
	 * @param {BinaryNode} node
	 */
	async receipt(node) {
		const status = RECEIPTS.get(node.attrs.type ?? '')
		const { account } = this.#session
		// With a recipient it is from another device of the account.
		if (!status || !account || node.attrs.recipient || !chatOf(node.attrs.from)) return
		const at = timeOf(node.attrs.t, Date.now())
		for (const id of idsOf(node)) {
			const entry = await this.#record.get(id)
			if (entry) await this.#inbox.write('status', { id, account, ref: entry.ref, status, at })
		}
	}

	/** Wait until everything so far is written, or kept for the next start. */
	async idle() {
		await Promise.race([Promise.all(this.#working), pause(IDLE_MS)])
	}

	stop() {
		this.#stopping.abort()
	}

	/** Try until it works: a full disk must not lose a message. @param {() => Promise<void>} task */
	async #until(task) {
		while (!this.#stopping.signal.aborted) {
			try {
				return await task()
			} catch (error) {
				if (error instanceof BadDocumentError) {
					// A fault of ours. What was received stays on disk.
					this.#log.error('a message could not be put into words', { problem: error.message })
					return
				}
				this.#session.block(`the inbox can't be written: ${inWords(error)}`)
				await pause(RETRY_MS, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
			}
		}
	}

	/** @param {WAMessage} message @param {'notify' | 'append'} delivery */
	async #message(message, delivery) {
		const { id } = message.key
		const { account, me } = this.#session
		if (!id || !account || !me) return
		const chat = chatOf(message.key.remoteJid)
		if (!message.message) {
			// It came undecipherable; WhatsApp sends it again under the same id.
			if (chat && message.messageStubType) this.undecryptable += 1
			return
		}
		const found = chat && translate(message, me)
		const ours = message.key.fromMe && (await this.#record.get(id)) !== undefined
		if (chat && found && !ours) {
			const content = { ...found.content }
			if (found.media) Object.assign(content, await this.#media.fetch(message, found.media, () => this.#session.socket))
			const alt = chatOf(message.key.remoteJidAlt) ?? (await this.#otherChat(chat))
			const now = Date.now()
			const document = {
				id,
				account,
				direction: message.key.fromMe ? 'out' : 'in',
				chat,
				...(alt && alt !== chat && { chat_alt: alt }),
				name: message.key.fromMe ? '' : cut(message.pushName, 255),
				at: timeOf(message.messageTimestamp, now),
				received_at: new Date(now).toISOString(),
				delivery,
				content,
				...(found.replyTo && { reply_to: found.replyTo }),
			}
			await this.#write(document)
		}
		await this.#received.done(id)
	}

	/** @param {import('./queue/documents.js').Document} document */
	async #write(document) {
		try {
			await this.#inbox.write('message', document)
		} catch (error) {
			if (!(error instanceof BadDocumentError)) throw error
			// Somebody's client sends nonsense. That they wrote is kept all the same.
			this.#log.warning('a message has contents that are none', { problem: error.message })
			const { reply_to: _, ...rest } = document
			await this.#inbox.write('message', { ...rest, content: { type: 'unsupported', name: 'malformed' } })
		}
	}

	/** The contact's other address, as far as it is known. @param {string} chat */
	async #otherChat(chat) {
		const mapping = this.#session.socket?.signalRepository.lidMapping
		const other = phoneOf(chat) ? await mapping?.getLIDForPN(chat) : await mapping?.getPNForLID(chat)
		return chatOf(other)
	}
}

/** @param {BinaryNode} node */
function idsOf(node) {
	const more = Array.isArray(node.content) ? (node.content[0]?.content ?? []) : []
	const items = Array.isArray(more) ? more.filter((item) => item.tag === 'item') : []
	return [node.attrs.id, ...items.map((item) => item.attrs.id)].filter((id) => id !== undefined)
}
