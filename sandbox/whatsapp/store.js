/** Everything the server must still know after a SIGKILL, in one file that is replaced as a whole. */

import { existsSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

import { BufferJSON } from './library.js'
import { newParty } from './party.js'

/** @typedef {import('./library.js').BinaryNode} BinaryNode */

/**
 * The program under test, once it is paired.
 *
 * @typedef {object} Companion
 * @property {number} device
 * @property {Buffer} noise its static key
 * @property {Buffer} identity
 * @property {Buffer} registration four bytes
 * @property {{id: Buffer, value: Buffer, signature: Buffer}} signedKey
 * @property {{id: Buffer, value: Buffer}[]} keys for one use each
 */

/**
 * @typedef {object} Contact
 * @property {string} phone digits
 * @property {string} lid digits
 * @property {string} name
 * @property {import('./party.js').PartyState} party
 * @property {number | null} delivered_after_ms from a message's arrival to its receipt; null is never
 * @property {number | null} read_after_ms
 * @property {string | null} answer what it writes back after reading, `{text}` being what it read
 * @property {Arrival[]} received
 */

/**
 * A message on a phone, which shows an id once however often it comes.
 *
 * @typedef {object} Arrival
 * @property {string} id
 * @property {string} at
 * @property {number} deliveries
 * @property {string} to the address the sender used
 * @property {import('./content.js').Description} content
 */

/**
 * A stanza that the client has not confirmed yet.
 *
 * @typedef {object} Pending
 * @property {BinaryNode} stanza with its ciphertext: WhatsApp can't encrypt it again
 * @property {string} [sender] digits of the phone that wrote it
 * @property {Buffer} [plaintext] what that phone encrypts anew when asked to
 * @property {number} retries
 */

/**
 * What a contact will do by itself.
 *
 * @typedef {{due: number, phone: string, id: string, to: string, type: 'delivered' | 'read' | 'answer', text: string}} Step
 */

/** @typedef {{phone: string, lid: string, name: string}} Owner digits of the account's phone and LID */

/**
 * @typedef {object} Data
 * @property {Owner & {party: import('./party.js').PartyState, devices: number, sent: Arrival[]}} account
 * @property {Companion | null} companion
 * @property {Contact[]} contacts
 * @property {Pending[]} queue
 * @property {Step[]} steps
 * @property {string[]} empty ids of messages that came without anything in them for their addressee
 * @property {string[]} refused ids of messages that the program has refused: decrypted before, or not at all
 * @property {string[]} violations what a real server or phone would not have taken
 */

export class Store {
	/** @type {Data} */
	data
	#path

	/** @param {string} folder @param {Owner} account for a new one */
	constructor(folder, account) {
		mkdirSync(folder, { recursive: true, mode: 0o700 })
		this.#path = join(folder, 'whatsapp.json')
		this.data = existsSync(this.#path)
			? JSON.parse(readFileSync(this.#path, 'utf8'), BufferJSON.reviver)
			: {
					account: { ...account, party: newParty(), devices: 0, sent: [] },
					companion: null,
					contacts: [],
					queue: [],
					steps: [],
					empty: [],
					refused: [],
					violations: [],
				}
		this.save()
	}

	save() {
		writeFileSync(`${this.#path}.new`, JSON.stringify(this.data, BufferJSON.replacer), { mode: 0o600 })
		renameSync(`${this.#path}.new`, this.#path)
	}
}
