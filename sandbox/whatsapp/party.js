/** One phone's side of Signal: its keys, its sessions, what it encrypts and decrypts. */

import {
	Curve,
	DEFAULT_CONNECTION_CONFIG,
	KEY_BUNDLE_TYPE,
	encodeBigEndian,
	initAuthCreds,
	unpadRandomMax16,
	xmppPreKey,
	xmppSignedPreKey,
} from './library.js'
import { node } from './nodes.js'

/** @typedef {import('./library.js').BinaryNode} BinaryNode */

/** @typedef {import('./library.js').AuthenticationCreds} Creds */
/** @typedef {Parameters<import('./library.js').SignalRepository['injectE2ESession']>[0]['session']} Bundle */

/**
 * @typedef {object} PartyState
 * @property {Pick<Creds, 'signedIdentityKey' | 'signedPreKey' | 'registrationId' | 'nextPreKeyId'>} creds
 * @property {Record<string, Record<string, any>>} keys
 */

/** @returns {PartyState} */
export function newParty() {
	const { signedIdentityKey, signedPreKey, registrationId, nextPreKeyId } = initAuthCreds()
	return { creds: { signedIdentityKey, signedPreKey, registrationId, nextPreKeyId }, keys: {} }
}

/** A logger for the library that says nothing. @type {any} */
const QUIET = { level: 'silent', child: () => QUIET, trace() {}, debug() {}, info() {}, warn() {}, error() {} }

export class Party {
	#state
	#repository

	/** @param {PartyState} state is changed in place */
	constructor(state) {
		this.#state = state
		const auth = /** @type {any} */ ({ creds: state.creds, keys: keyStore(state.keys) })
		this.#repository = DEFAULT_CONNECTION_CONFIG.makeSignalRepository(auth, QUIET, async () => [])
	}

	get identity() {
		return this.#state.creds.signedIdentityKey
	}

	get registration() {
		return encodeBigEndian(this.#state.creds.registrationId)
	}

	/** What somebody needs to write to this phone first. @returns {BinaryNode[]} */
	bundle() {
		const { creds, keys } = this.#state
		const id = creds.nextPreKeyId++
		const pair = Curve.generateKeyPair()
		keys['pre-key'] = { ...keys['pre-key'], [id]: pair }
		return [
			node('registration', {}, this.registration),
			node('type', {}, KEY_BUNDLE_TYPE),
			node('identity', {}, this.identity.public),
			xmppSignedPreKey(creds.signedPreKey),
			xmppPreKey(pair, id),
		]
	}

	/** @param {string} jid */
	async knows(jid) {
		return (await this.#repository.validateSession(jid)).exists
	}

	/** @param {string} jid @param {Bundle} session */
	async meet(jid, session) {
		await this.#repository.injectE2ESession({ jid, session })
	}

	/** @param {string} jid @param {Uint8Array} data padded @returns {Promise<BinaryNode>} */
	async encrypt(jid, data) {
		const { type, ciphertext } = await this.#repository.encryptMessage({ jid, data })
		return node('enc', { v: '2', type }, Buffer.from(ciphertext))
	}

	/** @param {string} jid @param {BinaryNode} enc @returns {Promise<Uint8Array>} without its padding */
	async decrypt(jid, enc) {
		const type = enc.attrs.type === 'pkmsg' ? 'pkmsg' : 'msg'
		const ciphertext = Buffer.from(/** @type {Uint8Array} */ (enc.content))
		return unpadRandomMax16(await this.#repository.decryptMessage({ jid, type, ciphertext }))
	}
}

/** The library's key store over a plain object. @param {PartyState['keys']} keys */
function keyStore(keys) {
	return {
		isInTransaction: () => true,
		transaction: (/** @type {() => Promise<unknown>} */ work) => work(),
		get: async (/** @type {string} */ type, /** @type {string[]} */ ids) =>
			Object.fromEntries(ids.flatMap((id) => (keys[type]?.[id] ? [[id, keys[type][id]]] : []))),
		set: async (/** @type {Record<string, Record<string, any>>} */ data) => {
			for (const [type, values] of Object.entries(data)) {
				const kept = (keys[type] ??= {})
				for (const [id, value] of Object.entries(values)) {
					if (value) kept[id] = value
					else delete kept[id]
				}
			}
		},
	}
}
