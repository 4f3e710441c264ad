/** What the environment says, checked as a whole. */

import { isIP } from 'node:net'

/** @typedef {ReturnType<typeof readSettings>} Settings */

/** Something is missing or malformed; the message names all of it. */
export class SettingsError extends Error {}

const WHATSAPP = 'wss://web.whatsapp.com/ws/chat'

/**
 * @param {Record<string, string | undefined>} environment
 * @throws {SettingsError}
 */
export function readSettings(environment) {
	/** @type {string[]} */
	const problems = []
	const given = (/** @type {string} */ name) => environment[name]?.trim() || undefined
	const required = (/** @type {string} */ name, /** @type {string} */ purpose) => {
		const value = given(name)
		if (!value) problems.push(`${name} is missing: ${purpose}`)
		return value ?? ''
	}
	const number = (/** @type {string} */ name, /** @type {number} */ normal, /** @type {number} */ least) => {
		const value = given(name) === undefined ? normal : Number(given(name))
		if (!(value >= least) || value === Infinity) problems.push(`${name} must be a number from ${least}`)
		return value
	}
	const development = given('APP_ENV') === 'development'
	const url = given('BAILEYS_WEB_SOCKET_URL') ?? WHATSAPP
	if (!isTrusted(url, development))
		problems.push(
			'BAILEYS_WEB_SOCKET_URL must begin with wss:// and name a host of whatsapp.com: the library' +
				" doesn't check who it talks to, so only TLS does (ws://127.0.0.1 with APP_ENV=development)",
		)
	if (given('NODE_TLS_REJECT_UNAUTHORIZED') === '0')
		problems.push('NODE_TLS_REJECT_UNAUTHORIZED=0 must go: without TLS nothing proves who WhatsApp is')
	const phone = given('BAILEYS_PAIRING_PHONE')?.replace(/^\+/, '')
	if (phone !== undefined && !/^[1-9]\d{6,14}$/.test(phone))
		problems.push("BAILEYS_PAIRING_PHONE must be the account's number in E.164, such as +972501234567")
	const level = given('LOG_LEVEL')?.toLowerCase() ?? 'info'
	if (!['debug', 'info', 'warning', 'error'].includes(level))
		problems.push('LOG_LEVEL must be debug, info, warning or error')
	const minSeconds = number('BAILEYS_MIN_SECONDS_BETWEEN_MESSAGES', 0.6, 0)
	const settings = {
		queueDir: required('BAILEYS_QUEUE_DIR', 'the folder shared with messaging, such as /queue'),
		stateDir: required(
			'BAILEYS_STATE_DIR',
			"the bridge's own folder for the session's keys, such as /state; messaging must not see it",
		),
		url,
		/** Whether WhatsApp itself is at the other end, and not a stand-in. */
		genuine: isTrusted(url, false),
		pairingPhone: phone,
		level,
		minSeconds,
		maxSeconds: number('BAILEYS_MAX_SECONDS_BETWEEN_MESSAGES', Math.max(1.8, minSeconds), minSeconds),
		mediaMaxBytes: number('BAILEYS_MEDIA_MAX_BYTES', 16 * 1024 * 1024, 1),
	}
	if (settings.queueDir && settings.queueDir === settings.stateDir)
		problems.push('BAILEYS_STATE_DIR must be another folder than BAILEYS_QUEUE_DIR')
	if (problems.length) throw new SettingsError(problems.join('\n'))
	return settings
}

/** @param {string} text @param {boolean} development */
function isTrusted(text, development) {
	let url
	try {
		url = new URL(text)
	} catch {
		return false
	}
	const host = url.hostname.toLowerCase()
	if (url.protocol === 'wss:' && (host === 'whatsapp.com' || host.endsWith('.whatsapp.com'))) return true
	const address = host.replace(/^\[|\]$/g, '')
	const loopback = host === 'localhost' || address === '::1' || (isIP(address) === 4 && address.startsWith('127.'))
	return development && loopback && (url.protocol === 'ws:' || url.protocol === 'wss:')
}
