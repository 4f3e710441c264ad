/** Files as WhatsApp keeps them: encrypted, by the hash of what is stored. */

import { createCipheriv, createDecipheriv, randomBytes } from 'node:crypto'
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { hkdf, hkdfInfoKey, hmacSign, sha256 } from './library.js'

/** @typedef {'image' | 'video' | 'audio' | 'document' | 'sticker'} Kind */
/** @typedef {import('./library.js').proto.Message.IImageMessage} MediaMessage what all kinds have in common */

const NAME = /^\/(?:media|mms\/[a-z-]+)\/([\w-]+={0,2})(?:\?|$)/

/** @param {Buffer} bytes */
const nameOf = (bytes) => sha256(bytes).toString('base64url')

/** @param {Uint8Array} mediaKey @param {Kind} kind */
function keysOf(mediaKey, kind) {
	const expanded = Buffer.from(hkdf(mediaKey, 112, { info: hkdfInfoKey(kind) }))
	return { iv: expanded.subarray(0, 16), cipher: expanded.subarray(16, 48), mac: expanded.subarray(48, 80) }
}

export class Media {
	/** Host and port for uploads, and address for downloads. */
	uploads = ''
	downloads = ''
	/** The HTTP status of downloads instead of the file, or no answer at all. @type {number | 'silent' | null} */
	fault = null
	#folder

	/** @param {string} folder */
	constructor(folder) {
		this.#folder = join(folder, 'media')
		mkdirSync(this.#folder, { recursive: true, mode: 0o700 })
	}

	/** @param {Buffer} plain @param {Kind} kind @returns {MediaMessage} */
	encrypt(plain, kind) {
		const mediaKey = randomBytes(32)
		const { iv, cipher, mac } = keysOf(mediaKey, kind)
		const encryption = createCipheriv('aes-256-cbc', cipher, iv)
		const body = Buffer.concat([encryption.update(plain), encryption.final()])
		const stored = Buffer.concat([body, hmacSign(Buffer.concat([iv, body]), mac).subarray(0, 10)])
		// Without a directPath, which the library would fetch by https from WhatsApp's own host.
		const url = `${this.downloads}/media/${this.#put(stored)}`
		return { url, mediaKey, fileSha256: sha256(plain), fileEncSha256: sha256(stored), fileLength: plain.length }
	}

	/** @param {MediaMessage} message @param {Kind} kind @returns {{size: number, sha256: string}} */
	decrypt({ url, mediaKey, fileSha256, fileEncSha256 }, kind) {
		const name = NAME.exec(new URL(url ?? '').pathname)?.[1]
		if (!name || !mediaKey) throw new Error('a file without an address or a key')
		const stored = readFileSync(join(this.#folder, name))
		const { iv, cipher, mac } = keysOf(mediaKey, kind)
		const body = stored.subarray(0, -10)
		const decryption = createDecipheriv('aes-256-cbc', cipher, iv)
		const plain = Buffer.concat([decryption.update(body), decryption.final()])
		const fits =
			sha256(stored).equals(fileEncSha256 ?? Buffer.alloc(0)) &&
			sha256(plain).equals(fileSha256 ?? Buffer.alloc(0)) &&
			stored.subarray(-10).equals(hmacSign(Buffer.concat([iv, body]), mac).subarray(0, 10))
		if (!fits) throw new Error('a file is not what its message says')
		return { size: plain.length, sha256: sha256(plain).toString('hex') }
	}

	/**
	 * Uploads and downloads.
	 *
	 * @param {import('node:http').IncomingMessage} request
	 * @param {import('node:http').ServerResponse} response
	 */
	async handle(request, response) {
		const name = NAME.exec(request.url ?? '')?.[1]
		const path = name && join(this.#folder, name.replace(/=+$/, ''))
		if (path && request.method === 'POST') {
			const parts = []
			for await (const part of request) parts.push(part)
			const stored = this.#put(Buffer.concat(parts))
			if (!path.endsWith(stored)) return response.writeHead(400).end()
			const places = { url: `${this.downloads}/media/${stored}`, direct_path: `/media/${stored}` }
			return response.end(JSON.stringify(places))
		}
		if (this.fault === 'silent') return undefined
		if (this.fault) return response.writeHead(this.fault).end()
		if (!path || !existsSync(path)) return response.writeHead(404).end()
		return response.writeHead(200, { 'content-type': 'application/octet-stream' }).end(readFileSync(path))
	}

	/** @param {Buffer} stored */
	#put(stored) {
		writeFileSync(join(this.#folder, nameOf(stored)), stored, { mode: 0o600 })
		return nameOf(stored)
	}
}
