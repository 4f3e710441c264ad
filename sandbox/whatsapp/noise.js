/** The server's side of WhatsApp's Noise XX handshake and of the frames that follow it. */

import {
	Curve,
	NOISE_MODE,
	NOISE_WA_HEADER,
	aesDecryptGCM,
	aesEncryptGCM,
	hkdf,
	proto,
	sha256,
} from './library.js'
import { ROOT } from './trust.js'

const NOTHING = Buffer.alloc(0)
const { Details } = proto.CertChain.NoiseCertificate

/** What the other side sent can't be what it should be. */
export class HandshakeError extends Error {}

/** @param {number} counter */
function nonce(counter) {
	const iv = Buffer.alloc(12)
	iv.writeUInt32BE(counter, 8)
	return iv
}

/** A chain whose root the preload has put in the place of WhatsApp's. @param {Buffer} leafKey */
function certificates(leafKey) {
	const intermediate = Curve.generateKeyPair()
	const signed = (/** @type {object} */ fields, /** @type {Uint8Array} */ signer) => {
		const details = Buffer.from(Details.encode(fields).finish())
		return { details, signature: Curve.sign(signer, details) }
	}
	return proto.CertChain.encode({
		// The library refuses an absent serial, so the zero is written out.
		intermediate: signed({ serial: 1, issuerSerial: 0, key: intermediate.public }, ROOT.private),
		leaf: signed({ serial: 2, issuerSerial: 1, key: leafKey }, intermediate.private),
	}).finish()
}

export class Noise {
	#buffer = NOTHING
	#introduced = false
	/** @type {Buffer} */
	#hash = Buffer.from(NOISE_MODE)
	#salt = this.#hash
	#key = this.#hash
	#counter = 0
	#ephemeral = Curve.generateKeyPair()
	/** @type {{read: Buffer, write: Buffer, reads: number, writes: number} | undefined} */
	#transport

	/** Add what arrived and take out whole frames. @param {Buffer} data @throws {HandshakeError} */
	frames(data) {
		this.#buffer = Buffer.concat([this.#buffer, data])
		if (!this.#introduced) {
			if (this.#buffer.length < NOISE_WA_HEADER.length) return []
			if (!this.#take(NOISE_WA_HEADER.length).equals(NOISE_WA_HEADER)) throw new HandshakeError('not WhatsApp Web')
			this.#introduced = true
		}
		const frames = []
		while (this.#buffer.length >= 3 && this.#buffer.length >= 3 + this.#buffer.readUIntBE(0, 3))
			frames.push(this.#take(this.#take(3).readUIntBE(0, 3)))
		return frames
	}

	/** Answer the client's first frame. @param {Buffer} frame @returns {Buffer} a whole frame */
	hello(frame) {
		const client = proto.HandshakeMessage.decode(frame).clientHello?.ephemeral
		if (!client) throw new HandshakeError('no client hello')
		const own = Curve.generateKeyPair()
		this.#mixHash(NOISE_WA_HEADER)
		this.#mixHash(client)
		this.#mixHash(this.#ephemeral.public)
		this.#mixKey(Curve.sharedKey(this.#ephemeral.private, client))
		const encrypted = this.#encrypt(Buffer.from(own.public))
		this.#mixKey(Curve.sharedKey(own.private, client))
		const payload = this.#encrypt(certificates(Buffer.from(own.public)))
		const serverHello = { ephemeral: this.#ephemeral.public, static: encrypted, payload }
		return framed(proto.HandshakeMessage.encode({ serverHello }).finish())
	}

	/**
	 * Take the client's second frame; everything after it is a stanza.
	 *
	 * @param {Buffer} frame
	 * @returns {{key: Buffer, payload: proto.ClientPayload}} the client's static key and who it says it is
	 */
	finish(frame) {
		const client = proto.HandshakeMessage.decode(frame).clientFinish
		if (!client?.static || !client.payload) throw new HandshakeError('no client finish')
		const key = this.#decrypt(client.static)
		this.#mixKey(Curve.sharedKey(this.#ephemeral.private, key))
		const payload = proto.ClientPayload.decode(this.#decrypt(client.payload))
		const [read, write] = this.#derive(NOTHING)
		this.#transport = { read, write, reads: 0, writes: 0 }
		return { key, payload }
	}

	/** @param {Uint8Array} stanza @returns {Buffer} a whole frame */
	seal(stanza) {
		if (!this.#transport) throw new HandshakeError('the handshake is not over')
		return framed(aesEncryptGCM(stanza, this.#transport.write, nonce(this.#transport.writes++), NOTHING))
	}

	/** @param {Buffer} frame */
	unseal(frame) {
		if (!this.#transport) throw new HandshakeError('the handshake is not over')
		return aesDecryptGCM(frame, this.#transport.read, nonce(this.#transport.reads++), NOTHING)
	}

	/** @param {number} length */
	#take(length) {
		const taken = this.#buffer.subarray(0, length)
		this.#buffer = this.#buffer.subarray(length)
		return taken
	}

	/** @param {Uint8Array} data */
	#mixHash(data) {
		this.#hash = sha256(Buffer.concat([this.#hash, data]))
	}

	/** @param {Uint8Array} secret @returns {[Buffer, Buffer]} */
	#derive(secret) {
		const key = Buffer.from(hkdf(secret, 64, { salt: this.#salt, info: '' }))
		return [key.subarray(0, 32), key.subarray(32)]
	}

	/** @param {Uint8Array} secret */
	#mixKey(secret) {
		;[this.#salt, this.#key] = this.#derive(secret)
		this.#counter = 0
	}

	/** @param {Uint8Array} plaintext */
	#encrypt(plaintext) {
		const ciphertext = aesEncryptGCM(plaintext, this.#key, nonce(this.#counter++), this.#hash)
		this.#mixHash(ciphertext)
		return ciphertext
	}

	/** @param {Uint8Array} ciphertext */
	#decrypt(ciphertext) {
		const plaintext = aesDecryptGCM(ciphertext, this.#key, nonce(this.#counter++), this.#hash)
		this.#mixHash(ciphertext)
		return plaintext
	}
}

/** @param {Uint8Array} body */
function framed(body) {
	const frame = Buffer.alloc(3 + body.length)
	frame.writeUIntBE(body.length, 0, 3)
	frame.set(body, 3)
	return frame
}
