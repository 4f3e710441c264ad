/**
 * What was decrypted and isn't in the inbox yet. The library acknowledges a message to WhatsApp
 * before it hands it over, and a message can be decrypted only once: so it is kept on disk from
 * within the decryption on, and a crash at any later point loses nothing.
 */

import { join } from 'node:path'
import { readFile } from 'node:fs/promises'

import { DEFAULT_CONNECTION_CONFIG, cleanMessage, decodeMessageNode, proto, unpadRandomMax16 } from 'baileys'

import { createFolder, isMissing, list, move, remove, writeDurably } from './queue/files.js'
import { Names } from './queue/names.js'

/** @typedef {import('baileys').BinaryNode} BinaryNode */
/** @typedef {import('baileys').WAMessage} WAMessage */

const NOTIFY = /** @type {const} */ ('notify')
const APPEND = /** @type {const} */ ('append')
/** So many files that can't be decoded stay for people to look at. */
const MOST_BAD = 100

export class Received {
	#folder
	#bad
	#temporary
	#log
	#names = new Names()
	/** The stanza that a ciphertext came in. @type {WeakMap<Uint8Array, BinaryNode>} */
	#stanzas = new WeakMap()
	/** Files by the id of their message. @type {Map<string, Set<string>>} */
	#files = new Map()

	/** @param {string} stateDir @param {import('./log.js').Log} log */
	constructor(stateDir, log) {
		this.#folder = join(stateDir, 'received')
		this.#bad = join(stateDir, 'received-bad')
		this.#temporary = join(stateDir, 'tmp')
		this.#log = log
	}

	async open() {
		for (const folder of [this.#folder, this.#bad, this.#temporary]) await createFolder(folder)
	}

	/** Remember the stanza whose parts are about to be decrypted. @param {BinaryNode} stanza */
	expect(stanza) {
		if (!Array.isArray(stanza.content)) return
		for (const part of stanza.content)
			if (part.tag === 'enc' && part.content instanceof Uint8Array) this.#stanzas.set(part.content, stanza)
	}

	/**
	 * The library's Signal repository, which keeps what it decrypts before the session's keys move
	 * on: after a crash in between WhatsApp's redelivery can be decrypted again.
	 *
	 * @param {(error: unknown) => void} unwritten told when something can't be kept, before WhatsApp
	 *   can be told that it was not understood
	 * @returns {import('baileys').SocketConfig['makeSignalRepository']}
	 */
	repositoryMaker = (unwritten) => (auth, logger, toLid) => {
		const repository = DEFAULT_CONNECTION_CONFIG.makeSignalRepository(auth, logger, toLid)
		const { decryptMessage } = repository
		const keys = /** @type {import('baileys').SignalKeyStoreWithTransaction} */ (auth.keys)
		repository.decryptMessage = (options) =>
			keys.transaction(async () => {
				const plaintext = await decryptMessage(options)
				const stanza = this.#stanzas.get(options.ciphertext)
				try {
					// The library refuses what can't be decoded, and asks the writer to send it again.
					if (stanza && isDecodable(plaintext)) await this.#keep(stanza, plaintext)
				} catch (error) {
					unwritten(error)
					throw error
				}
				return plaintext
			}, options.jid)
		return repository
	}

	/** Forget a message that is in the inbox, or is none. @param {string} id */
	async done(id) {
		const names = this.#files.get(id) ?? new Set()
		this.#files.delete(id)
		for (const name of names) await remove(join(this.#folder, name))
	}

	/**
	 * What was decrypted and isn't in the inbox.
	 *
	 * @param {{id: string, lid?: string | undefined}} me
	 * @returns {Promise<{message: WAMessage, delivery: 'notify' | 'append'}[]>}
	 */
	async left(me) {
		const found = []
		for (const name of await list(this.#folder)) {
			const text = await this.#read(name)
			if (text === undefined) continue
			try {
				const { attrs, message } = decodeKept(text, me)
				this.#remember(attrs.id ?? '', name)
				found.push({ message, delivery: attrs.offline ? APPEND : NOTIFY })
			} catch (error) {
				const reason = error instanceof Error ? error.name : typeof error
				this.#log.error("what was received can't be decoded: it lies in received-bad", { file: name, reason })
				await this.#putAside(name)
			}
		}
		return found
	}

	/** @param {string} name */
	async #putAside(name) {
		await move(join(this.#folder, name), join(this.#bad, name))
		for (const oldest of (await list(this.#bad)).slice(0, -MOST_BAD)) await remove(join(this.#bad, oldest))
	}

	/** @param {string} name @returns {Promise<string | undefined>} */
	async #read(name) {
		try {
			return await readFile(join(this.#folder, name), 'utf8')
		} catch (error) {
			// It has been written to the inbox meanwhile.
			if (isMissing(error)) return undefined
			throw error
		}
	}

	/** @param {BinaryNode} stanza @param {Uint8Array} plaintext */
	async #keep(stanza, plaintext) {
		const name = this.#names.next('received')
		const text = JSON.stringify({ attrs: stanza.attrs, plaintext: Buffer.from(plaintext).toString('base64') })
		await writeDurably(join(this.#folder, name), text, this.#temporary)
		this.#remember(stanza.attrs.id ?? '', name)
	}

	/** @param {string} id @param {string} name */
	#remember(id, name) {
		this.#files.set(id, (this.#files.get(id) ?? new Set()).add(name))
	}
}

/** As the library does it. @param {Uint8Array} plaintext */
const decode = (plaintext) => proto.Message.decode(unpadRandomMax16(plaintext))

/** @param {Uint8Array} plaintext */
function isDecodable(plaintext) {
	try {
		decode(plaintext)
		return true
	} catch {
		return false
	}
}

/**
 * @param {string} text of a file
 * @param {{id: string, lid?: string | undefined}} me
 * @returns {{attrs: Record<string, string>, message: WAMessage}}
 */
function decodeKept(text, me) {
	const { attrs, plaintext } = JSON.parse(text)
	const { fullMessage } = decodeMessageNode({ tag: 'message', attrs }, me.id, me.lid ?? '')
	const decoded = decode(Buffer.from(plaintext, 'base64'))
	const message = /** @type {WAMessage} */ (fullMessage)
	message.message = decoded.deviceSentMessage?.message ?? decoded
	try {
		cleanMessage(message, me.id, me.lid ?? '')
	} catch {
		// A reaction to nothing, say. WhatsApp was told that it came, so it is handed on as it is.
	}
	return { attrs, message }
}
