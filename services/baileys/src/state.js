/** `state.json`: how the session is, for messaging and for people. */

import { join } from 'node:path'

import { serialize } from './queue/documents.js'
import { writeDurably } from './queue/files.js'

/** @typedef {'connecting' | 'pairing' | 'open' | 'logged_out' | 'restricted' | 'blocked'} StateName */
/** @typedef {import('./queue/documents.js').Document} Document */

const EVERY_MS = 5_000

export class State {
	/** @type {StateName} */
	name = 'connecting'
	/** Fields beside the state's name, as docs/baileys-queue.md has them. @type {Document} */
	fields = {}
	#since = new Date()
	#reason = 'the bridge is starting'
	#path
	#temporary
	#always
	#log
	/** @type {Promise<void>} */
	#writing = Promise.resolve()
	#wanted = false
	/** @type {NodeJS.Timeout | undefined} */
	#timer

	/**
	 * @param {string} queueDir
	 * @param {() => Document} always fields to be asked for at each write
	 * @param {import('./log.js').Log} log
	 */
	constructor(queueDir, always, log) {
		this.#path = join(queueDir, 'state.json')
		this.#temporary = join(queueDir, 'inbox', 'tmp')
		this.#always = always
		this.#log = log
	}

	/**
	 * @param {StateName} name
	 * @param {string} reason in words, for people
	 * @param {Document} fields
	 */
	set(name, reason, fields = {}) {
		if (name !== this.name) {
			this.#since = new Date()
			this.#log.info('the session changed', { state: name, reason })
		}
		this.name = name
		this.#reason = reason
		this.fields = fields
		this.changed()
	}

	/** Write soon; several changes at once are one write. */
	changed() {
		if (this.#wanted) return
		this.#wanted = true
		this.#writing = this.#writing.then(async () => {
			this.#wanted = false
			await this.#write()
		})
	}

	/** Write at every change and every few seconds. */
	start() {
		this.changed()
		this.#timer = setInterval(() => this.changed(), EVERY_MS)
	}

	async stop() {
		clearInterval(this.#timer)
		await this.#writing
	}

	async #write() {
		const document = {
			state: this.name,
			since: this.#since.toISOString(),
			written_at: new Date().toISOString(),
			reason: this.#reason,
			...this.#always(),
			...this.fields,
		}
		try {
			await writeDurably(this.#path, serialize(document, 'state.json'), this.#temporary)
		} catch (error) {
			// An old state says by its age that something is wrong here.
			this.#log.error('state.json could not be written', { error: String(error) })
		}
	}
}
