/** Types of fields, as docs/baileys-queue.md names them. */

/** A field of a document is missing or wrong. The explanation never quotes the value. */
export class FieldError extends Error {
	/** @param {string} field @param {string} explanation */
	constructor(field, explanation) {
		super(`${field}: ${explanation}`)
		this.field = field
	}
}

/** @typedef {(value: unknown, field: string) => void} Check */

const TIME = /^(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)(?:\.\d{1,6})?Z$/

/** @param {boolean} holds @param {string} field @param {string} explanation */
function must(holds, field, explanation) {
	if (!holds) throw new FieldError(field, explanation)
}

/** @param {number} most characters @returns {Check} */
export const text = (most) => (value, field) => {
	must(typeof value === 'string', field, 'is no text')
	const characters = /** @type {string} */ (value)
	// Code points are at most as many as UTF-16 units.
	must(
		characters.length <= most || [...characters].length <= most,
		field,
		`has more than ${most} characters`,
	)
}

/** @param {number} most @returns {Check} */
export const word = (most) => (value, field) =>
	must(
		typeof value === 'string' && value.length <= most && /^[!-~]+$/.test(value) && !value.endsWith('\n'),
		field,
		`is not 1 to ${most} printable ASCII characters without spaces`,
	)

/** @param {RegExp} pattern @param {string} explanation @returns {Check} */
export const matching = (pattern, explanation) => (value, field) =>
	must(typeof value === 'string' && pattern.test(value) && !value.endsWith('\n'), field, explanation)

/** @type {Check} */
export const time = (value, field) => {
	const parts = typeof value === 'string' && !value.endsWith('\n') ? TIME.exec(value) : null
	must(parts !== null, field, 'is no time such as 2026-03-01T12:00:00Z')
	const [year, month, day, hour, minute, second] = /** @type {RegExpExecArray} */ (parts).slice(1).map(Number)
	const date = new Date(0)
	date.setUTCFullYear(year ?? 0, (month ?? 0) - 1, day)
	const real = (year ?? 0) >= 1 && date.getUTCMonth() === (month ?? 0) - 1 && date.getUTCDate() === day
	must(
		real && (hour ?? 99) < 24 && (minute ?? 99) < 60 && (second ?? 99) < 60,
		field,
		'is no time that exists',
	)
}

export const phone = matching(/^\+[1-9]\d{6,14}$/, 'is no number in E.164')
export const chat = matching(/^\d{5,20}@(s\.whatsapp\.net|lid)$/, 'is no chat with a contact')
export const sha256 = matching(/^[0-9a-f]{64}$/, 'is not 64 lower-case hexadecimal digits')
export const id = word(128)

/** @param {number} least @returns {Check} */
export const integer =
	(least = -Infinity) =>
	(value, field) =>
		must(
			typeof value === 'number' && Number.isInteger(value) && value >= least,
			field,
			least === -Infinity ? 'is no integer' : `is no integer from ${least}`,
		)

/** @param {number} least @param {number} most @returns {Check} */
export const number =
	(least = -Infinity, most = Infinity) =>
	(value, field) =>
		must(
			typeof value === 'number' && Number.isFinite(value) && value >= least && value <= most,
			field,
			'is no number within its bounds',
		)

/** @type {Check} */
export const boolean = (value, field) => must(typeof value === 'boolean', field, 'is not true or false')

/** @param {...string} words @returns {Check} */
export const oneOf =
	(...words) =>
	(value, field) =>
		must(typeof value === 'string' && words.includes(value), field, `is none of ${words.join(', ')}`)

/** @param {Check} check @returns {Check} */
export const optional = (check) => (value, field) => {
	if (value !== undefined && value !== null) check(value, field)
}

/** @param {Record<string, Check>} fields @returns {Check} */
export const object = (fields) => (value, field) => {
	must(typeof value === 'object' && value !== null && !Array.isArray(value), field, 'is no object')
	for (const [name, check] of Object.entries(fields)) {
		const path = field ? `${field}.${name}` : name
		const inner = Object.hasOwn(/** @type {object} */ (value), name)
			? /** @type {Record<string, unknown>} */ (value)[name]
			: undefined
		check(inner, path)
	}
}

/** @param {number} least @param {number} most @param {Check} check @returns {Check} */
export const listOf = (least, most, check) => (value, field) => {
	must(
		Array.isArray(value) && value.length >= least && value.length <= most,
		field,
		`is no list of ${least} to ${most}`,
	)
	for (const [index, item] of /** @type {unknown[]} */ (value).entries()) check(item, `${field}.${index}`)
}

/** An object whose `key` says which further fields it has. @param {string} key @param {Record<string, Record<string, Check>>} kinds @returns {Check} */
export const variant = (key, kinds) => (value, field) => {
	object({ [key]: oneOf(...Object.keys(kinds)) })(value, field)
	const kind = /** @type {Record<string, string>} */ (value)[key] ?? ''
	object(kinds[kind] ?? {})(value, field)
}

export const file = object({ sha256, size: integer(0), mimetype: text(255) })

/** @type {Check} */
export const notBlank = (value, field) => {
	text(65536)(value, field)
	must(/** @type {string} */ (value).trim() !== '', field, 'is blank')
}
