/** The largest messages: what has no room in a document is cut, and none is lost. */

import assert from 'node:assert/strict'
import { readFile, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'

import { proto } from 'baileys'

import { Inbox } from '../src/inbox.js'
import { MAX_BYTES, parse, serialize } from '../src/queue/documents.js'
import { Receiver } from '../src/receiver.js'
import { translate } from '../src/translate.js'
import { ACCOUNT, DANA, DANA_LID, paired, until } from './support/bridge.js'
import { readJson, temporaryFolder } from './support/folder.js'
import { FakeSession, silent } from './support/session.js'

const { Type } = proto.Message.ProtocolMessage
const JID = `${DANA}@s.whatsapp.net`
const EMOJI = '👍'.repeat(65_536)
/** JSON has six bytes for each. */
const CONTROLS = '\u0001'.repeat(65_536)
/** @param {number} count @param {number} size */
const cards = (count, size) =>
	Array.from({ length: count }, (_, index) => ({
		name: `Card ${index}`,
		vcard: `BEGIN:VCARD\nFN:Card ${index}\nPHOTO:${'A'.repeat(size)}\nEND:VCARD`,
	}))

/** With the longest of all other fields. @param {any} content */
const written = (content) => {
	const at = new Date().toISOString()
	const id = 'A'.repeat(128)
	const chats = { chat: `${'9'.repeat(20)}@s.whatsapp.net`, chat_alt: `${'9'.repeat(20)}@lid` }
	const text = serialize(
		{
			kind: 'message',
			id,
			account: ACCOUNT,
			direction: 'in',
			...chats,
			name: CONTROLS.slice(0, 255),
			at,
			received_at: at,
			delivery: 'notify',
			content,
			reply_to: { id, from_me: false },
		},
		'inbox/new',
	)
	return parse(Buffer.from(text), 'inbox/new').content
}

/** @param {object} message @returns {any} */
const translated = (message) => translate(/** @type {any} */ ({ key: { remoteJid: JID, id: 'A1' }, message }), { id: JID })?.content

for (const [name, text] of /** @type {const} */ ([['emoji', EMOJI], ['control characters', CONTROLS]])) {
	test(`${name} are cut so that they fit, and end with the sign for it`, () => {
		const { text: shown } = written(translated({ conversation: text }))
		assert(shown.endsWith('…'))
		assert(text.startsWith(shown.slice(0, -1)))
		assert(Buffer.byteLength(JSON.stringify(shown)) > 245_000)
		const editedMessage = { conversation: text }
		const edit = { protocolMessage: { key: { id: 'B1' }, type: Type.MESSAGE_EDIT, editedMessage } }
		assert.equal(written(translated(edit)).text, shown)
		const media = translated({ documentMessage: { caption: text, fileName: CONTROLS } })
		assert.equal(written({ ...media, problem: CONTROLS.slice(0, 255) }).caption, shown)
		written(translated({ locationMessage: { degreesLatitude: 1, degreesLongitude: 2, name: text, address: text } }))
	})
}

test('what fits is left as it is', () => {
	const text = 'ש'.repeat(65_536)
	assert.equal(written(translated({ conversation: text })).text, text)
	const contacts = cards(15, 14_000).map(({ name: displayName, vcard }) => ({ displayName, vcard }))
	assert.deepEqual(written(translated({ contactsArrayMessage: { contacts } })).contacts, cards(15, 14_000))
})

test('of cards that have no room the names stay', () => {
	for (const [count, size] of /** @type {const} */ ([[20, 14_000], [257, 14_000]])) {
		const contacts = cards(count, size).map(({ name: displayName, vcard }) => ({ displayName, vcard }))
		/** @type {{name: string, vcard: string}[]} */
		const shown = written(translated({ contactsArrayMessage: { contacts } })).contacts
		assert.deepEqual(shown.map(({ name }) => name), contacts.map(({ displayName }) => displayName))
		assert(shown.every(({ vcard }) => vcard.startsWith('BEGIN:VCARD\nFN:Card ') && vcard.endsWith('…')))
	}
	const worst = Array.from({ length: 257 }, () => ({ displayName: CONTROLS, vcard: CONTROLS }))
	assert.equal(written(translated({ contactsArrayMessage: { contacts: worst } })).contacts.length, 257)
})

test('of a message that is too large all the same it is kept that somebody wrote', async (t) => {
	const folder = await temporaryFolder(t)
	const inbox = new Inbox(folder)
	await inbox.open()
	const parts = {
		inbox,
		record: { get: async () => undefined },
		received: { done: async () => undefined },
		media: { fetch: async () => ({ caption: EMOJI, problem: 'gone' }) },
		session: new FakeSession(),
		log: silent,
	}
	const receiver = new Receiver(/** @type {any} */ (parts))
	const key = { remoteJid: JID, remoteJidAlt: `${DANA_LID}@lid`, id: 'A1' }
	receiver.messages([/** @type {any} */ ({ key, message: { imageMessage: {} } })], 'notify')
	await receiver.idle()
	const [name = ''] = await readdir(join(folder, 'inbox', 'new'))
	const { id, content } = await readJson(folder, `inbox/new/${name}`)
	assert.deepEqual([id, content], ['A1', { type: 'unsupported', name: 'malformed' }])
})

test('the largest messages of a contact lie in the inbox as messaging can read them', async (t) => {
	const { server, bridge } = await paired(t)
	const writings = [
		{ type: 'text', text: EMOJI },
		{ type: 'text', text: CONTROLS },
		{ type: 'contacts', contacts: cards(20, 14_000) },
	]
	for (const writing of writings) await bridge.message(await server.write(DANA, writing))
	const folder = join(bridge.queue, 'inbox', 'new')
	const names = (await readdir(folder)).filter((name) => name.includes('message'))
	assert.equal(names.length, writings.length)
	for (const name of names) {
		const content = await readFile(join(folder, name))
		assert(content.length <= MAX_BYTES)
		assert.notEqual(parse(content, 'inbox/new').content.type, 'unsupported')
	}
	await until('WhatsApp keeps nothing', async () => (await server.state()).queue.length === 0)
})
