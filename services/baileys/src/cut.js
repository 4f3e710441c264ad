/** What of a text fits into its field and into its document. */

import { MAX_BYTES } from './queue/documents.js'

/** So many bytes of a document are for its texts, escaped as JSON has them; the other fields need far less than the rest. */
export const ROOM = MAX_BYTES - 16_384
const MORE = '…'

/** @param {string} text */
export const bytes = (text) => Buffer.byteLength(JSON.stringify(text))

/**
 * A text, or as much of its beginning as fits, with `…` in place of the rest.
 *
 * @param {string | null | undefined} text
 * @param {number} most characters
 * @param {number} [room] bytes, quotation marks included
 */
export function cut(text, most, room = ROOM) {
	const whole = text ?? ''
	const characters = [...whole]
	if (characters.length <= most && bytes(whole) <= room) return whole
	let left = room - bytes(MORE)
	if (left < 0) return ''
	let end = 0
	for (const character of characters.slice(0, most - 1)) {
		left -= bytes(character) - bytes('')
		if (left < 0) break
		end += 1
	}
	return characters.slice(0, end).join('') + MORE
}
