/** `state.json`: how the session is, for messaging and for people. */

import { open, rename } from 'node:fs/promises'
import { dirname, join } from 'node:path'

import { serialize } from './queue/documents.js'
import { inWords, syncFolder, writeDurably } from './queue/files.js'

/** @typedef {'connecting' | 'pairing' | 'open' | 'logged_out' | 'restricted' | 'blocked'} StateName */
/** @typedef {import('./queue/documents.js').Document} Document */

const EVERY_MS = 5_000
/** Larger than any state. */
const SPARE_BYTES = 16_384

export class State {
	/** @type {StateName} */
	name = 'connecting'
	/** Fields beside the state's name, as docs/baileys-queue.md has them. @type {Document} */
	fields = {}
	#since = new Date()
	#reason = 'the bridge is starting'
	#path
	#temporary
	/** On a full disk the state takes this file's place, whose room it has already. */
	#spare
	#hasSpare = false
	#always
	#unwritable
	#log
	/** @type {Promise<void>} */
	#writing = Promise.resolve()
	#wanted = false
	/** @type {NodeJS.Timeout | undefined} */
	#timer

	/**
	 * @param {string} queueDir
	 * @param {() => Document} always fields to be asked for at each write
	 * @param {(error: unknown) => void} unwritable told when the state can't be written and doesn't say so
	 * @param {import('./log.js').Log} log
	 */
	constructor(queueDir, always, unwritable, log) {
		this.#path = join(queueDir, 'state.json')
		this.#temporary = join(queueDir, 'inbox', 'tmp')
		this.#spare = join(this.#temporary, 'state.spare')
		this.#always = always
		this.#unwritable = unwritable
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
		let text = ''
		try {
			text = serialize(document, 'state.json')
			await writeDurably(this.#path, text, this.#temporary)
			if (!this.#hasSpare) await writeDurably(this.#spare, Buffer.alloc(SPARE_BYTES, ' '), this.#temporary)
			this.#hasSpare = true
		} catch (error) {
			if (this.name !== 'blocked') return this.#unwritable(error)
			if (text && this.#hasSpare) await this.#writeIntoSpare(text).catch(() => undefined)
			// An old state says by its age that something is wrong here.
			else this.#log.error('state.json could not be written', { reason: inWords(error) })
		}
	}

	/** @param {string} text */
	async #writeIntoSpare(text) {
		const handle = await open(this.#spare, 'r+')
		try {
			await handle.writeFile(text)
			await handle.truncate(Buffer.byteLength(text))
			await handle.sync()
		} finally {
			await handle.close()
		}
		this.#hasSpare = false
		await rename(this.#spare, this.#path)
		await syncFolder(dirname(this.#path))
	}
}
