/** What follows when a connection ends, by the library's code (Baileys, `DisconnectReason`). */

/**
 * @typedef {object} End
 * @property {'again' | 'stop'} next
 * @property {string} reason in words, for people
 * @property {boolean} [atOnce] without a pause
 * @property {boolean} [retire] the session is over: its keys are put aside
 */

/** @param {number | undefined} code @returns {End} */
export function afterEnd(code) {
	switch (code) {
		case 401:
			return {
				next: 'stop',
				retire: true,
				reason: 'the session was ended, by its owner or by WhatsApp: restart the bridge and pair it again',
			}
		case 403:
			return { next: 'stop', reason: 'WhatsApp has banned this account' }
		case 411:
			return { next: 'stop', reason: "this account's phone does not take linked devices: update WhatsApp on it" }
		case 440:
			return {
				next: 'stop',
				reason: 'another client uses this session: stop that one, then restart the bridge',
			}
		case 515:
			return { next: 'again', atOnce: true, reason: 'WhatsApp asked for a new connection' }
		case 408:
			return { next: 'again', reason: 'WhatsApp did not answer in time' }
		case 428:
			return { next: 'again', reason: 'the connection was closed' }
		case 500:
			return { next: 'again', reason: 'WhatsApp refused the session for now' }
		case 503:
			return { next: 'again', reason: 'WhatsApp is not available' }
		default:
			return { next: 'again', reason: 'the connection ended' }
	}
}

const FIRST_MS = 1_000
const MOST_MS = 60_000

/**
 * Pause before the next try: exponential, with full jitter above one half, so that many bridges
 * don't come back at one moment.
 *
 * @param {number} failures in a row, from 1
 * @returns {number} milliseconds
 */
export function backoff(failures, random = Math.random) {
	const most = Math.min(FIRST_MS * 2 ** Math.min(failures - 1, 16), MOST_MS)
	return most / 2 + (random() * most) / 2
}
