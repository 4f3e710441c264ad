/** How the account's phone takes a program on as its companion: by QR or by a typed code. */

import { randomBytes } from 'node:crypto'

import {
	Curve,
	S_WHATSAPP_NET,
	WA_ADV_ACCOUNT_SIG_PREFIX,
	WA_ADV_DEVICE_SIG_PREFIX,
	aesDecryptCTR,
	aesDecryptGCM,
	aesEncryptCTR,
	derivePairingCodeKey,
	generateSignalPubKey,
	getBinaryNodeChild,
	getBinaryNodeChildBuffer,
	hkdf,
	hmacSign,
	proto,
	verifySignature,
} from './library.js'
import { bytesOf, node } from './nodes.js'

/** @typedef {import('./library.js').BinaryNode} BinaryNode */

const REGISTRATION = 'link_code_companion_reg'

/** What people would be told on the phone. */
export class PairingError extends Error {}

/**
 * Strictly: the library's own `Curve.verify` takes whatever has 64 bytes.
 *
 * @param {Uint8Array} key
 * @param {Uint8Array} data
 * @param {Uint8Array} signature
 * @param {string} what for the error
 */
export function verify(key, data, signature, what) {
	const valid = verifySignature(generateSignalPubKey(key), Buffer.from(data), Buffer.from(signature))
	if (!valid) throw new Error(`${what}: wrong signature`)
}

export class Pairing {
	/** Why the last typed code did not work. @type {string | undefined} */
	problem
	#server
	#connection
	/** @type {import('./store.js').Companion} */
	#companion
	#refs = Array.from({ length: 6 }, () => `2@${randomBytes(32).toString('base64')}`)
	/** @type {{wrapped: Buffer, ephemeral?: {private: Uint8Array, public: Uint8Array}, theirs?: Buffer} | undefined} */
	#code

	/**
	 * @param {import('./server.js').Server} server
	 * @param {import('./connection.js').Connection} connection
	 * @param {Buffer} noise
	 * @param {import('./library.js').proto.ClientPayload.IDevicePairingRegistrationData} given
	 */
	constructor(server, connection, noise, given) {
		this.#server = server
		this.#connection = connection
		const field = (/** @type {Uint8Array | null | undefined} */ bytes) => Buffer.from(bytes ?? [])
		const signedKey = { id: field(given.eSkeyId), value: field(given.eSkeyVal), signature: field(given.eSkeySig) }
		const identity = field(given.eIdent)
		verify(identity, generateSignalPubKey(signedKey.value), signedKey.signature, 'signed key of the registration')
		this.#companion = { device: 0, noise, identity, registration: field(given.eRegid), signedKey, keys: [] }
	}

	/** Let the program show its QR codes. */
	offer() {
		const refs = this.#refs.map((ref) => node('ref', {}, Buffer.from(ref)))
		this.#connection.ask([node('pair-device', {}, refs)])
	}

	/** The phone's camera has read this. @param {string} qr @throws {PairingError} */
	scan(qr) {
		const [ref = '', noise = '', identity = '', secret = ''] = (qr.split('#')[1] ?? qr).split(',')
		const key = (/** @type {string} */ text) => Buffer.from(text, 'base64')
		if (!this.#refs.includes(ref)) throw new PairingError('this code is old, or of another server')
		if (!key(noise).equals(this.#companion.noise) || !key(identity).equals(this.#companion.identity))
			throw new PairingError('this code is of another program')
		this.#adopt(key(secret))
	}

	/** Somebody has typed the program's pairing code. @param {string} typed @throws {PairingError} */
	async type(typed) {
		if (!this.#code) throw new PairingError('no program asks for a pairing code')
		const code = typed.replaceAll('-', '').toUpperCase()
		const { wrapped } = this.#code
		const key = await derivePairingCodeKey(code, wrapped.subarray(0, 32))
		this.#code.theirs = aesDecryptCTR(wrapped.subarray(48, 80), key, wrapped.subarray(32, 48))
		const ephemeral = (this.#code.ephemeral = Curve.generateKeyPair())
		const [salt, iv] = [randomBytes(32), randomBytes(16)]
		const sealed = aesEncryptCTR(ephemeral.public, await derivePairingCodeKey(code, salt), iv)
		const content = [
			node('link_code_pairing_wrapped_primary_ephemeral_pub', {}, Buffer.concat([salt, iv, sealed])),
			node('primary_identity_pub', {}, this.#server.phone.identity.public),
			node('link_code_pairing_ref', {}, Buffer.from(this.#refs[0] ?? '')),
		]
		const attrs = { from: S_WHATSAPP_NET, type: REGISTRATION, id: randomBytes(4).toString('hex') }
		const hello = node(REGISTRATION, { stage: 'primary_hello' }, content)
		this.#connection.send(node('notification', attrs, [hello]))
	}

	/** The program's two questions about a code. @param {BinaryNode} question @returns {BinaryNode[]} */
	answer(question) {
		if (question.attrs.stage === 'companion_hello') {
			this.#code = { wrapped: bytesOf(question, 'link_code_pairing_wrapped_companion_ephemeral_pub') }
			const isOurs = question.attrs.jid === `${this.#server.data.account.phone}@s.whatsapp.net`
			this.problem = isOurs ? undefined : 'the code is for another number'
			return [node(REGISTRATION, {}, [node('link_code_pairing_ref', {}, Buffer.from(this.#refs[0] ?? ''))])]
		}
		const { ephemeral, theirs } = this.#code ?? {}
		if (!ephemeral || !theirs) throw new Error('the end of a pairing by code that nobody typed')
		const bundle = bytesOf(question, 'link_code_pairing_wrapped_key_bundle')
		const shared = Curve.sharedKey(ephemeral.private, theirs)
		const use = { salt: bundle.subarray(0, 32), info: 'link_code_pairing_key_bundle_encryption_key' }
		const key = Buffer.from(hkdf(shared, 32, use))
		let opened
		try {
			opened = aesDecryptGCM(bundle.subarray(44), key, bundle.subarray(32, 44), Buffer.alloc(0))
		} catch {
			this.problem = 'the code is wrong'
			return []
		}
		const phone = this.#server.phone.identity
		const expected = Buffer.concat([this.#companion.identity, phone.public])
		if (!opened.subarray(0, 64).equals(expected)) throw new Error('the identities in the pairing by code are wrong')
		const identities = Curve.sharedKey(phone.private, this.#companion.identity)
		const secret = Buffer.concat([shared, identities, opened.subarray(64, 96)])
		this.#adopt(Buffer.from(hkdf(secret, 32, { info: 'adv_secret' })))
		return []
	}

	/** @param {Buffer} secret that only this program and this phone know */
	#adopt(secret) {
		const { account } = this.#server.data
		const { private: signer, public: accountSignatureKey } = this.#server.phone.identity
		const device = (this.#companion.device = account.devices += 1)
		const identity = { rawId: 1, timestamp: Math.floor(Date.now() / 1000), keyIndex: device }
		const details = Buffer.from(proto.ADVDeviceIdentity.encode(identity).finish())
		const signing = Buffer.concat([WA_ADV_ACCOUNT_SIG_PREFIX, details, this.#companion.identity])
		const accountSignature = Curve.sign(signer, signing)
		const signed = { details, accountSignatureKey, accountSignature }
		const encoded = Buffer.from(proto.ADVSignedDeviceIdentity.encode(signed).finish())
		const proven = proto.ADVSignedDeviceIdentityHMAC.encode({ details: encoded, hmac: hmacSign(encoded, secret) })
		this.#connection.ask([
			node('pair-success', {}, [
				node('device-identity', {}, Buffer.from(proven.finish())),
				node('device', { jid: `${account.phone}:${device}@s.whatsapp.net`, lid: `${account.lid}:${device}@lid` }),
				node('platform', { name: 'android' }),
				node('biz', { name: account.name }),
			]),
		])
	}

	/** The program has signed: it belongs to the account now. @param {BinaryNode} result */
	confirm(result) {
		const signed = getBinaryNodeChildBuffer(getBinaryNodeChild(result, 'pair-device-sign'), 'device-identity')
		verifyDevice(signed, this.#companion.identity, this.#server.phone.identity.public)
		const { data } = this.#server
		Object.assign(data, { companion: this.#companion, queue: [] })
		this.#connection.end(node('stream:error', { code: '515' }))
	}
}

/**
 * Both signatures that make a device one of the account's.
 *
 * @param {Uint8Array | string | undefined} encoded
 * @param {Uint8Array} identity the device's
 * @param {Uint8Array} account the phone's
 */
export function verifyDevice(encoded, identity, account) {
	if (!(encoded instanceof Uint8Array)) throw new Error('the device identity is missing')
	const { details, accountSignature, deviceSignature } = proto.ADVSignedDeviceIdentity.decode(encoded)
	if (!details || !accountSignature || !deviceSignature) throw new Error('the device identity is not complete')
	const theirs = Buffer.concat([WA_ADV_ACCOUNT_SIG_PREFIX, details, identity])
	verify(account, theirs, accountSignature, "account's signature")
	const own = Buffer.concat([WA_ADV_DEVICE_SIG_PREFIX, details, identity, account])
	verify(identity, own, deviceSignature, "device's signature")
}
