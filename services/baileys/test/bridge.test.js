/** The bridge as a process, with the unmodified library, against the sandbox's WhatsApp. */

import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { mkdir, readdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'

import { messageId } from '../src/queue/names.js'
import { ACCOUNT, Bridge, DANA, DANA_LID, paired, started, until } from './support/bridge.js'

const TEXT = { type: 'text', text: 'hello' }
const JID = `${DANA}@s.whatsapp.net`

/** @param {Buffer} bytes */
const hash = (bytes) => createHash('sha256').update(bytes).digest('hex')

test('a scanned QR opens the session', async (t) => {
	const { server, bridge } = await started(t)
	const { pairing, account } = await bridge.when('pairing')
	assert.equal(account, undefined)
	await server.ask('POST /scan', { qr: pairing.qr })
	const state = await bridge.when('open')
	assert.deepEqual([state.account, state.lid, state.pairing], [ACCOUNT, '100000000000001@lid', undefined])
	assert.deepEqual((await server.state()).violations, [])
})

test('a typed code opens the session', async (t) => {
	const { server, bridge } = await started(t, { BAILEYS_PAIRING_PHONE: ACCOUNT })
	const { pairing } = await bridge.when('pairing', ({ pairing }) => pairing.code)
	await server.ask('POST /code', { code: pairing.code })
	await bridge.when('open')
})

test('a send is answered, sent, delivered and read, and never sent a second time', async (t) => {
	const { server, bridge } = await paired(t)
	const name = await bridge.send(TEXT, { ref: 'ref-1' })
	const id = messageId('ref-1')
	const answer = await bridge.answer(name)
	assert.deepEqual([answer.outcome, answer.id, answer.ref, answer.attempt], ['accepted', id, 'ref-1', 1])
	assert.equal((await bridge.status(id, 'sent')).ref, 'ref-1')
	await bridge.status(id, 'delivered')
	await server.ask(`POST /contacts/${DANA}/receipts`, { id, type: 'read', at: '2026-03-01T12:00:00Z' })
	assert.equal(Date.parse((await bridge.status(id, 'read')).at), Date.parse('2026-03-01T12:00:00Z'))
	const again = await bridge.answer(await bridge.send(TEXT, { ref: 'ref-1', attempt: 2 }))
	assert.deepEqual([again.outcome, again.at], ['accepted', answer.at])
	const [shown] = await server.shown(DANA)
	assert.deepEqual([shown.id, shown.content.text, shown.deliveries], [id, 'hello', 1])
	const byLid = await bridge.answer(await bridge.send(TEXT, { to: `${DANA_LID}@lid` }))
	assert.equal(byLid.outcome, 'accepted')
	await until('it is shown', async () => (await server.shown(DANA)).length === 2)
})

test('a file and a reply go out', async (t) => {
	const { server, bridge } = await paired(t)
	const bytes = Buffer.from('a file that goes out')
	const sha256 = hash(bytes)
	await mkdir(join(bridge.queue, 'media'), { recursive: true })
	await writeFile(join(bridge.queue, 'media', sha256), bytes)
	const file = { sha256, size: bytes.length, mimetype: 'application/pdf' }
	const content = { type: 'media', media: 'document', file, caption: 'look', filename: 'a.pdf' }
	assert.equal((await bridge.answer(await bridge.send(content))).outcome, 'accepted')
	const asked = await server.write(DANA, { type: 'text', text: 'a question' })
	await bridge.message(asked)
	await bridge.answer(await bridge.send(TEXT, { reply_to: { id: asked, from_me: false, text: 'a question' } }))
	const [document, reply] = await until('both are shown', async () => {
		const shown = await server.shown(DANA)
		return shown.length === 2 ? shown : undefined
	})
	const { caption, filename } = document.content
	assert.deepEqual([document.content.sha256, caption, filename], [sha256, 'look', 'a.pdf'])
	assert.equal(reply.content.reply_to.id, asked)
})

test('whatever a contact writes comes as what it is', async (t) => {
	const { server, bridge } = await paired(t)
	const receive = async (/** @type {object} */ writing) => await bridge.message(await server.write(DANA, writing))
	const text = await receive({ type: 'text', text: 'by phone' })
	const { received_at: _, at: __, id, ...rest } = text
	assert.deepEqual(rest, {
		v: 1,
		kind: 'message',
		account: ACCOUNT,
		direction: 'in',
		chat: JID,
		chat_alt: `${DANA_LID}@lid`,
		name: 'Dana',
		delivery: 'notify',
		content: { type: 'text', text: 'by phone' },
	})
	const byLid = await receive({ type: 'text', text: 'by LID', from: 'lid' })
	assert.deepEqual([byLid.chat, byLid.chat_alt], [`${DANA_LID}@lid`, JID])
	const of = { id, from_me: false }
	assert.deepEqual((await receive({ type: 'text', text: 'reply', reply_to: of })).reply_to, of)
	assert.deepEqual((await receive({ type: 'reaction', emoji: '👍', of })).content, { type: 'reaction', emoji: '👍', of })
	assert.deepEqual((await receive({ type: 'edit', text: 'new', of })).content, { type: 'edit', text: 'new', of })
	assert.deepEqual((await receive({ type: 'deletion', of })).content, { type: 'deletion', of })
	const location = { type: 'location', latitude: 32.1, longitude: 34.8, name: 'Here', address: '1 Street' }
	assert.deepEqual((await receive(location)).content, { ...location, live: false })
	const contacts = [{ name: 'Avi', vcard: 'BEGIN:VCARD\nEND:VCARD' }]
	assert.deepEqual((await receive({ type: 'contacts', contacts })).content, { type: 'contacts', contacts })
	const bytes = Buffer.from('a picture')
	const media = { type: 'media', media: 'image', mimetype: 'image/png', caption: 'see' }
	const { content } = await receive({ ...media, data: bytes.toString('base64') })
	const file = { sha256: hash(bytes), size: bytes.length, mimetype: 'image/png' }
	assert.deepEqual(content, { type: 'media', media: 'image', caption: 'see', file })
	const own = (await server.ask('POST /owner/messages', { type: 'text', text: 'mine', to: JID })).id
	const { direction, chat, name } = await bridge.message(own)
	assert.deepEqual([direction, chat, name], ['out', JID, ''])
	await until('WhatsApp keeps nothing', async () => (await server.state()).queue.length === 0)
})

test('a file that never comes holds up nothing else', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { media: 'silent' })
	await server.write(DANA, { type: 'media', media: 'image', data: 'AAAA', mimetype: 'image/png' })
	await bridge.message(await server.write(DANA, TEXT))
})

test('a file that is gone is said to be', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { media: 404 })
	const id = await server.write(DANA, { type: 'media', media: 'image', data: 'AAAA', mimetype: 'image/png' })
	const { content } = await bridge.message(id)
	assert.equal(content.problem.split(':')[0], 'gone')
	assert.equal(content.file, undefined)
})

test('groups, status posts and channels are passed over', async (t) => {
	const { server, bridge } = await paired(t)
	const enc = { tag: 'enc', attrs: { v: '2', type: 'skmsg' }, content: { type: 'Buffer', data: 'c2VhbGVk' } }
	for (const from of ['120363000000000001@g.us', 'status@broadcast', '120363000000000002@newsletter']) {
		const attrs = { from, id: 'AC01', t: '1772366400', type: 'text', participant: JID }
		await server.ask('POST /stanza', { tag: 'message', attrs, content: [enc] })
	}
	const id = await server.write(DANA, TEXT)
	await bridge.message(id)
	assert.deepEqual((await bridge.inbox('message')).map((one) => one.id), [id])
	assert.equal((await bridge.state())?.queues.undecryptable, 0)
})

test('a message that comes twice is the same message', async (t) => {
	const { server, bridge } = await paired(t)
	const id = await server.write(DANA, TEXT)
	await bridge.message(id)
	await server.write(DANA, { ...TEXT, id })
	await bridge.message(await server.write(DANA, { type: 'text', text: 'another' }))
	const contents = (await bridge.inbox('message')).filter((one) => one.id === id).map((one) => one.content)
	assert.deepEqual(contents, [TEXT, TEXT])
})

test('a message is not lost when the connection ends before it is confirmed', async (t) => {
	const { server, bridge } = await paired(t)
	await bridge.message(await server.write(DANA, TEXT))
	const ids = []
	for (const from of ['phone', 'lid']) {
		ids.push(await server.write(DANA, { ...TEXT, from, hang_up: true }))
		await bridge.when('connecting')
		await bridge.when('open')
	}
	for (const id of ids) await bridge.message(id)
	await until('WhatsApp keeps nothing', async () => (await server.state()).queue.length === 0)
})

test('what nobody can decode stops nothing, and leaves nothing behind', async (t) => {
	const { server, bridge } = await paired(t)
	// A text of 100 bytes that ends after one.
	const plaintext = Buffer.from([0x0a, 100, 65, 1]).toString('base64')
	await server.write(DANA, { ...TEXT, plaintext })
	await bridge.when('open', ({ queues }) => queues.undecryptable)
	// The library says that it has come, and then fails over it.
	const keyless = await server.write(DANA, { type: 'raw', message: { reactionMessage: { text: '👍' } } })
	const waits = async () => (await server.state()).queue.some((/** @type {{id: string}} */ { id }) => id === keyless)
	await until('WhatsApp was told that it came', async () => !(await waits()))
	await server.ask('POST /end', { how: 'cut' })
	assert.deepEqual((await bridge.message(keyless)).content, { type: 'unsupported', name: 'reactionMessage' })
	await bridge.message(await server.write(DANA, TEXT))
	await until('nothing is left', async () => (await readdir(join(bridge.stateDir, 'received'))).length === 0)
})

test('a cut while a code waits to be typed brings a new code', async (t) => {
	const { server, bridge } = await started(t, { BAILEYS_PAIRING_PHONE: ACCOUNT })
	const { pairing } = await bridge.when('pairing', ({ pairing }) => pairing.code)
	await server.ask('POST /end', { how: 'cut' })
	const next = await bridge.when('pairing', (state) => state.pairing.code !== pairing.code)
	await server.ask('POST /code', { code: next.pairing.code })
	await bridge.when('open')
})

test('a restart while a code waits to be typed brings a new code', async (t) => {
	const { server, bridge } = await started(t, { BAILEYS_PAIRING_PHONE: ACCOUNT })
	const { pairing } = await bridge.when('pairing', ({ pairing }) => pairing.code)
	await bridge.end('SIGKILL')
	bridge.start()
	const next = await bridge.when('pairing', (state) => state.pairing.code !== pairing.code)
	await server.ask('POST /code', { code: next.pairing.code })
	await bridge.when('open')
})

test('a restricted session is restricted after a restart', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { ack_errors: [463] })
	await bridge.answer(await bridge.send(TEXT))
	const before = await bridge.when('restricted')
	await bridge.end('SIGTERM')
	bridge.start()
	await bridge.message(await server.write(DANA, TEXT))
	const after = await bridge.when('restricted')
	assert.equal(after.restricted_until, before.restricted_until)
})

test('a contact with a new phone is written to and read', async (t) => {
	const { server, bridge } = await paired(t)
	await bridge.answer(await bridge.send(TEXT))
	await bridge.message(await server.write(DANA, TEXT))
	await server.ask(`POST /contacts/${DANA}/reinstall`)
	await bridge.answer(await bridge.send(TEXT))
	await until('both are shown', async () => (await server.shown(DANA)).length === 2)
	await bridge.message(await server.write(DANA, TEXT))
})

test('a restart needs no new pairing and gets what came meanwhile', async (t) => {
	const { server, bridge } = await paired(t)
	assert.equal(await bridge.end('SIGTERM'), 0)
	const id = await server.write(DANA, { type: 'text', text: 'are you there?' })
	bridge.start()
	assert.equal((await bridge.message(id)).delivery, 'append')
	assert.equal((await bridge.answer(await bridge.send(TEXT))).outcome, 'accepted')
})

test('a second bridge on the folder refuses to start', async (t) => {
	const { server, bridge } = await paired(t)
	const second = new Bridge(join(bridge.queue, '..'), server.url, {})
	second.start()
	assert.equal(await until('it has ended', () => second.process?.exitCode), 75)
})

for (const [code, how] of /** @type {const} */ ([
	[401, 'logged_out'],
	[440, 'replaced'],
])) {
	test(`an end with ${code} waits for people, whatever the disk does meanwhile`, async (t) => {
		const { server, bridge } = await paired(t)
		await server.ask('POST /end', { how })
		const { reason } = await bridge.when('logged_out', (state) => state.close_code === code)
		const folder = join(bridge.queue, 'outbox', 'new')
		const away = join(bridge.queue, 'outbox', 'away')
		await rename(folder, away)
		await bridge.when('blocked')
		await rename(away, folder)
		await bridge.when('logged_out', (state) => state.close_code === code && state.reason === reason)
		await bridge.end('SIGTERM')
		bridge.start()
		await bridge.when(code === 401 ? 'pairing' : 'open')
	})
}

test('a cut is followed by a new connection', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('POST /end', { how: 'cut' })
	const state = await bridge.when('connecting', ({ close_code }) => close_code === 428)
	assert.ok(Date.parse(state.retry_at) >= Date.parse(state.since))
	await bridge.when('open')
})

test('refusals with 503 are met with growing pauses, until one login works', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { refuse: 503 })
	await server.ask('POST /end', { how: 'cut' })
	const waits = new Set()
	await bridge.when('connecting', ({ close_code, retry_at }) => close_code === 503 && waits.add(retry_at).size >= 2)
	await server.ask('PATCH /faults', { refuse: null })
	await bridge.when('open')
})


test('a refusal with 463 is final and restricts the session', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { ack_errors: [463] })
	const name = await bridge.send(TEXT, { ref: 'ref-463' })
	const { outcome, code } = await bridge.answer(name)
	assert.deepEqual([outcome, code], ['refused', '463'])
	assert.equal((await bridge.status(messageId('ref-463'), 'failed')).code, '463')
	assert.ok((await bridge.when('restricted')).restricted_until)
	await bridge.message(await server.write(DANA, { type: 'text', text: 'still read' }))
	assert.deepEqual(await server.shown(DANA), [])
})

test('a stale device list is refreshed once', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { ack_errors: [479] })
	assert.equal((await bridge.answer(await bridge.send(TEXT))).outcome, 'accepted')
	await server.ask('PATCH /faults', { ack_errors: [479, 479] })
	const { outcome, code } = await bridge.answer(await bridge.send(TEXT))
	assert.deepEqual([outcome, code], ['not_sent', '479'])
	assert.equal((await server.shown(DANA)).length, 1)
})

test('without a list of devices nothing is sent, not even an empty message', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { devices: 'empty' })
	const { outcome, code } = await bridge.answer(await bridge.send(TEXT, { ref: 'ref-1' }))
	assert.deepEqual([outcome, code], ['not_sent', 'no_devices'])
	assert.deepEqual((await server.state()).empty, [])
	await server.ask('PATCH /faults', { devices: null })
	assert.equal((await bridge.answer(await bridge.send(TEXT, { ref: 'ref-1', attempt: 2 }))).outcome, 'accepted')
})

test('a send without an acknowledgement is unknown, and shown once however often it goes out', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { swallow_acks: 1 })
	const name = await bridge.send(TEXT, { ref: 'ref-1' })
	await until('it is shown', async () => (await server.shown(DANA)).length === 1)
	await server.ask('POST /end', { how: 'cut' })
	const { outcome, code } = await bridge.answer(name)
	assert.deepEqual([outcome, code], ['unknown', 'no_ack'])
	await bridge.answer(await bridge.send(TEXT, { ref: 'ref-1', attempt: 2 }))
	const [shown, ...others] = await server.shown(DANA)
	assert.deepEqual([shown.deliveries, others], [2, []])
})

test('what a killed bridge had begun to send is unknown, and never waits to be sent again', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { swallow_acks: 1 })
	const name = await bridge.send(TEXT, { ref: 'ref-1' })
	await until('it is shown', async () => (await server.shown(DANA)).length === 1)
	await bridge.end('SIGKILL')
	bridge.start()
	const { outcome, code } = await bridge.answer(name)
	assert.deepEqual([outcome, code], ['unknown', 'interrupted'])
	assert.equal((await bridge.answer(await bridge.send(TEXT, { ref: 'ref-1', attempt: 2 }))).outcome, 'accepted')
	const [shown, ...others] = await server.shown(DANA)
	assert.deepEqual([shown.deliveries, others], [2, []])
})

test('a message that cannot be read on the phone goes out again', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { undecryptable: 1 })
	await bridge.answer(await bridge.send(TEXT))
	await until('it is shown', async () => (await server.shown(DANA)).length === 1)
})
