/**
 * The session's keys on disk. The library's own store writes in place and takes an unreadable file
 * for a missing one, so that a torn `creds.json` silently becomes a new pairing.
 */

import { join } from 'node:path'
import { readFile, rename } from 'node:fs/promises'

import { BufferJSON, initAuthCreds, proto } from 'baileys'

import { createFolder, isMissing, remove, syncFolder, writeDurably } from './queue/files.js'

/** The credentials can't be read. They were put aside; nothing was paired anew. */
export class CorruptCredentialsError extends Error {}

/** @typedef {import('./log.js').Log} Log */
/** @typedef {import('baileys').SignalDataSet} SignalDataSet */
/** @typedef {import('baileys').SignalDataTypeMap} SignalDataTypeMap */

const CREDENTIALS = 'creds.json'

/** @param {string} name */
const fileName = (name) => name.replaceAll('/', '__').replaceAll(':', '-')

export class AuthStore {
	#folder
	#temporary
	#log
	/** Writes of one file follow each other. @type {Map<string, Promise<void>>} */
	#writing = new Map()

	/** @param {string} stateDir @param {Log} log */
	constructor(stateDir, log) {
		this.#folder = join(stateDir, 'auth')
		this.#temporary = join(stateDir, 'tmp')
		this.#log = log
	}

	/**
	 * @returns {Promise<import('baileys').AuthenticationState>}
	 * @throws {CorruptCredentialsError}
	 */
	async open() {
		await createFolder(this.#folder)
		await createFolder(this.#temporary)
		const found = await this.#read(CREDENTIALS)
		if (found.corrupt)
			throw new CorruptCredentialsError(
				`the session's credentials were unreadable and were kept as ${found.corrupt}: restore them ` +
					'from a backup, or pair again after removing that file',
			)
		await this.#refuseWhileQuarantined()
		return {
			creds: found.value ?? initAuthCreds(),
			keys: { get: (type, ids) => this.#get(type, ids), set: (data) => this.#set(data) },
		}
	}

	/** Durable when it returns. @param {import('baileys').AuthenticationCreds} creds */
	async saveCredentials(creds) {
		await this.#write(CREDENTIALS, creds)
	}

	/** Put an ended session aside, so that the next start pairs anew. @param {string} name */
	async retire(name) {
		await Promise.all(this.#writing.values())
		await rename(this.#folder, `${this.#folder}-${name}`)
		await createFolder(this.#folder)
	}

	async #refuseWhileQuarantined() {
		try {
			await readFile(join(this.#folder, `${CREDENTIALS}.corrupt`))
		} catch (error) {
			if (isMissing(error)) return
			throw error
		}
		throw new CorruptCredentialsError(
			`${CREDENTIALS}.corrupt lies in the session's folder: restore it as ${CREDENTIALS}, or remove it ` +
				'to pair anew',
		)
	}

	/**
	 * @template {keyof SignalDataTypeMap} T
	 * @param {T} type
	 * @param {string[]} ids
	 */
	async #get(type, ids) {
		/** @type {{[id: string]: SignalDataTypeMap[T]}} */
		const values = {}
		await Promise.all(
			ids.map(async (id) => {
				// A key that can't be read is asked for again by the protocol; the file is kept for people.
				let { value } = await this.#read(`${type}-${id}.json`)
				if (value && type === 'app-state-sync-key')
					value = proto.Message.AppStateSyncKeyData.fromObject(value)
				if (value) values[id] = value
			}),
		)
		return values
	}

	/** @param {SignalDataSet} data */
	async #set(data) {
		const writes = Object.entries(data).flatMap(([type, values]) =>
			Object.entries(values ?? {}).map(([id, value]) => this.#write(`${type}-${id}.json`, value)),
		)
		await Promise.all(writes)
	}

	/** @param {string} name @returns {Promise<{value?: any, corrupt?: string}>} */
	async #read(name) {
		const path = join(this.#folder, fileName(name))
		await this.#writing.get(path)
		let content
		try {
			content = await readFile(path, 'utf8')
		} catch (error) {
			if (isMissing(error)) return {}
			throw error
		}
		try {
			return { value: JSON.parse(content, BufferJSON.reviver) }
		} catch {
			const corrupt = `${path}.corrupt`
			await rename(path, corrupt)
			await syncFolder(this.#folder)
			this.#log.error('a key file was unreadable and put aside', { file: fileName(name) })
			return { corrupt }
		}
	}

	/** @param {string} name @param {unknown} value */
	#write(name, value) {
		const path = join(this.#folder, fileName(name))
		// Now: the library changes the object afterwards.
		const content = value ? JSON.stringify(value, BufferJSON.replacer) : undefined
		const before = this.#writing.get(path) ?? Promise.resolve()
		const write = before
			.catch(() => undefined)
			.then(() => (content === undefined ? remove(path) : writeDurably(path, content, this.#temporary)))
		const tracked = write.finally(() => {
			if (this.#writing.get(path) === tracked) this.#writing.delete(path)
		})
		this.#writing.set(path, tracked)
		return tracked
	}
}
