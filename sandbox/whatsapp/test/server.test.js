/** The unmodified library pairs and talks with the server. */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'

import { downloadMediaMessage } from '../library.js'
import { Client } from './client.js'
import { WhatsApp, until } from './support.js'

const ACCOUNT = '972500000001'
const DANA = '972541112222'
const JID = `${DANA}@s.whatsapp.net`
const DELIVERED = 3
const READ = 4

/** @param {import('node:test').TestContext} t */
async function start(t) {
	const server = await WhatsApp.start(t)
	const client = new Client(server.url)
	t.after(async () => {
		client.close()
		assert.deepEqual((await server.state().catch(() => ({ violations: [] }))).violations, [])
	})
	return { server, client }
}

/** @param {import('node:test').TestContext} t @param {object} [contact] */
async function paired(t, contact = {}) {
	const { server, client } = await start(t)
	await server.contact(DANA, { lid: '200000000000002', name: 'Dana', ...contact })
	await client.pair(server)
	return { server, client }
}

test('a QR pairs, after the restart that the server asks for', async (t) => {
	const { server, client } = await start(t)
	await client.pair(server)
	assert.equal(client.ends[0], 515)
	assert.equal(client.creds.me?.id, `${ACCOUNT}:1@s.whatsapp.net`)
	assert.equal((await server.state()).paired.keys, 812)
})

test('a key that its owner has not signed is not taken', async (t) => {
	const server = await WhatsApp.start(t)
	const client = new Client(server.url)
	client.creds.signedPreKey.signature = Buffer.alloc(64, 1)
	client.connect()
	await client.ended()
	assert.deepEqual((await server.state()).violations, ['signed key of the registration: wrong signature'])
})

test('a typed code pairs, and a wrong one does not', async (t) => {
	const { server, client } = await start(t)
	client.connect()
	await until('a QR is shown', () => client.qr)
	const code = await client.socket?.requestPairingCode(ACCOUNT)
	await server.ask('POST /code', { code: 'AAAAAAAA' })
	await until('the phone says so', async () => (await server.state()).pairing?.problem === 'the code is wrong')
	await server.ask('POST /code', { code })
	await client.opened()
})

test('a text is acknowledged, delivered and read, each at its own time', async (t) => {
	const { server, client } = await paired(t)
	const id = await client.send(JID, { text: 'hello' })
	await client.ack(id)
	assert.ok((await client.status(id, DELIVERED)).messageTimestamp)
	await server.ask(`POST /contacts/${DANA}/receipts`, { id, type: 'read', at: '2026-03-01T12:00:00Z' })
	assert.equal((await client.status(id, READ)).messageTimestamp, Date.parse('2026-03-01T12:00:00Z') / 1000)
	const [arrival] = await server.shown(DANA)
	assert.deepEqual([arrival.id, arrival.deliveries, arrival.content.text], [id, 1, 'hello'])
	assert.equal((await server.state()).account.sent[0].id, id)
	await client.send(JID, { text: 'hello' }, id)
	await until('it comes again', async () => (await server.shown(DANA))[0].deliveries === 2)
})

test('a contact reads and answers by itself', async (t) => {
	const { server, client } = await paired(t, { read_after_ms: 200, answer: 'you said {text}' })
	const id = await client.send(`200000000000002@lid`, { text: 'hi' })
	await client.status(id, READ)
	const answer = await until('an answer', () => client.messages.find(({ key }) => !key.fromMe))
	assert.equal(answer.message.conversation, 'you said hi')
	assert.equal(answer.key.remoteJid, '200000000000002@lid')
})

test('what contacts write comes from phone and LID, and the queue empties', async (t) => {
	const { server, client } = await paired(t)
	const first = await client.message(await server.write(DANA, { type: 'text', text: 'by phone' }))
	assert.deepEqual([first.key.remoteJid, first.key.remoteJidAlt, first.pushName, first.type], [JID, '200000000000002@lid', 'Dana', 'notify'])
	const second = await client.message(await server.write(DANA, { type: 'text', text: 'by LID', from: 'lid' }))
	assert.deepEqual([second.key.remoteJid, second.key.remoteJidAlt], ['200000000000002@lid', JID])
	const sent = await client.send(JID, { text: 'hello' })
	const third = await client.message(
		await server.write(DANA, { type: 'text', text: 'reply', reply_to: { id: sent, from_me: true, text: 'hello' } }),
	)
	assert.equal(third.message.extendedTextMessage.contextInfo.stanzaId, sent)
	const reaction = await client.message(await server.write(DANA, { type: 'reaction', emoji: '👍', of: { id: sent, from_me: true } }))
	assert.deepEqual([reaction.message.reactionMessage.key.fromMe, reaction.message.reactionMessage.key.id], [true, sent])
	await client.message(await server.write(DANA, { type: 'location', latitude: 32.1, longitude: 34.8, name: 'Here' }))
	await client.message(await server.write(DANA, { type: 'contacts', contacts: [{ name: 'Avi', vcard: 'BEGIN:VCARD\nEND:VCARD' }] }))
	await client.message(await server.write(DANA, { type: 'edit', text: 'new', of: { id: first.key.id, from_me: false } }))
	await client.message(await server.write(DANA, { type: 'deletion', of: { id: first.key.id, from_me: false } }))
	const own = await client.message((await server.ask('POST /owner/messages', { type: 'text', text: 'from my phone', to: JID })).id)
	assert.deepEqual([own.key.fromMe, own.key.remoteJid, own.message.conversation], [true, JID, 'from my phone'])
	await until('nothing waits', async () => (await server.state()).queue.length === 0)
})

test('files go both ways', async (t) => {
	const { server, client } = await paired(t)
	const file = Buffer.from('a file that is long enough to be one')
	const writing = { type: 'media', media: 'document', data: file.toString('base64'), mimetype: 'text/plain', filename: 'a.txt' }
	const message = await client.message(await server.write(DANA, writing))
	assert.deepEqual(await downloadMediaMessage(message, 'buffer', {}), file)
	const id = await client.send(JID, { document: file, mimetype: 'text/plain', fileName: 'b.txt', caption: 'look' })
	await client.ack(id)
	const [{ content }] = await server.shown(DANA)
	assert.deepEqual(
		[content.media, content.filename, content.caption, content.sha256],
		['document', 'b.txt', 'look', createHash('sha256').update(file).digest('hex')],
	)
})

test('what happens while the client is away comes when it is back, after a SIGKILL of the server too', async (t) => {
	const { server, client } = await paired(t)
	const sent = await client.send(JID, { text: 'before' })
	await client.status(sent, DELIVERED)
	await client.message(await server.write(DANA, { type: 'text', text: 'a session' }))
	client.close()
	await until('it is gone', async () => !(await server.state()).connected)
	const ids = [await server.write(DANA, { type: 'text', text: 'one' }), await server.write(DANA, { type: 'text', text: 'two' })]
	await server.ask(`POST /contacts/${DANA}/receipts`, { id: sent, type: 'read' })
	await server.kill()
	await server.run()
	client.connect()
	for (const id of ids) assert.equal((await client.message(id)).type, 'append')
	await client.status(sent, READ)
	await client.ack(await client.send(JID, { text: 'after' }))
	assert.equal((await server.shown(DANA)).length, 2)
	await until('nothing waits', async () => (await server.state()).queue.length === 0)
})

test('a phone that cannot read a message gets it again under the same id', async (t) => {
	const { server, client } = await paired(t)
	await server.ask('PATCH /faults', { undecryptable: 1 })
	const id = await client.send(JID, { text: 'unread' })
	await until('it comes again', async () => (await server.shown(DANA))[0]?.id === id)
})

test('a contact with a new phone is written to and read', async (t) => {
	const { server, client } = await paired(t)
	await client.ack(await client.send(JID, { text: 'one' }))
	await client.message(await server.write(DANA, { type: 'text', text: 'two' }))
	await server.ask(`POST /contacts/${DANA}/reinstall`)
	const id = await client.send(JID, { text: 'three' })
	await until('it comes again', async () => (await server.shown(DANA)).some((one) => one.id === id))
	await server.ask(`POST /contacts/${DANA}/reinstall`)
	await client.message(await server.write(DANA, { type: 'text', text: 'four' }))
})

test('a client that lost its keys asks again and reads', async (t) => {
	const { server, client } = await paired(t)
	await client.message(await server.write(DANA, { type: 'text', text: 'one' }))
	await client.ack(await client.send(JID, { text: 'two' }))
	await client.message(await server.write(DANA, { type: 'text', text: 'three' }))
	for (const key of Object.keys(client.keys)) if (key.startsWith('session/')) delete client.keys[key]
	client.close()
	client.connect()
	await client.message(await server.write(DANA, { type: 'text', text: 'four' }))
})

for (const [code, end] of /** @type {const} */ ([
	[401, 'logged_out'],
	[440, 'replaced'],
	[428, 'cut'],
])) {
	test(`the connection ends with ${code}`, async (t) => {
		const { server, client } = await paired(t)
		client.ends = []
		await server.ask('POST /end', { how: end })
		assert.equal(await client.ended(), code)
		client.connect()
		if (code !== 401) return await client.opened()
		assert.equal(await client.ended(), 401)
	})
}

test('a login is refused with 503, and works again', async (t) => {
	const { server, client } = await paired(t)
	client.ends = []
	await server.ask('PATCH /faults', { refuse: 503 })
	client.close()
	await until('it is gone', async () => !(await server.state()).connected)
	client.ends = []
	client.connect()
	assert.equal(await client.ended(), 503)
	await server.ask('PATCH /faults', { refuse: null })
	client.connect()
	await client.opened()
})

for (const code of [463, 479]) {
	test(`an acknowledgement with ${code} is an error, and the contact gets nothing`, async (t) => {
		const { server, client } = await paired(t)
		await server.ask('PATCH /faults', { ack_errors: [code] })
		const id = await client.send(JID, { text: 'refused' })
		assert.equal((await client.ack(id)).error, String(code))
		assert.deepEqual(await server.shown(DANA), [])
	})
}

test('a failed device list makes an empty message, and the server has seen it', async (t) => {
	const { server, client } = await paired(t)
	await server.ask('PATCH /faults', { devices: 'empty' })
	const id = await client.send(JID, { text: 'nothing' })
	await client.ack(id)
	assert.deepEqual((await server.state()).empty, [id])
	assert.deepEqual(await server.shown(DANA), [])
})

test('a swallowed acknowledgement never comes, a slow one late, a silent server says nothing', async (t) => {
	const { server, client } = await paired(t)
	await server.ask('PATCH /faults', { swallow_acks: 1 })
	const swallowed = await client.send(JID, { text: 'one' })
	await until('it is there', async () => (await server.shown(DANA)).length === 1)
	await server.ask('PATCH /faults', { delay_ms: 300 })
	const began = Date.now()
	await client.ack(await client.send(JID, { text: 'two' }))
	assert.ok(Date.now() - began >= 300)
	assert.ok(!client.acks.some(({ id }) => id === swallowed))
	await server.ask('PATCH /faults', { delay_ms: 0, silent: true })
	const held = await client.send(JID, { text: 'three' })
	await until('it is there', async () => (await server.shown(DANA)).length === 3)
	assert.ok(!client.acks.some(({ id }) => id === held))
	await server.ask('PATCH /faults', { silent: false })
	await client.ack(held)
})
