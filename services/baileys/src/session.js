/** One WhatsApp Web session: connects, stays connected, and says how it is. */

import { EventEmitter } from 'node:events'
import { setTimeout as pause } from 'node:timers/promises'

import { jidNormalizedUser, makeWASocket, proto } from 'baileys'

import { CorruptCredentialsError } from './auth-state.js'
import { afterEnd, backoff } from './ends.js'
import { forLibrary } from './log.js'
import { inWords } from './queue/files.js'
import { chatOf, phoneOf } from './translate.js'

/** @typedef {import('baileys').WASocket} Socket */
/** @typedef {import('baileys').BinaryNode} BinaryNode */
/** @typedef {import('baileys').WAMessage} WAMessage */

const SILENT_MS = 90_000
const STABLE_MS = 15_000
const QUERY_MS = 20_000
const RESTRICTED_MS = 60 * 60 * 1000

/**
 * @typedef {object} Handlers each is awaited before WhatsApp is told that a thing arrived, where the
 *   library allows it
 * @property {(messages: WAMessage[], delivery: 'notify' | 'append') => void} messages
 * @property {(receipt: BinaryNode) => Promise<void>} receipt
 * @property {(ack: BinaryNode) => void} ack
 * @property {(mapping: import('baileys').LIDMapping) => void} lid
 */

export class Session extends EventEmitter {
	/** While it can send. @type {Socket | undefined} */
	socket
	lastFrameAt = 0
	#settings
	#state
	#auth
	#record
	#received
	#restriction
	#handlers
	#log
	#stopping = new AbortController()
	/** Ends the connection that is there, and keeps new ones away. @type {string | undefined} */
	#blocked
	/** Why people have to act. @type {{reason: string, fields: import('./queue/documents.js').Document} | undefined} */
	#ended
	/** @type {(() => void) | undefined} */
	#hangUp
	/** Runs until the restriction's end. @type {NodeJS.Timeout | undefined} */
	#lifting

	/**
	 * @param {{
	 *   settings: import('./settings.js').Settings,
	 *   state: import('./state.js').State,
	 *   auth: import('./auth-state.js').AuthStore,
	 *   record: import('./record.js').Record,
	 *   received: import('./received.js').Received,
	 *   restriction: import('./restriction.js').Restriction,
	 *   handlers: Handlers,
	 *   log: import('./log.js').Log,
	 * }} parts
	 */
	constructor({ settings, state, auth, record, received, restriction, handlers, log }) {
		super()
		this.#settings = settings
		this.#state = state
		this.#auth = auth
		this.#record = record
		this.#received = received
		this.#restriction = restriction
		this.#handlers = handlers
		this.#log = log
	}

	/** The session's own addresses; undefined before pairing. @type {{id: string, lid?: string | undefined} | undefined} */
	me

	get account() {
		return phoneOf(this.me?.id)
	}

	/** Whether messages may go out now. */
	get isOpen() {
		return this.socket !== undefined && this.#state.name === 'open'
	}

	/** Connect, and connect again, until stopped or until people have to act. */
	async run() {
		let failures = 0
		while (!this.#stopping.signal.aborted) {
			if (this.#blocked !== undefined) {
				await this.#pause(500)
				continue
			}
			let auth
			try {
				auth = await this.#auth.open()
			} catch (error) {
				if (!(error instanceof CorruptCredentialsError)) throw error
				this.#end(error.message.slice(0, 500), {})
				return
			}
			const began = Date.now()
			const code = await this.#connection(auth)
			if (this.#stopping.signal.aborted || this.#blocked !== undefined) continue
			const end = afterEnd(code)
			const fields = code === undefined ? {} : { close_code: code }
			if (end.next === 'stop') {
				if (end.retire) await this.#auth.retire(`ended-${Date.now()}`)
				this.#end(end.reason, fields)
				return
			}
			if (Date.now() - began > STABLE_MS) failures = 0
			if (!end.atOnce) failures += 1
			const wait = end.atOnce ? 0 : backoff(failures)
			const retryAt = new Date(Date.now() + wait).toISOString()
			this.#state.set('connecting', end.reason, { ...fields, retry_at: retryAt })
			await this.#pause(wait)
		}
	}

	async stop() {
		this.#stopping.abort()
		this.#hangUp?.()
	}

	/** @param {unknown} error */
	#keysUnwritten = (error) => this.block(`the session's keys can't be written: ${inWords(error)}`)

	/** Nothing more may come before what came can be kept. @param {Promise<void> | void} writing */
	async #keeping(writing) {
		try {
			await writing
		} catch (error) {
			this.#keysUnwritten(error)
			throw error
		}
	}

	/** Take nothing more from WhatsApp, which keeps it meanwhile. @param {string} reason */
	block(reason) {
		if (this.#blocked === undefined) this.#log.error('the bridge is blocked', { reason })
		this.#blocked = reason
		this.#state.set('blocked', reason.slice(0, 500))
		this.#hangUp?.()
	}

	unblock() {
		this.#blocked = undefined
		this.#showEnd()
	}

	/** @param {string} reason @param {import('./queue/documents.js').Document} fields */
	#end(reason, fields) {
		this.#ended = { reason, fields }
		this.#showEnd()
	}

	/** No connection follows that would say what the session is, once nothing else is in the way. */
	#showEnd() {
		if (this.#ended && !this.isBlocked) this.#state.set('logged_out', this.#ended.reason, this.#ended.fields)
	}

	get isBlocked() {
		return this.#blocked !== undefined
	}

	/**
	 * WhatsApp limits the account: send nothing for a while.
	 *
	 * @param {Date | undefined} until undefined: an hour, or as long as is known already
	 */
	restrict(until) {
		const known = this.#restriction.until()?.getTime() ?? 0
		const end = until ?? new Date(Math.max(known, Date.now() + RESTRICTED_MS))
		this.#restriction.put(end).catch((error) => this.block(`the session's folder can't be written: ${inWords(error)}`))
		// Without a connection the next one shows it.
		if (this.socket) this.#showRestriction(end)
	}

	/** @param {Date} end */
	#showRestriction(end) {
		this.#state.set('restricted', 'WhatsApp has limited this account: it may not write to new contacts', {
			restricted_until: end.toISOString(),
		})
		const left = Math.min(Math.max(end.getTime() - Date.now(), 0), 2 ** 31 - 1)
		clearTimeout(this.#lifting)
		this.#lifting = setTimeout(() => this.#lift(), left)
		this.#lifting.unref()
	}

	#lift() {
		if (this.#state.name !== 'restricted' || !this.socket) return
		// No timer runs for a month, and the clock may have been set back.
		const end = this.#restriction.until()
		if (end) this.#showRestriction(end)
		else this.#state.set('open', 'connected')
	}

	/**
	 * One connection, from its begin to its end.
	 *
	 * @param {import('baileys').AuthenticationState} auth
	 * @returns {Promise<number | undefined>} the library's code of its end
	 */
	async #connection(auth) {
		// The library names the account before a code was typed, and would then log in as if it were
		// paired.
		if (!auth.creds.account) delete auth.creds.me
		this.me = auth.creds.me
		const { get, set } = auth.keys
		const keys = { get, set: async (/** @type {import('baileys').SignalDataSet} */ data) => this.#keeping(set(data)) }
		const socket = makeWASocket({
			auth: { creds: auth.creds, keys },
			// One that comes late would replace what the next connection has learned.
			transactionOpts: { maxCommitRetries: 1, delayBetweenTriesMs: 0 },
			logger: forLibrary(this.#log),
			waWebSocketUrl: this.#settings.url,
			browser: ['Switchboard', 'Chrome', '1.0'],
			markOnlineOnConnect: false,
			syncFullHistory: false,
			defaultQueryTimeoutMs: QUERY_MS,
			// The first part of the history brings the LIDs of known contacts.
			...(this.#settings.genuine ? {} : { shouldSyncHistoryMessage: () => false }),
			emitOwnEvents: false,
			shouldIgnoreJid: (jid) => /@(g\.us|broadcast|newsletter)$/.test(jid),
			makeSignalRepository: this.#received.repositoryMaker(this.#keysUnwritten),
			getMessage: async (key) => {
				const content = key.id && (await this.#record.content(key.id, Date.now()))
				return content ? proto.Message.decode(content) : undefined
			},
		})
		const ended = new Promise((/** @type {(code: number | undefined) => void} */ resolve) => {
			socket.ev.on('connection.update', (update) => this.#update(socket, auth, update, resolve))
		})
		this.#hangUp = () => socket.end(undefined)
		this.#listen(socket, auth)
		const watch = setInterval(() => {
			if (this.socket && Date.now() - this.lastFrameAt > SILENT_MS) socket.end(new Error('silence'))
		}, 5_000)
		try {
			return await ended
		} finally {
			clearInterval(watch)
			this.#hangUp = undefined
			this.socket = undefined
			this.emit('closed')
		}
	}

	/**
	 * @param {Socket} socket
	 * @param {import('baileys').AuthenticationState} auth
	 */
	#listen(socket, auth) {
		socket.ws.on('frame', () => (this.lastFrameAt = Date.now()))
		socket.ws.prependListener('CB:message', (/** @type {BinaryNode} */ node) => this.#received.expect(node))
		// The library acknowledges a receipt when its listener is through.
		const listeners = socket.ws.listeners('CB:receipt')
		socket.ws.removeAllListeners('CB:receipt')
		socket.ws.on('CB:receipt', async (/** @type {BinaryNode} */ node) => {
			try {
				await this.#handlers.receipt(node)
			} catch (error) {
				this.block(`what WhatsApp says can't be written: ${inWords(error)}`)
				return
			}
			for (const listener of listeners) listener(node)
		})
		socket.ws.on('CB:ack,class:message', (/** @type {BinaryNode} */ node) => this.#handlers.ack(node))
		socket.ev.on('creds.update', (update) => {
			// The library has changed them in place.
			Object.assign(auth.creds, update)
			this.#auth
				.saveCredentials(auth.creds)
				.catch(this.#keysUnwritten)
		})
		socket.ev.on('messages.upsert', ({ messages, type }) => this.#handlers.messages(messages, type))
		socket.ev.on('lid-mapping.update', (mapping) => this.#handlers.lid(mapping))
	}

	/**
	 * @param {Socket} socket
	 * @param {import('baileys').AuthenticationState} auth
	 * @param {Partial<import('baileys').ConnectionState>} update
	 * @param {(code: number | undefined) => void} ended
	 */
	#update(socket, auth, update, ended) {
		if (update.qr) this.#pair(socket, update.qr).catch((error) => this.#log.warning('no pairing code', { error: String(error) }))
		if (update.reachoutTimeLock?.isActive) this.restrict(update.reachoutTimeLock.timeEnforcementEnds)
		if (update.connection === 'open') {
			this.me = auth.creds.me
			this.socket = socket
			this.lastFrameAt = Date.now()
			const restriction = this.#restriction.until()
			if (restriction) this.#showRestriction(restriction)
			else this.#state.set('open', 'connected')
			this.emit('open')
		}
		if (update.connection === 'close') {
			const error = /** @type {{output?: {statusCode?: number}} | undefined} */ (update.lastDisconnect?.error)
			ended(error?.output?.statusCode)
		}
	}

	/** @param {Socket} socket @param {string} qr */
	async #pair(socket, qr) {
		const first = this.#state.name !== 'pairing'
		const expiresAt = new Date(Date.now() + (first ? 60_000 : 20_000)).toISOString()
		if (this.#settings.pairingPhone === undefined) {
			this.#state.set('pairing', 'scan the code with WhatsApp on the phone: Settings, Linked devices', {
				pairing: { qr, expires_at: expiresAt },
			})
			return
		}
		if (!first) return
		const code = await socket.requestPairingCode(this.#settings.pairingPhone)
		this.#state.set('pairing', 'type the code into WhatsApp on the phone: Settings, Linked devices', {
			pairing: { code, expires_at: new Date(Date.now() + 180_000).toISOString() },
		})
	}

	/** @param {number} milliseconds */
	async #pause(milliseconds) {
		await pause(milliseconds, undefined, { signal: this.#stopping.signal }).catch(() => undefined)
	}
}

/** The session's own LID without its device. @param {{lid?: string | undefined} | undefined} me */
export const ownLid = (me) => (me?.lid ? chatOf(jidNormalizedUser(me.lid)) : undefined)
