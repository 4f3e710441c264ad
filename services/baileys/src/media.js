/** Files that come with messages and go out with them, in the queue's `media/`. */

import { createHash, randomBytes } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { open, rename, stat, utimes } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import { downloadMediaMessage, toNumber } from 'baileys'

import { createFolder, isMissing, list, remove, syncFolder } from './queue/files.js'

/** @typedef {import('baileys').WAMessage} WAMessage */
/** @typedef {{sha256: string, size: number, mimetype: string}} File */

const TRIES = 5
const TOTAL_MS = 120_000
const REUPLOAD_MS = 10_000

class TooLargeError extends Error {}
/** Ours, and no fault of the file's: it is fetched again when the disk can be written. */
class DiskError extends Error {
	/** @param {NodeJS.ErrnoException} error */
	constructor(error) {
		super('the file could not be stored')
		this.code = error.code
	}
}

/** @template T @param {Promise<T>} work @returns {Promise<T>} */
const onDisk = (work) =>
	work.catch((error) => {
		throw new DiskError(error)
	})

export class Media {
	#folder
	#temporary
	#maxBytes

	/** @param {string} queueDir @param {number} maxBytes */
	constructor(queueDir, maxBytes) {
		this.#folder = join(queueDir, 'media')
		this.#temporary = join(queueDir, 'media', 'tmp')
		this.#maxBytes = maxBytes
	}

	async open() {
		await createFolder(this.#temporary)
		for (const name of await list(this.#temporary))
			if (name.startsWith('bridge-')) await remove(join(this.#temporary, name))
	}

	/**
	 * Where a file that is to be sent lies; undefined when it isn't there or is another one.
	 *
	 * @param {File} file
	 */
	async outgoing(file) {
		const path = join(this.#folder, file.sha256)
		try {
			const found = await stat(path)
			if (!found.isFile() || found.size !== file.size || found.size > this.#maxBytes) return undefined
			const hash = createHash('sha256')
			for await (const chunk of createReadStream(path)) hash.update(chunk)
			return hash.digest('hex') === file.sha256 ? path : undefined
		} catch (error) {
			if (isMissing(error)) return undefined
			throw error
		}
	}

	/**
	 * Fetch a received message's file.
	 *
	 * @param {WAMessage} message
	 * @param {import('./translate.js').MediaMessage} media
	 * @param {() => import('baileys').WASocket | undefined} socket to ask the phone for a file that is gone
	 * @returns {Promise<{file: File} | {problem: string}>}
	 */
	async fetch(message, media, socket) {
		if (media.fileLength && toNumber(/** @type {any} */ (media.fileLength)) > this.#maxBytes) return { problem: 'too_large' }
		const until = Date.now() + TOTAL_MS
		let problem = 'unreadable'
		let asked = false
		for (let attempt = 1; attempt <= TRIES && Date.now() < until; attempt++) {
			try {
				const { sha256, size } = await this.#download(message, until - Date.now())
				return { file: { sha256, size, mimetype: (media.mimetype ?? '').slice(0, 255) } }
			} catch (error) {
				if (error instanceof TooLargeError) return { problem: 'too_large' }
				if (error instanceof DiskError) throw error
				problem = problemOf(error)
				const connected = socket()
				if (problem === 'gone' && (asked || !connected)) return { problem }
				if (problem === 'gone') {
					asked = true
					await within(REUPLOAD_MS, Promise.resolve(connected?.updateMediaMessage(message))).catch(() => undefined)
				} else await pause(Math.min(500 * 2 ** (attempt - 1), Math.max(until - Date.now(), 0)))
			}
		}
		return { problem }
	}

	/** @param {WAMessage} message @param {number} milliseconds */
	async #download(message, milliseconds) {
		const unfinished = join(this.#temporary, `bridge-${randomBytes(8).toString('hex')}`)
		// The library passes no limit of time on, neither before its stream nor within it.
		const starting = downloadMediaMessage(message, 'stream', {})
		let stream
		try {
			const until = Date.now() + milliseconds
			stream = await within(milliseconds, starting)
			const { sha256, size } = await within(until - Date.now(), this.#store(stream, unfinished))
			const path = join(this.#folder, sha256)
			await onDisk(rename(unfinished, path))
			const now = new Date()
			await onDisk(utimes(path, now, now))
			await onDisk(syncFolder(this.#folder))
			return { sha256, size }
		} catch (error) {
			starting.then((late) => late.destroy()).catch(() => undefined)
			await remove(unfinished)
			throw error
		}
	}

	/** @param {import('node:stream').Readable} stream @param {string} path */
	async #store(stream, path) {
		const hash = createHash('sha256')
		let size = 0
		const handle = await onDisk(open(path, 'wx', 0o600))
		try {
			for await (const chunk of stream) {
				size += chunk.length
				if (size > this.#maxBytes) throw new TooLargeError()
				hash.update(chunk)
				await onDisk(handle.writeFile(chunk))
			}
			await onDisk(handle.sync())
		} finally {
			await handle.close()
		}
		return { sha256: hash.digest('hex'), size }
	}
}

/**
 * @template T
 * @param {number} milliseconds
 * @param {Promise<T>} work is left to itself when it takes longer
 * @returns {Promise<T>}
 */
async function within(milliseconds, work) {
	work.catch(() => undefined)
	const stop = new AbortController()
	const late = pause(Math.max(milliseconds, 1), undefined, { signal: stop.signal }).then(() => {
		throw new DOMException('took too long', 'TimeoutError')
	})
	late.catch(() => undefined)
	try {
		return await Promise.race([work, late])
	} finally {
		stop.abort()
	}
}

/** @param {unknown} error */
function problemOf(error) {
	const status = /** @type {any} */ (error)?.output?.statusCode ?? /** @type {any} */ (error)?.status
	if (status === 404 || status === 410) return 'gone'
	if (error instanceof Error && (error.name === 'TimeoutError' || error.name === 'AbortError')) return 'timeout'
	return 'unreadable'
}
