/** What was decrypted before a crash. */

import assert from 'node:assert/strict'
import { readdir } from 'node:fs/promises'
import { test } from 'node:test'

import { encodeWAMessage } from 'baileys'

import { Received } from '../src/received.js'
import { put, temporaryFolder } from './support/folder.js'
import { silent } from './support/session.js'

const ME = { id: '14155238886:1@s.whatsapp.net', lid: '998877665544332:1@lid' }

/** @param {Uint8Array} plaintext */
const kept = (plaintext) => ({
	attrs: { from: '972501234567@s.whatsapp.net', id: 'A1', t: '1772366400' },
	plaintext: Buffer.from(plaintext).toString('base64'),
})

test("what can't be decoded is put aside, up to a hundred, and holds up nothing", async (t) => {
	const folder = await temporaryFolder(t)
	const received = new Received(folder, silent)
	await received.open()
	const bad = [kept(Buffer.from([0x0a, 100, 65, 1])), kept(Buffer.from([200])), kept(Buffer.of()), {}, null, 'torn']
	const names = Array.from({ length: 102 }, (_, index) => `${String(index).padStart(16, '0')}-received-x.json`)
	for (const [index, name] of names.entries()) await put(folder, `received/${name}`, bad[index % bad.length])
	const good = '9-received-x.json'
	await put(folder, `received/${good}`, kept(encodeWAMessage({ conversation: 'Hello' })))
	const left = await received.left(ME)
	assert.deepEqual(left.map(({ message }) => message.message?.conversation), ['Hello'])
	assert.deepEqual(await readdir(`${folder}/received`), [good])
	assert.deepEqual((await readdir(`${folder}/received-bad`)).sort(), names.slice(2))
	await received.done('A1')
	assert.deepEqual(await received.left(ME), [])
})
