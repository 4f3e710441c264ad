/** The outbox' files: taking sends, answering them, and putting things in order after a crash. */

import { join } from 'node:path'
import { readdir } from 'node:fs/promises'

import { BadDocumentError, MAX_BYTES, parse, serialize } from './queue/documents.js'
import { createFolder, exists, list, move, readBounded, remove, writeDurably } from './queue/files.js'
import { isValid } from './queue/names.js'

/** @typedef {import('./queue/documents.js').Document} Document */
/** @typedef {{name: string, document: Document}} Taken */
/** @typedef {import('./results.js').Result} Result */

export class Outbox {
	#new
	#current
	#done
	#bad
	#temporary

	/** @param {string} queueDir */
	constructor(queueDir) {
		this.#new = join(queueDir, 'outbox', 'new')
		this.#current = join(queueDir, 'outbox', 'cur')
		this.#done = join(queueDir, 'outbox', 'done')
		this.#bad = join(queueDir, 'outbox', 'bad')
		this.#temporary = join(queueDir, 'inbox', 'tmp')
	}

	async open() {
		for (const folder of [this.#new, this.#current, this.#done, this.#bad, this.#temporary]) await createFolder(folder)
	}

	/** Files that wait to be sent. */
	async waiting() {
		return (await readdir(this.#new)).length
	}

	/** The oldest send, which is ours from now on; undefined when there is none. @returns {Promise<Taken | undefined>} */
	async take() {
		for (const name of await list(this.#new)) {
			const path = join(this.#current, name)
			if (!(await move(join(this.#new, name), path))) continue
			const document = await this.#read(name)
			if (document) return { name, document }
		}
		return undefined
	}

	/** Say what became of a send, and let go of it. @param {Taken} send @param {Result} result */
	async answer(send, result) {
		const { id, ref, attempt } = send.document
		await this.#write(send.name, { id, ref, attempt, ...result })
		if (result.code === 'bad_document') await this.#putAside(send.name, 'field', result.message ?? '')
		else await remove(join(this.#current, send.name))
	}

	/** What a crash left in `cur/` without an answer. @returns {Promise<Taken[]>} */
	async left() {
		const found = []
		for (const name of await list(this.#current)) {
			if (isValid(name) && (await exists(join(this.#done, name)))) {
				// The answer stands, so all before it does.
				await remove(join(this.#current, name))
				continue
			}
			const document = await this.#read(name)
			if (document) found.push({ name, document })
		}
		return found
	}

	/** Let a send wait again. @param {Taken} send */
	async giveBack({ name }) {
		await move(join(this.#current, name), join(this.#new, name))
	}

	/** @param {string} name @returns {Promise<Document | undefined>} undefined for a bad file, which is put aside */
	async #read(name) {
		try {
			if (!isValid(name)) throw new BadDocumentError('foreign', 'its name does not fit')
			const found = await readBounded(join(this.#current, name), MAX_BYTES)
			if ('problem' in found) {
				if (found.problem === 'missing') return undefined
				throw new BadDocumentError(found.problem, found.problem === 'too_large' ? `more than ${MAX_BYTES} bytes` : 'is no regular file')
			}
			return parse(found.content, 'outbox/new')
		} catch (error) {
			if (!(error instanceof BadDocumentError)) throw error
			if (error.problem !== 'foreign')
				await this.#write(name, {
					outcome: 'refused',
					at: new Date().toISOString(),
					code: 'bad_document',
					message: error.message.slice(0, 1000),
				})
			await this.#putAside(name, error.problem, error.message.slice(error.problem.length + 2))
			return undefined
		}
	}

	/** @param {string} name @param {Document} answer */
	async #write(name, answer) {
		const text = serialize({ kind: 'answer', ...answer }, 'outbox/done')
		await writeDurably(join(this.#done, name), text, this.#temporary)
	}

	/** @param {string} name @param {string} problem @param {string} explanation */
	async #putAside(name, problem, explanation) {
		let target = join(this.#bad, name)
		for (let number = 1; await exists(target); number++) target = join(this.#bad, `${name}.${number}`)
		const reason = `${problem}: ${explanation}`.replaceAll(/\s+/g, ' ')
		await writeDurably(`${target}.reason`, `${reason}\n`, this.#temporary)
		await move(join(this.#current, name), target)
	}
}
