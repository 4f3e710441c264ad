/** Takes sends from the outbox one at a time and hands them to WhatsApp, each id at most once. */

import { setTimeout as pause } from 'node:timers/promises'

import { proto } from 'baileys'

import { compose } from './compose.js'
import { inWords } from './queue/files.js'
import { expired, interrupted, notSent, refused, settled, unknown } from './results.js'
import { timeOf } from './translate.js'

/** @typedef {import('baileys').BinaryNode} BinaryNode */
/** @typedef {import('./queue/documents.js').Document} Document */
/** @typedef {import('./record.js').Entry} Entry */
/** @typedef {import('./session.js').Session} Session */
/** @typedef {import('./results.js').Result} Result */

const ACK_MS = 30_000
const FUTURE_MS = 5 * 60 * 1000

/** WhatsApp's words for refusals that say more about us than about the message. */
const RESTRICTED = '463'
const STALE_DEVICES = '479'

/** @typedef {{at: string, error: string | undefined}} Ack */

export class Sender {
	ackLatencyMs = /** @type {number | undefined} */ (undefined)
	#outbox
	#record
	#inbox
	#media
	#log
	/** @type {Session} */
	#session
	#settings
	/** @type {Map<string, {resolve: (ack: Ack | undefined) => void, since: number}>} */
	#waiting = new Map()
	#stopping = new AbortController()

	/**
	 * @param {{
	 *   outbox: import('./outbox.js').Outbox,
	 *   record: import('./record.js').Record,
	 *   inbox: import('./inbox.js').Inbox,
	 *   media: import('./media.js').Media,
	 *   session: Session,
	 *   settings: import('./settings.js').Settings,
	 *   log: import('./log.js').Log,
	 * }} parts
	 */
	constructor({ outbox, record, inbox, media, session, settings, log }) {
		this.#outbox = outbox
		this.#record = record
		this.#inbox = inbox
		this.#media = media
		this.#session = session
		this.#settings = settings
		this.#log = log
		session.on('closed', () => this.#giveUpWaiting())
	}

	/** Since when the oldest message waits for its acknowledgement. */
	get ackPendingSince() {
		const since = [...this.#waiting.values()].map((one) => one.since)
		return since.length ? new Date(Math.min(...since)) : undefined
	}

	/** Put in order what an earlier run, or an error, left half done. */
	async recover() {
		for (const send of await this.#outbox.left()) {
			const entry = await this.#record.get(send.document.id)
			// What was begun must not wait again: messaging could take it back, and send it another way.
			const known = settled(entry) ?? expired(send.document, entry) ?? (entry && interrupted())
			if (known) await this.#finish(send, known)
			else await this.#outbox.giveBack(send)
		}
	}

	/** Send what waits, for ever, at the account's pace. */
	async run() {
		let leftSome = false
		while (!this.#stopping.signal.aborted) {
			try {
				if (leftSome) await this.recover()
				leftSome = false
				if (this.#session.isOpen && (await this.#next())) await this.#pace()
				else await this.#pause(200)
			} catch (error) {
				leftSome = true
				this.#session.block(`the queue can't be used: ${inWords(error)}`)
				await this.#pause(5_000)
			}
		}
	}

	/** Let the send in hand come to its end. */
	stop() {
		this.#stopping.abort()
	}

	/** What the server says of a message of ours. @param {BinaryNode} node */
	ack(node) {
		const id = node.attrs.id ?? ''
		const ack = { at: timeOf(node.attrs.t, Date.now()), error: node.attrs.error }
		const waiting = this.#waiting.get(id)
		if (waiting) {
			this.#waiting.delete(id)
			this.ackLatencyMs = Date.now() - waiting.since
			waiting.resolve(ack)
			return
		}
		// The answer `unknown` has gone out already; the truth follows.
		this.#late(id, ack).catch((error) => this.#session.block(`the queue can't be written: ${inWords(error)}`))
	}

	/** @returns {Promise<boolean>} whether a message was handed to WhatsApp */
	async #next() {
		const send = await this.#outbox.take()
		if (!send) return false
		const entry = await this.#record.get(send.document.id)
		const known = this.#known(send.document, entry)
		if (known) {
			await this.#finish(send, known)
			return false
		}
		const result = await this.#send(send.document)
		await this.#finish(send, result)
		return true
	}

	/**
	 * What needs no sending.
	 *
	 * @param {Document} send
	 * @param {Entry | undefined} entry what earlier attempts came to
	 * @returns {Result | undefined}
	 */
	#known(send, entry) {
		if (send.account !== this.#session.account && !entry)
			return notSent('wrong_account', 'the session belongs to another number')
		if (Date.parse(send.created_at) > Date.now() + FUTURE_MS)
			return refused('bad_document', 'created_at: lies in the future')
		return settled(entry) ?? expired(send, entry)
	}

	/** @param {Document} send @returns {Promise<Result>} */
	async #send(send) {
		const { socket, me } = this.#session
		const earlier = (await this.#record.get(send.id)) !== undefined
		const failed = (/** @type {string} */ code, /** @type {string} */ text) =>
			earlier ? unknown('interrupted', text) : notSent(code, text)
		if (!socket || !me) return failed('not_connected', 'the session is not connected')
		let message
		try {
			message = await compose(send, socket, me.id, this.#media)
		} catch (error) {
			this.#log.warning('a message could not be prepared', { error: nameOf(error) })
			return failed(socket === this.#session.socket ? 'io' : 'not_connected', 'it could not be prepared')
		}
		if (message === 'bad_media') return refused('bad_media', 'the file is missing, changed, or too large')
		if (message === 'not_on_whatsapp') return refused('not_on_whatsapp', 'this number has no WhatsApp')
		if (message === 'no_devices') return failed('no_devices', "the contact's devices are not known now")
		const encoded = Buffer.from(proto.Message.encode(message).finish()).toString('base64')
		const entry = { ref: send.ref, to: send.to, content: encoded }
		await this.#record.put(send.id, { ...entry, state: 'sending', at: new Date().toISOString() })
		const result = await this.#relay(send, message, earlier)
		if (result.outcome === 'accepted')
			await this.#record.put(send.id, { ...entry, state: 'accepted', at: result.at })
		else if (result.outcome === 'refused')
			await this.#record.put(send.id, { ...entry, ...result, state: 'refused' })
		else if (result.outcome === 'not_sent' && !earlier) await this.#record.forget(send.id)
		return result
	}

	/**
	 * @param {Document} send
	 * @param {proto.IMessage} message
	 * @param {boolean} earlier whether an earlier attempt may have sent it
	 * @returns {Promise<Result>}
	 */
	async #relay(send, message, earlier) {
		let ack = await this.#handOver(send, message)
		if (ack?.error === STALE_DEVICES) {
			await this.#session.socket?.getUSyncDevices([send.to], false, false).catch(() => undefined)
			ack = await this.#handOver(send, message)
		}
		if (ack === undefined) return unknown('no_ack', "WhatsApp didn't acknowledge it in time")
		if (ack.error === undefined) return { outcome: 'accepted', at: ack.at }
		if (ack.error === 'all_encryptions_failed')
			return earlier ? unknown('interrupted', 'it could not be encrypted') : notSent('no_devices', 'it could not be encrypted')
		if (ack.error === STALE_DEVICES)
			return earlier ? unknown('interrupted', 'stale list of devices') : notSent(STALE_DEVICES, 'stale list of devices')
		if (/^5\d\d$/.test(ack.error))
			return earlier ? unknown('interrupted', 'WhatsApp failed') : notSent(ack.error, 'WhatsApp failed')
		if (ack.error === RESTRICTED) {
			this.#session.restrict(undefined)
			return refused(RESTRICTED, 'WhatsApp has limited this account', ack.at)
		}
		return refused(ack.error.slice(0, 32), 'WhatsApp refused it', ack.at)
	}

	/**
	 * @param {Document} send
	 * @param {proto.IMessage} message
	 * @returns {Promise<Ack | undefined>} undefined when there was none in time
	 */
	async #handOver(send, message) {
		const { socket } = this.#session
		if (!socket) return undefined
		const acked = new Promise((/** @type {(ack: Ack | undefined) => void} */ resolve) => {
			this.#waiting.set(send.id, { resolve, since: Date.now() })
		})
		const timer = setTimeout(() => this.#giveUp(send.id), ACK_MS)
		try {
			await socket.relayMessage(send.to, message, { messageId: send.id })
		} catch (error) {
			if (error instanceof Error && error.message === 'All encryptions failed') {
				this.#giveUp(send.id)
				return { at: new Date().toISOString(), error: 'all_encryptions_failed' }
			}
			// It may have left before the error.
			this.#log.warning('sending ended in an error', { error: nameOf(error) })
		}
		try {
			return await acked
		} finally {
			clearTimeout(timer)
		}
	}

	/** @param {import('./outbox.js').Taken} send @param {Result} result */
	async #finish(send, result) {
		const { id, ref } = send.document
		const account = this.#session.account ?? send.document.account
		if (result.outcome === 'accepted') await this.#inbox.write('status', { id, account, ref, status: 'sent', at: result.at })
		if (result.outcome === 'refused' && result.code !== 'bad_document')
			await this.#inbox.write('status', {
				id,
				account,
				ref,
				status: 'failed',
				at: result.at,
				code: result.code,
				message: result.message,
			})
		await this.#outbox.answer(send, result)
	}

	/** @param {string} id @param {Ack} ack */
	async #late(id, ack) {
		const entry = await this.#record.get(id)
		const { account } = this.#session
		if (entry?.state !== 'sending' || !account) return
		if (ack.error === undefined) {
			await this.#record.put(id, { ...entry, state: 'accepted', at: ack.at })
			await this.#inbox.write('status', { id, account, ref: entry.ref, status: 'sent', at: ack.at })
		} else if (ack.error !== STALE_DEVICES && !/^5\d\d$/.test(ack.error)) {
			const code = ack.error.slice(0, 32)
			if (code === RESTRICTED) this.#session.restrict(undefined)
			await this.#record.put(id, { ...entry, state: 'refused', at: ack.at, code })
			await this.#inbox.write('status', { id, account, ref: entry.ref, status: 'failed', at: ack.at, code })
		}
	}

	/** @param {string} id */
	#giveUp(id) {
		this.#waiting.get(id)?.resolve(undefined)
		this.#waiting.delete(id)
	}

	#giveUpWaiting() {
		for (const id of [...this.#waiting.keys()]) this.#giveUp(id)
	}

	async #pace() {
		const { minSeconds, maxSeconds } = this.#settings
		await this.#pause((minSeconds + Math.random() * (maxSeconds - minSeconds)) * 1000)
	}

	/** @param {number} milliseconds */
	async #pause(milliseconds) {
		await pause(milliseconds, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
	}
}

/** Texts of errors may quote numbers. @param {unknown} error */
const nameOf = (error) => (error instanceof Error ? error.name : typeof error)
