/** The server's answers to what the program asks (`iq`). */

import {
	S_WHATSAPP_NET,
	generateSignalPubKey,
	getBinaryNodeChild,
	getBinaryNodeChildren,
	jidDecode,
	jidEncode,
} from './library.js'
import { bytesOf, node } from './nodes.js'
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
			return [node('count', { value: String(server.faults.keys ?? companion.keys.length) })]
		case 'encrypt registration':
			return upload(companion, iq)
		case 'encrypt rotate':
			companion.signedKey = signedKey(companion, child)
			return []
		case 'encrypt digest':
			return [node('digest')]
		case 'encrypt key':
			return [node('list', {}, getBinaryNodeChildren(child, 'user').map((user) => bundle(server, user)))]
		case 'passive active':
			server.messages.deliver(connection)
			return []
		case 'usync usync':
			return devices(server, child)
		case 'w:m media_conn': {
			const host = node('host', { hostname: server.media.uploads, maxContentLengthBytes: String(2 ** 27) })
			return [node('media_conn', { auth: 'sandbox', ttl: '3600' }, [host])]
		}
		case 'w:mex query': {
			const data = { xwa2_fetch_account_reachout_timelock: { is_active: false } }
			return [node('result', {}, Buffer.from(JSON.stringify({ data })))]
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
	if (!bytesOf(iq, 'identity').equals(companion.identity)) throw new Error('keys of another identity')
	companion.signedKey = signedKey(companion, iq)
	for (const key of getBinaryNodeChildren(getBinaryNodeChild(iq, 'list'), 'key')) {
		const one = { id: bytesOf(key, 'id'), value: bytesOf(key, 'value') }
		if (one.id.length !== 3 || one.value.length !== 32) throw new Error('a one-time key is malformed')
		if (!companion.keys.some(({ id }) => id.equals(one.id))) companion.keys.push(one)
	}
	return []
}

/** @param {import('./store.js').Companion} companion @param {BinaryNode} parent */
function signedKey(companion, parent) {
	const child = getBinaryNodeChild(parent, 'skey')
	const key = { id: bytesOf(child, 'id'), value: bytesOf(child, 'value'), signature: bytesOf(child, 'signature') }
	verify(companion.identity, generateSignalPubKey(key.value), key.signature, 'signed key')
	return key
}

/** @param {Server} server @param {BinaryNode} user @returns {BinaryNode} */
function bundle(server, user) {
	const party = server.partyAt(user.attrs.jid)
	const content = party?.bundle() ?? [node('error', { code: '404', text: 'item-not-found' })]
	return node('user', { jid: user.attrs.jid ?? '' }, content)
}

/** Numbers, LIDs and devices of users. @param {Server} server @param {BinaryNode} usync @returns {BinaryNode[] | undefined} */
function devices(server, usync) {
	const query = getBinaryNodeChild(usync, 'query')?.content
	const asked = new Set(Array.isArray(query) ? query.map(({ tag }) => tag) : [])
	const fault = asked.has('devices') ? server.faults.devices : null
	if (fault === 'unanswered') return undefined
	const users = getBinaryNodeChildren(getBinaryNodeChild(usync, 'list'), 'user')
	const content = fault === 'empty' ? [] : users.flatMap((user) => aboutUser(server, user, asked))
	return [node('usync', { from: S_WHATSAPP_NET }, [node('list', {}, content)])]
}

/** @param {Server} server @param {BinaryNode} user @param {Set<string>} asked @returns {BinaryNode[]} */
function aboutUser(server, user, asked) {
	const number = getBinaryNodeChild(user, 'contact')?.content?.toString().replace('+', '')
	const jid = user.attrs.jid ?? jidEncode(number ?? '', 's.whatsapp.net')
	const { account, companion } = server.data
	const own = [account.phone, account.lid].includes(jidDecode(jid)?.user ?? '')
	const found = own ? account : server.contact(jid)
	/** @type {BinaryNode[]} */
	const facts = []
	if (asked.has('contact')) facts.push(node('contact', { type: found ? 'in' : 'out' }))
	// Of somebody asked by LID it is left out: the library would build the session anew each time.
	if (found && asked.has('lid') && !jid.endsWith('@lid')) facts.push(node('lid', { val: `${found.lid}@lid` }))
	if (found && asked.has('devices')) {
		const list = [node('device', { id: '0' })]
		if (own) list.push(node('device', { id: String(companion?.device), 'key-index': String(companion?.device) }))
		facts.push(node('devices', {}, [node('device-list', {}, list)]))
	}
	return found || asked.has('contact') ? [node('user', { jid }, facts)] : []
}
