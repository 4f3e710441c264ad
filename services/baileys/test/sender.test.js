/** Sending each id at most once, whatever the bridge was killed in. */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'

import { Inbox } from '../src/inbox.js'
import { Media } from '../src/media.js'
import { Outbox } from '../src/outbox.js'
import { Record } from '../src/record.js'
import { Sender } from '../src/sender.js'
import { files, put, readJson, temporaryFolder } from './support/folder.js'
import { FakeSession, silent } from './support/session.js'

const CRASHES = JSON.parse(
	await readFile(new URL('../../../tests/conformance/baileys-queue/crashes.json', import.meta.url), 'utf8'),
)
const NAME = '1772366400123456-3EB03EB1BD439947EB7629-1.json'
const ID = '3EB03EB1BD439947EB7629'

/** @param {string} kind of `files` in crashes.json */
function document(kind, now = Date.now()) {
	const text = JSON.stringify(CRASHES.files[kind])
		.replaceAll('@now', new Date(now).toISOString())
		.replaceAll('@soon', new Date(now + 45_000).toISOString())
		.replaceAll('@past', new Date(now - 60_000).toISOString())
	return JSON.parse(text)
}

/** @param {import('node:test').TestContext} t */
async function prepare(t) {
	const folder = await temporaryFolder(t)
	const queueDir = `${folder}/queue`
	const session = new FakeSession()
	const record = new Record(`${folder}/state`)
	const inbox = new Inbox(queueDir)
	const outbox = new Outbox(queueDir)
	const media = new Media(queueDir, 1000)
	const sender = new Sender({
		outbox,
		record,
		inbox,
		media,
		session: /** @type {any} */ (session),
		settings: /** @type {any} */ ({ minSeconds: 0, maxSeconds: 0 }),
		log: silent,
	})
	session.onAck = (node) => sender.ack(node)
	for (const part of [inbox, outbox, media, record]) await part.open()
	/** Recover, then run until the outbox is empty. */
	const settle = async () => {
		await sender.recover()
		const running = sender.run()
		while (session.isOpen && (await outbox.waiting()) > 0 && !session.blocked) await new Promise((done) => setTimeout(done, 10))
		sender.stop()
		await running
		assert.equal(session.blocked, undefined)
	}
	const statuses = async () => {
		const found = (await files(queueDir)).filter((path) => path.startsWith('inbox/new/'))
		return Promise.all(found.map((path) => readJson(queueDir, path)))
	}
	return { queueDir, session, record, sender, settle, statuses }
}

for (const one of CRASHES.cases.filter((/** @type {any} */ one) => one.side === 'bridge')) {
	test(`crash: ${one.name}`, async (t) => {
		const { queueDir, session, record, settle } = await prepare(t)
		for (const [path, kind] of Object.entries(one.before)) await put(queueDir, path, document(kind))
		if (one.record)
			await record.put(ID, {
				state: one.record,
				ref: document('send').ref,
				to: document('send').to,
				at: new Date().toISOString(),
				...(one.record === 'refused' && { code: '463' }),
			})
		await settle()
		const found = (await files(queueDir)).filter((path) => !path.startsWith('inbox/'))
		assert.deepEqual(found, [...one.after].sort())
		assert.equal(session.sent.length, one.sends ? 1 : 0)
		const answers = found.filter((path) => path.startsWith('outbox/done/'))
		assert.equal(answers.length, one.answer ? 1 : 0)
		if (one.answer) {
			const answer = await readJson(queueDir, answers[0] ?? '')
			for (const [field, value] of Object.entries(one.answer)) assert.equal(answer[field], value)
		}
	})
}

/** @param {import('node:test').TestContext} t @param {(session: FakeSession) => void} adjust @param {object} change */
async function outcome(t, adjust, change = {}) {
	const prepared = await prepare(t)
	adjust(prepared.session)
	await put(prepared.queueDir, `outbox/new/${NAME}`, { ...document('send'), ...change })
	await prepared.settle()
	return { ...prepared, answer: await readJson(prepared.queueDir, `outbox/done/${NAME}`) }
}

test('463 is refused for good, and restricts the session', async (t) => {
	const { answer, session, record, statuses } = await outcome(t, (session) => (session.errors = ['463']))
	assert.deepEqual([answer.outcome, answer.code], ['refused', '463'])
	assert(session.restricted)
	assert.equal((await record.get(ID))?.state, 'refused')
	const [status] = await statuses()
	assert.deepEqual([status.status, status.code, status.ref], ['failed', '463', document('send').ref])
})

test('at 479 the list of devices is refreshed, and it is sent once more under the same id', async (t) => {
	const { answer, session } = await outcome(t, (session) => (session.errors = ['479']))
	assert.equal(answer.outcome, 'accepted')
	assert.deepEqual(session.sent, [ID, ID])
})

test('479 twice is certain not to have been sent', async (t) => {
	const { answer, record } = await outcome(t, (session) => (session.errors = ['479', '479']))
	assert.deepEqual([answer.outcome, answer.code], ['not_sent', '479'])
	assert.equal(await record.get(ID), undefined)
})

test('without devices nothing is sent', async (t) => {
	const { answer, session } = await outcome(t, (session) => (session.devices = []))
	assert.deepEqual([answer.outcome, answer.code], ['not_sent', 'no_devices'])
	assert.deepEqual(session.sent, [])
})

test('a number without WhatsApp is refused', async (t) => {
	const { answer } = await outcome(t, (session) => {
		session.devices = []
		session.onWhatsApp = false
	})
	assert.deepEqual([answer.outcome, answer.code], ['refused', 'not_on_whatsapp'])
})

test('a connection that ends before the acknowledgement leaves it unknown, and a late one settles it', async (t) => {
	const prepared = await prepare(t)
	const { queueDir, session, sender, statuses, record } = prepared
	session.errors = ['silence']
	await put(queueDir, `outbox/new/${NAME}`, document('send'))
	const settled = prepared.settle()
	while (!session.sent.length) await new Promise((done) => setTimeout(done, 10))
	session.emit('closed')
	await settled
	const answer = await readJson(queueDir, `outbox/done/${NAME}`)
	assert.deepEqual([answer.outcome, answer.code], ['unknown', 'no_ack'])
	assert.deepEqual(await statuses(), [])
	sender.ack({ tag: 'ack', attrs: { id: ID, from: document('send').to, t: '1772366400' } })
	while (!(await statuses()).length) await new Promise((done) => setTimeout(done, 10))
	assert.equal((await statuses())[0].status, 'sent')
	assert.equal((await record.get(ID))?.state, 'accepted')
})

test('a file that is missing or another one is refused', async (t) => {
	const file = { sha256: 'a'.repeat(64), size: 3, mimetype: 'image/png' }
	const content = { type: 'media', media: 'image', file, caption: '' }
	const { answer, session } = await outcome(t, () => undefined, { content })
	assert.deepEqual([answer.outcome, answer.code], ['refused', 'bad_media'])
	assert.deepEqual(session.sent, [])
})

test('a send from the future is refused and put aside', async (t) => {
	const created_at = new Date(Date.now() + 3_600_000).toISOString()
	const { answer, queueDir } = await outcome(t, () => undefined, { created_at })
	assert.deepEqual([answer.outcome, answer.code], ['refused', 'bad_document'])
	assert((await files(queueDir)).includes(`outbox/bad/${NAME}`))
})
