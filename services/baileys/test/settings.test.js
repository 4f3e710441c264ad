/** What the bridge refuses to start with, and what follows when a connection ends. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { afterEnd, backoff } from '../src/ends.js'
import { SettingsError, readSettings } from '../src/settings.js'

const WHOLE = { BAILEYS_QUEUE_DIR: '/queue', BAILEYS_STATE_DIR: '/state' }

/** @param {Record<string, string>} more */
const problems = (more) => {
	try {
		readSettings({ ...WHOLE, ...more })
	} catch (error) {
		assert(error instanceof SettingsError)
		return error.message.split('\n')
	}
	return []
}

test('everything that is missing is named at once', () => {
	assert.throws(
		() => readSettings({ LOG_LEVEL: 'loud' }),
		(error) =>
			error instanceof SettingsError &&
			['BAILEYS_QUEUE_DIR', 'BAILEYS_STATE_DIR', 'LOG_LEVEL'].every((name) => error.message.includes(name)),
	)
})

test('only WhatsApp itself is connected to, and only with TLS', () => {
	for (const url of [
		'ws://web.whatsapp.com/ws/chat',
		'wss://example.com/ws/chat',
		'wss://web.whatsapp.com.example.com/ws',
		'wss://evilwhatsapp.com/ws',
		'ws://127.0.0.1:9/ws/chat',
		'https://web.whatsapp.com/',
		'nonsense',
	])
		assert.equal(problems({ BAILEYS_WEB_SOCKET_URL: url }).length, 1, url)
	assert.deepEqual(problems({ BAILEYS_WEB_SOCKET_URL: 'wss://web.whatsapp.com/ws/chat' }), [])
	const development = { APP_ENV: 'development' }
	for (const url of ['ws://127.0.0.1:9/ws', 'ws://localhost:9/ws', 'ws://[::1]:9/ws'])
		assert.deepEqual(problems({ ...development, BAILEYS_WEB_SOCKET_URL: url }), [])
	for (const url of ['ws://127.0.0.1.example.com/ws', 'ws://10.0.0.1/ws'])
		assert.equal(problems({ ...development, BAILEYS_WEB_SOCKET_URL: url }).length, 1, url)
	assert.equal(problems({ NODE_TLS_REJECT_UNAUTHORIZED: '0' }).length, 1)
})

test('numbers and folders are checked', () => {
	assert.equal(problems({ BAILEYS_MIN_SECONDS_BETWEEN_MESSAGES: '-1' }).length, 1)
	assert.equal(problems({ BAILEYS_MAX_SECONDS_BETWEEN_MESSAGES: '0.1' }).length, 1)
	assert.equal(problems({ BAILEYS_MEDIA_MAX_BYTES: 'much' }).length, 1)
	assert.equal(problems({ BAILEYS_STATE_DIR: '/queue' }).length, 1)
	assert.equal(problems({ BAILEYS_PAIRING_PHONE: '054-1234' }).length, 1)
	assert.equal(readSettings({ ...WHOLE, BAILEYS_PAIRING_PHONE: '+972501234567' }).pairingPhone, '972501234567')
})

test('some ends are for people, the others are tried again', () => {
	for (const code of [401, 403, 411, 440]) assert.equal(afterEnd(code).next, 'stop')
	for (const code of [408, 428, 500, 503, 515, 999, undefined]) assert.equal(afterEnd(code).next, 'again')
	assert.deepEqual([401, 403, 440].map((code) => Boolean(afterEnd(code).retire)), [true, false, false])
	assert(afterEnd(515).atOnce)
})

test('pauses between tries grow, are spread, and have an end', () => {
	const pauses = [1, 2, 3, 4, 5, 6, 7, 100].map((failures) => backoff(failures, () => 1))
	assert.deepEqual(pauses, [1000, 2000, 4000, 8000, 16000, 32000, 60000, 60000])
	assert.equal(backoff(3, () => 0), 2000)
})
