/** What WhatsApp said, written to the queue for messaging. */

import { join } from 'node:path'
import { readdir } from 'node:fs/promises'

import { serialize } from './queue/documents.js'
import { createFolder, list, remove, writeDurably } from './queue/files.js'
import { Names } from './queue/names.js'

const FULL = 10_000
const ROOM_AGAIN = 5_000

export class Inbox {
	#new
	#temporary
	#names = new Names()

	/** @param {string} queueDir */
	constructor(queueDir) {
		this.#new = join(queueDir, 'inbox', 'new')
		this.#temporary = join(queueDir, 'inbox', 'tmp')
	}

	async open() {
		await createFolder(this.#new)
		await createFolder(this.#temporary)
		for (const name of await list(this.#temporary)) await remove(join(this.#temporary, name))
	}

	/**
	 * Durable when it returns.
	 *
	 * @param {'message' | 'status' | 'lid'} kind
	 * @param {import('./queue/documents.js').Document} document without `v` and `kind`
	 */
	async write(kind, document) {
		const text = serialize({ kind, ...document }, 'inbox/new')
		await writeDurably(join(this.#new, this.#names.next(kind)), text, this.#temporary)
	}

	/** Files that wait for messaging. */
	async waiting() {
		return (await readdir(this.#new)).length
	}

	/** Whether to stop receiving. @param {number} waiting @param {boolean} stopped */
	isFull(waiting, stopped) {
		return waiting >= (stopped ? ROOM_AGAIN : FULL)
	}
}
