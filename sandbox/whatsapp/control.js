/** The control interface: JSON over HTTP on the loopback address. */

import { createServer } from 'node:http'
import { randomInt } from 'node:crypto'

import { BufferJSON } from './library.js'
import { newParty } from './party.js'
import { PairingError } from './pairing.js'

/** @typedef {import('./server.js').Server} Server */

/** An answer other than 200. */
class Refused extends Error {
	/** @param {number} status @param {string} message */
	constructor(status, message) {
		super(message)
		this.status = status
	}
}

/**
 * What can be asked for, by method and path; `:phone` is a contact's phone or LID. Contacts and what
 * they do are written `{"phone": "+972541112222", "lid", "name", "delivered_after_ms",
 * "read_after_ms", "answer"}`, messages as content.js has them (`Writing`), receipts `{"id",
 * "type": "delivered" | "read", "at"}`, faults as server.js has them, ends
 * `{"how": "logged_out" | "replaced" | "cut"}`.
 *
 * @type {Record<string, (server: Server, body: any, phone: string) => unknown>}
 */
const ROUTES = {
	'GET /state': ({ data, client, faults, pairing }) => ({
		connected: Boolean(client?.active),
		paired: data.companion && { device: data.companion.device, keys: data.companion.keys.length },
		pairing: pairing ? { problem: pairing.problem ?? null } : null,
		account: { phone: data.account.phone, lid: data.account.lid, sent: data.account.sent },
		queue: data.queue.map(({ stanza, retries }) => ({ kind: stanza.tag, id: stanza.attrs.id, retries })),
		empty: data.empty,
		refused: data.refused,
		violations: data.violations,
		faults,
	}),
	'POST /scan': (server, { qr }) => waiting(server).scan(String(qr)),
	'POST /code': (server, { code }) => waiting(server).type(String(code)),
	'PATCH /faults': ({ faults, media }, body) => {
		for (const name of Object.keys(body)) if (!(name in faults)) throw new Refused(400, `${name}: no such fault`)
		Object.assign(faults, body)
		media.fault = faults.media
		return faults
	},
	'POST /stanza': ({ client }, stanza) => client?.send(stanza),
	'POST /end': (server, { how = 'cut' }) => server.end(how),
	'GET /contacts': ({ data }) => data.contacts.map(visible),
	'POST /contacts': (server, body) => {
		const phone = String(body.phone ?? '').replace('+', '')
		if (!/^[1-9]\d{6,14}$/.test(phone)) throw new Refused(400, 'phone: must be in E.164')
		if (server.contact(phone)) throw new Refused(409, 'phone: is there already')
		const lid = body.lid ?? `1${randomInt(1e13, 9e13)}`
		const habits = { delivered_after_ms: 100, read_after_ms: null, answer: null }
		const contact = { phone, lid, name: 'Contact', party: newParty(), ...habits, received: [] }
		server.data.contacts.push(contact)
		return change(contact, body)
	},
	'PATCH /contacts/:phone': (server, body, phone) => change(contactOf(server, phone), body),
	'GET /contacts/:phone': (server, _, phone) => visible(contactOf(server, phone)),
	'POST /contacts/:phone/messages': async (server, body, phone) => {
		const contact = contactOf(server, phone)
		paired(server)
		return { id: await server.messages.write(contact, body) }
	},
	'POST /contacts/:phone/receipts': (server, { id, type, at }, phone) => {
		const arrival = contactOf(server, phone).received.find((one) => one.id === id)
		if (!arrival) throw new Refused(404, 'id: that message is not on this phone')
		server.messages.receipt({ phone, id, to: arrival.to, type }, at ? Date.parse(at) : undefined)
	},
	'POST /contacts/:phone/reinstall': (server, _, phone) => {
		contactOf(server, phone).party = newParty()
	},
	'POST /owner/messages': async (server, body) => {
		paired(server)
		return { id: await server.messages.write(null, body) }
	},
}

/** @param {Server} server */
export function controlServer(server) {
	return createServer(async (request, response) => {
		const reply = (/** @type {number} */ status, /** @type {unknown} */ body) =>
			response.writeHead(status, { 'content-type': 'application/json' }).end(JSON.stringify(body ?? {}))
		try {
			const [, root = '', phone = '', rest] = (request.url ?? '').split('/')
			const path = root === 'contacts' && phone ? ['/contacts/:phone', rest] : [`/${root}`, phone]
			const route = ROUTES[`${request.method} ${path.filter(Boolean).join('/')}`]
			if (!route) throw new Refused(404, 'no such path')
			const body = await bodyOf(request)
			reply(200, await server.run(() => route(server, body, decodeURIComponent(phone))))
		} catch (error) {
			const { message } = /** @type {Error} */ (error)
			reply(error instanceof Refused ? error.status : error instanceof PairingError ? 409 : 400, { error: message })
		}
	})
}

/** @param {import('node:http').IncomingMessage} request */
async function bodyOf(request) {
	let text = ''
	for await (const part of request) text += part
	return text ? JSON.parse(text, BufferJSON.reviver) : {}
}

/** @param {Server} server @param {string} phone */
function contactOf(server, phone) {
	const contact = server.contact(phone)
	if (!contact) throw new Refused(404, 'no such contact')
	return contact
}

/** @param {Server} server */
function waiting({ pairing }) {
	if (!pairing) throw new Refused(409, 'no program waits to be paired')
	return pairing
}

/** @param {Server} server */
function paired({ data }) {
	if (!data.companion) throw new Refused(409, 'no program is paired')
}

/** @param {import('./store.js').Contact} contact @param {Record<string, any>} body */
function change(contact, body) {
	for (const name of /** @type {const} */ (['name', 'delivered_after_ms', 'read_after_ms', 'answer'])) {
		if (name in body) Object.assign(contact, { [name]: body[name] })
	}
	return visible(contact)
}

/** A contact without its keys. @param {import('./store.js').Contact} contact */
function visible({ party, ...contact }) {
	return contact
}
