/** Names of the queue's files: they sort by time, and none is used twice. */

import { createHash, randomBytes } from 'node:crypto'

const NAME = /^\d{16}-[A-Za-z0-9_-]{1,80}\.json$/

/** Whether a file may be one of the queue's at all; dot files belong to nobody. @param {string} name */
export const isIgnored = (name) => name.startsWith('.')

/** @param {string} name */
export const isValid = (name) => NAME.test(name) && !name.endsWith('\n')

/**
 * WhatsApp's id of a message, which follows from messaging's own.
 *
 * @param {string} ref
 */
export const messageId = (ref) =>
	'3EB0' + createHash('sha256').update(ref).digest('hex').slice(0, 18).toUpperCase()

/** Gives names in the order of time, also when the clock stands still or goes back. */
export class Names {
	#last = 0n

	/** @param {() => number} now milliseconds since 1970 */
	constructor(now = Date.now) {
		this.now = now
	}

	/** @param {string} label what the name is to say beside the time */
	next(label) {
		const time = BigInt(Math.max(0, Math.floor(this.now()))) * 1000n
		this.#last = time > this.#last ? time : this.#last + 1n
		// A name that was used before a restart would replace a file in silence.
		const unique = `${label}-${randomBytes(6).toString('hex')}`
		return `${String(this.#last).padStart(16, '0')}-${unique}.json`
	}
}
