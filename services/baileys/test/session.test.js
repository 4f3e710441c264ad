/** What the session says of itself, and until when. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { Restriction } from '../src/restriction.js'
import { Session } from '../src/session.js'
import { temporaryFolder } from './support/folder.js'
import { silent } from './support/session.js'

const HOUR_MS = 60 * 60 * 1000

/** @param {import('node:test').TestContext} t */
async function connected(t) {
	// Before the folder goes.
	t.after(() => restriction.put(new Date()))
	const folder = await temporaryFolder(t)
	const restriction = new Restriction(folder)
	await restriction.open()
	const state = { name: 'open', set: (/** @type {string} */ name) => (state.name = name) }
	const session = new Session(/** @type {any} */ ({ state, restriction, log: silent }))
	session.socket = /** @type {any} */ ({})
	const { timers } = t.mock
	timers.enable({ apis: ['setTimeout', 'Date'], now: Date.now() })
	return { folder, restriction, session, timers }
}

for (const order of ['before', 'after']) {
	test(`the end that WhatsApp names ${order} a 463 holds, and so after a restart`, async (t) => {
		const { folder, restriction, session, timers } = await connected(t)
		const tomorrow = new Date(Date.now() + 24 * HOUR_MS)
		for (const until of order === 'before' ? [tomorrow, undefined] : [undefined, tomorrow]) session.restrict(until)
		timers.tick(23 * HOUR_MS)
		assert(!session.isOpen)
		await restriction.put(restriction.until() ?? new Date(0))
		const restarted = new Restriction(folder)
		await restarted.open()
		assert.deepEqual(restarted.until(), tomorrow)
		timers.tick(HOUR_MS)
		assert(session.isOpen)
	})
}

test('a restriction without an end lasts an hour', async (t) => {
	const { session, timers } = await connected(t)
	session.restrict(undefined)
	timers.tick(HOUR_MS - 1)
	assert(!session.isOpen)
	timers.tick(1)
	assert(session.isOpen)
})

test('a restriction longer than a timer can run is not lifted before its end', async (t) => {
	const { session, timers } = await connected(t)
	session.restrict(new Date(Date.now() + 40 * 24 * HOUR_MS))
	timers.tick(39 * 24 * HOUR_MS)
	assert(!session.isOpen)
	timers.tick(24 * HOUR_MS)
	assert(session.isOpen)
})
