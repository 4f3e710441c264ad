/** The server's answers to what the program asks (`iq`). */

import {
	S_WHATSAPP_NET,
	generateSignalPubKey,
	getBinaryNodeChild,
	getBinaryNodeChildBuffer,
	getBinaryNodeChildren,
	jidDecode,
	jidEncode,
} from './library.js'
import { verify } from './pairing.js'

/** @typedef {import('./library.js').BinaryNode} BinaryNode */
/** @typedef {import('./server.js').Server} Server */

/**
 * @param {Server} server
 * @param {import('./connection.js').Connection} connection
 * @param {BinaryNode} iq
 * @returns {Promise<BinaryNode[] | undefined>} what the result contains; undefined is no answer
 */
export async function answer(server, connection, iq) {
	const [child] = Array.isArray(iq.content) ? iq.content : []
	if (connection.pairing) return child?.tag === 'link_code_companion_reg' ? connection.pairing.answer(child) : []
	const { companion } = server.data
	if (!child || !companion) return []
	switch (`${iq.attrs.xmlns} ${child.tag}`) {
		case 'encrypt count':
			return [{ tag: 'count', attrs: { value: String(server.faults.keys ?? companion.keys.length) } }]
		case 'encrypt registration':
			return upload(companion, iq)
		case 'encrypt rotate':
			companion.signedKey = signedKey(companion, child)
			return []
		case 'encrypt digest':
			return [{ tag: 'digest', attrs: {} }]
		case 'encrypt key':
			return [{ tag: 'list', attrs: {}, content: getBinaryNodeChildren(child, 'user').map((user) => bundle(server, user)) }]
		case 'passive active':
			server.messages.deliver(connection)
			return []
		case 'usync usync':
			return devices(server, child)
		case 'w:m media_conn': {
			const host = { tag: 'host', attrs: { hostname: server.media.uploads, maxContentLengthBytes: String(2 ** 27) } }
			return [{ tag: 'media_conn', attrs: { auth: 'sandbox', ttl: '3600' }, content: [host] }]
		}
		case 'w:mex query': {
			const content = Buffer.from(JSON.stringify({ data: { xwa2_fetch_account_reachout_timelock: { is_active: false } } }))
			return [{ tag: 'result', attrs: {}, content }]
		}
		case 'md remove-companion-device':
			server.data.companion = null
			return []
		case 'w:sync:app:state sync':
			return [child]
		default:
			return []
	}
}

/** @param {import('./store.js').Companion} companion @param {BinaryNode} iq @returns {BinaryNode[]} */
function upload(companion, iq) {
	const bytes = (/** @type {BinaryNode} */ node, /** @type {string} */ tag) => Buffer.from(getBinaryNodeChildBuffer(node, tag) ?? [])
	if (!bytes(iq, 'identity').equals(companion.identity)) throw new Error('keys of another identity')
	companion.signedKey = signedKey(companion, iq)
	for (const key of getBinaryNodeChildren(getBinaryNodeChild(iq, 'list'), 'key')) {
		const one = { id: bytes(key, 'id'), value: bytes(key, 'value') }
		if (one.id.length !== 3 || one.value.length !== 32) throw new Error('a one-time key is malformed')
		if (!companion.keys.some(({ id }) => id.equals(one.id))) companion.keys.push(one)
	}
	return []
}

/** @param {import('./store.js').Companion} companion @param {BinaryNode} parent */
function signedKey(companion, parent) {
	const node = getBinaryNodeChild(parent, 'skey')
	const [id, value, signature] = ['id', 'value', 'signature'].map((tag) => Buffer.from(getBinaryNodeChildBuffer(node, tag) ?? []))
	if (!id || !value || !signature) throw new Error('a signed key is malformed')
	verify(companion.identity, generateSignalPubKey(value), signature, 'signed key')
	return { id, value, signature }
}

/** @param {Server} server @param {BinaryNode} user @returns {BinaryNode} */
function bundle(server, user) {
	const party = server.partyAt(user.attrs.jid)
	const error = { tag: 'error', attrs: { code: '404', text: 'item-not-found' } }
	return { tag: 'user', attrs: { jid: user.attrs.jid ?? '' }, content: party ? party.bundle() : [error] }
}

/** @param {Server} server @param {BinaryNode} usync @returns {BinaryNode[] | undefined} */
function devices(server, usync) {
	const asked = new Set(/** @type {BinaryNode[]} */ (getBinaryNodeChild(usync, 'query')?.content ?? []).map(({ tag }) => tag))
	const fault = asked.has('devices') ? server.faults.devices : null
	if (fault === 'unanswered') return undefined
	const users = getBinaryNodeChildren(getBinaryNodeChild(usync, 'list'), 'user')
	const content = users.flatMap((user) => {
		const number = getBinaryNodeChild(user, 'contact')?.content?.toString().replace('+', '')
		const jid = user.attrs.jid ?? jidEncode(number ?? '', 's.whatsapp.net')
		const { account, companion } = server.data
		const own = [account.phone, account.lid].includes(jidDecode(jid)?.user ?? '')
		const found = own ? account : server.contact(jid)
		/** @type {BinaryNode[]} */
		const facts = []
		if (asked.has('contact')) facts.push({ tag: 'contact', attrs: { type: found ? 'in' : 'out' } })
		// Of somebody asked by LID it is left out: the library would build the session anew each time.
		if (found && asked.has('lid') && !jid.endsWith('@lid')) facts.push({ tag: 'lid', attrs: { val: `${found.lid}@lid` } })
		if (found && asked.has('devices')) {
			/** @type {BinaryNode[]} */
			const list = [{ tag: 'device', attrs: { id: '0' } }]
			if (own && companion) list.push({ tag: 'device', attrs: { id: String(companion.device), 'key-index': String(companion.device) } })
			facts.push({ tag: 'devices', attrs: {}, content: [{ tag: 'device-list', attrs: {}, content: list }] })
		}
		return found || asked.has('contact') ? [{ tag: 'user', attrs: { jid }, content: facts }] : []
	})
	return [{ tag: 'usync', attrs: { from: S_WHATSAPP_NET }, content: [{ tag: 'list', attrs: {}, content: fault === 'empty' ? [] : content }] }]
}
