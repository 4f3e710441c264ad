/** Until when WhatsApp limits the account: kept, as a restart must not send at once again. */

import { join } from 'node:path'
import { readFile } from 'node:fs/promises'

import { createFolder, isMissing, writeDurably } from './queue/files.js'

export class Restriction {
	#path
	#temporary
	/** @type {Date | undefined} */
	#until
	/** @type {Promise<void>} */
	#writing = Promise.resolve()

	/** @param {string} stateDir */
	constructor(stateDir) {
		this.#path = join(stateDir, 'restricted-until')
		this.#temporary = join(stateDir, 'tmp')
	}

	async open() {
		await createFolder(this.#temporary)
		try {
			this.#until = new Date((await readFile(this.#path, 'utf8')).trim())
		} catch (error) {
			if (!isMissing(error)) throw error
		}
	}

	/** The end of it; undefined when there is none. */
	until(now = Date.now()) {
		return this.#until && this.#until.getTime() > now ? this.#until : undefined
	}

	/** Durable when it returns. @param {Date} until */
	async put(until) {
		this.#until = until
		// In turn: of two at one moment the later one is to stay.
		const written = this.#writing.then(() => writeDurably(this.#path, until.toISOString(), this.#temporary))
		this.#writing = written.catch(() => undefined)
		await written
	}
}
