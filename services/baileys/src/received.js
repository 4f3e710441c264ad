/**
 * What was decrypted and isn't in the inbox yet. The library acknowledges a message to WhatsApp
 * before it hands it over, and a message can be decrypted only once: so it is kept on disk from
 * within the decryption on, and a crash at any later point loses nothing.
 */

import { join } from 'node:path'
import { readFile } from 'node:fs/promises'

import { DEFAULT_CONNECTION_CONFIG, cleanMessage, decodeMessageNode, proto, unpadRandomMax16 } from 'baileys'

import { createFolder, isMissing, list, remove, writeDurably } from './queue/files.js'
import { Names } from './queue/names.js'

/** @typedef {import('baileys').BinaryNode} BinaryNode */
/** @typedef {import('baileys').WAMessage} WAMessage */

const NOTIFY = /** @type {const} */ ('notify')
const APPEND = /** @type {const} */ ('append')

export class Received {
	#folder
	#temporary
	#names = new Names()
	/** The stanza that a ciphertext came in. @type {WeakMap<Uint8Array, BinaryNode>} */
	#stanzas = new WeakMap()
	/** Files by the id of their message. @type {Map<string, Set<string>>} */
	#files = new Map()

	/** @param {string} stateDir */
	constructor(stateDir) {
		this.#folder = join(stateDir, 'received')
		this.#temporary = join(stateDir, 'tmp')
	}

	async open() {
		await createFolder(this.#folder)
		await createFolder(this.#temporary)
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
					if (stanza) await this.#keep(stanza, plaintext)
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
			const kept = await this.#read(name)
			if (!kept) continue
			const { attrs, plaintext } = kept
			const { fullMessage } = decodeMessageNode({ tag: 'message', attrs }, me.id, me.lid ?? '')
			const decoded = proto.Message.decode(unpadRandomMax16(Buffer.from(plaintext, 'base64')))
			const message = /** @type {WAMessage} */ (fullMessage)
			message.message = decoded.deviceSentMessage?.message ?? decoded
			cleanMessage(message, me.id, me.lid ?? '')
			this.#remember(attrs.id ?? '', name)
			found.push({ message, delivery: attrs.offline ? APPEND : NOTIFY })
		}
		return found
	}

	/** @param {string} name @returns {Promise<{attrs: Record<string, string>, plaintext: string} | undefined>} */
	async #read(name) {
		try {
			return JSON.parse(await readFile(join(this.#folder, name), 'utf8'))
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
