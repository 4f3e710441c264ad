/** The server as a whole: its state, its phones, and the one program that may be logged in. */

import { createServer } from 'node:http'

import { WebSocketServer, jidDecode } from './library.js'
import { Connection } from './connection.js'
import { Media } from './media.js'
import { Messages } from './messages.js'
import { node } from './nodes.js'
import { Party } from './party.js'

/** @typedef {import('./store.js').Contact} Contact */
/** @typedef {import('./store.js').Data['account']} Account */

export class Server {
	/** What goes wrong; set by the control interface. */
	faults = {
		/** @type {number | null} the reason with which each login is refused */
		refuse: null,
		/** nothing is sent any more, though all is read */
		silent: false,
		/** before each frame */
		delay_ms: 0,
		/** @type {number[]} the next messages are refused with these codes, one each */
		ack_errors: [],
		/** so many messages are taken without a word */
		swallow_acks: 0,
		/** so many messages can't be read by the contact's phone */
		undecryptable: 0,
		/** @type {'empty' | 'unanswered' | null} of the question for a contact's devices */
		devices: null,
		/** @type {number | null} how many one-time keys it says it has */
		keys: null,
		/** @type {number | 'silent' | null} the HTTP status of each download, or no answer at all */
		media: null,
	}
	/** The connection that is logged in. @type {Connection | undefined} */
	client
	media
	messages = new Messages(this)
	store
	/** @type {Set<Connection>} */
	#connections = new Set()
	/** @type {WeakMap<object, Party>} */
	#parties = new WeakMap()
	/** @type {Promise<unknown>} */
	#work = Promise.resolve()

	/** @param {import('./store.js').Store} store @param {string} folder */
	constructor(store, folder) {
		this.store = store
		this.media = new Media(folder)
	}

	get data() {
		return this.store.data
	}

	/** The account's own phone. */
	get phone() {
		return this.party(this.data.account)
	}

	/** The program's address for Signal. */
	get companionJid() {
		return `${this.data.account.lid}:${this.data.companion?.device}@lid`
	}

	/** The connection that waits to be paired. */
	get pairing() {
		return [...this.#connections].findLast(({ pairing }) => pairing)?.pairing
	}

	/** @param {number} port @returns {Promise<number>} the port */
	async listen(port) {
		const http = createServer((request, response) => this.media.handle(request, response))
		const sockets = new WebSocketServer({ server: http, path: '/ws/chat' })
		sockets.on('connection', (/** @type {unknown} */ socket) => this.#connections.add(new Connection(socket, this)))
		const bound = await listening(http, port)
		this.media.downloads = `http://127.0.0.1:${bound}`
		this.media.uploads = `127.0.0.1:${bound}`
		this.messages.start()
		return bound
	}

	/**
	 * One thing at a time; nothing leaves before the state that it rests on is saved.
	 *
	 * @template T
	 * @param {() => T | Promise<T>} work
	 * @returns {Promise<T>}
	 */
	run(work) {
		const result = this.#work.then(work).finally(() => {
			this.store.save()
			for (const connection of this.#connections) connection.flush()
		})
		this.#work = result.catch(() => undefined)
		return result
	}

	/** A connection has logged in; a second one takes the first one's place. @param {Connection} connection */
	entered(connection) {
		this.client?.end(replaced)
		this.client = connection
	}

	/** @param {Connection} connection */
	left(connection) {
		this.#connections.delete(connection)
		if (this.client === connection) this.client = undefined
	}

	/** End the program's connection. @param {'logged_out' | 'replaced' | 'cut'} how */
	end(how) {
		if (how === 'logged_out') {
			Object.assign(this.data, { companion: null, queue: [] })
			this.client?.end(node('stream:error', { code: '401' }, [node('conflict', { type: 'device_removed' })]))
		} else if (how === 'replaced') this.client?.end(replaced)
		else for (const connection of this.#connections) connection.cut()
	}

	/** @param {string} jid or digits of a phone or LID @returns {Contact | undefined} */
	contact(jid) {
		const user = jid.includes('@') ? jidDecode(jid)?.user : jid.replace('+', '')
		return this.data.contacts.find(({ phone, lid }) => phone === user || lid === user)
	}

	/** A contact or the account's own phone. @param {string | undefined} jid @returns {Contact | Account | undefined} */
	phoneAt(jid = '') {
		const { account } = this.data
		const { user, device } = jidDecode(jid) ?? {}
		if (user === account.phone || user === account.lid) return device ? undefined : account
		return this.contact(jid)
	}

	/** @param {Contact | Account} phone @returns {Party} */
	party(phone) {
		let party = this.#parties.get(phone.party)
		if (!party) this.#parties.set(phone.party, (party = new Party(phone.party)))
		return party
	}

	/** @param {string | undefined} jid */
	partyAt(jid) {
		const phone = this.phoneAt(jid)
		return phone && this.party(phone)
	}
}

const replaced = node('stream:error', {}, [node('conflict', { type: 'replaced' })])

/** @param {import('node:net').Server} server @param {number} port @returns {Promise<number>} */
export function listening(server, port, host = '127.0.0.1') {
	return new Promise((resolve, reject) => {
		server.once('error', reject)
		server.listen(port, host, () => resolve(/** @type {import('node:net').AddressInfo} */ (server.address()).port))
	})
}
