/** What becomes of sends. */

/** @typedef {import('./queue/documents.js').Document} Document */
/** @typedef {import('./record.js').Entry} Entry */
/**
 * @typedef {object} Result as docs/baileys-queue.md has it
 * @property {'accepted' | 'refused' | 'not_sent' | 'unknown'} outcome
 * @property {string} at
 * @property {string} [code]
 * @property {string} [message] the code in words
 */

const now = () => new Date().toISOString()

/** @param {string} code @param {string} message @returns {Result} */
export const refused = (code, message, at = now()) => ({ outcome: 'refused', code, message, at })

/** @param {string} code @param {string} message @returns {Result} */
export const notSent = (code, message) => ({ outcome: 'not_sent', code, message, at: now() })

/** @param {string} code @param {string} message @returns {Result} */
export const unknown = (code, message) => ({ outcome: 'unknown', code, message, at: now() })

/** Of what was begun and has no end. */
export const interrupted = () => unknown('interrupted', 'an earlier attempt was interrupted')

/** What an earlier attempt came to. @param {Entry | undefined} entry @returns {Result | undefined} */
export function settled(entry) {
	if (entry?.state === 'accepted') return { outcome: 'accepted', at: entry.at }
	if (entry?.state === 'refused') return refused(entry.code ?? 'unknown', entry.message ?? '', entry.at)
	return undefined
}

/**
 * Why a send whose time is over is not begun any more.
 *
 * @param {Document} send
 * @param {Entry | undefined} entry
 * @returns {Result | undefined}
 */
export function expired(send, entry) {
	if (Date.parse(send.expires_at) > Date.now()) return undefined
	return entry ? interrupted() : notSent('expired', 'its time was over')
}
