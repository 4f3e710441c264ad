/**
 * What became of each send, by its id: a file each in the bridge's own folder. It makes a second
 * send of one id unnecessary, and answers the library when a phone asks for a message again.
 */

import { join } from 'node:path'
import { readFile, stat } from 'node:fs/promises'

import { createFolder, isMissing, list, remove, writeDurably } from './queue/files.js'

/**
 * @typedef {object} Entry
 * @property {'sending' | 'accepted' | 'refused'} state
 * @property {string} ref
 * @property {string} at when the state began, or the server's time of it
 * @property {string} to the chat
 * @property {string} [code] of a refusal
 * @property {string} [message] the code in words
 * @property {string} [content] the protobuf that was sent, in base64
 */

const SEND_ID = /^3EB0[0-9A-F]{18}$/
const KEEP_MS = 8 * 24 * 60 * 60 * 1000
const RESEND_MS = 15 * 60 * 1000

export class Record {
	#folder
	#temporary

	/** @param {string} stateDir */
	constructor(stateDir) {
		this.#folder = join(stateDir, 'sent')
		this.#temporary = join(stateDir, 'tmp')
	}

	async open() {
		await createFolder(this.#folder)
		await createFolder(this.#temporary)
	}

	/** None of an id that isn't a send's: receipts come with any. @param {string} id @returns {Promise<Entry | undefined>} */
	async get(id) {
		if (!SEND_ID.test(id)) return undefined
		try {
			return JSON.parse(await readFile(this.#path(id), 'utf8'))
		} catch (error) {
			if (isMissing(error)) return undefined
			throw error
		}
	}

	/** Durable when it returns. @param {string} id @param {Entry} entry */
	async put(id, entry) {
		await writeDurably(this.#path(id), JSON.stringify(entry), this.#temporary)
	}

	/** Takes back `sending` when it is certain that nothing was sent. @param {string} id */
	async forget(id) {
		await remove(this.#path(id))
	}

	/**
	 * The message to give a phone that could not read it; nothing old, which would be shown anew.
	 *
	 * @param {string} id
	 * @param {number} now milliseconds since 1970
	 */
	async content(id, now) {
		const entry = await this.get(id)
		if (!entry?.content) return undefined
		const age = now - (await stat(this.#path(id))).mtimeMs
		return age < RESEND_MS ? Buffer.from(entry.content, 'base64') : undefined
	}

	/** Forget what is older than any retry. @param {number} now milliseconds since 1970 */
	async prune(now) {
		for (const name of await list(this.#folder)) {
			const path = join(this.#folder, name)
			if (now - (await stat(path)).mtimeMs > KEEP_MS) await remove(path)
		}
	}

	/** @param {string} id */
	#path(id) {
		return join(this.#folder, `${id}.json`)
	}
}
