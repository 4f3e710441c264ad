/** The queue's documents: what each folder takes, and why a file is not one of them. */

import {
	FieldError, boolean, chat, file, id, integer, listOf, matching, notBlank, number, object, oneOf,
	optional, phone, text, time, variant, word,
} from './fields.js'

export const MAX_BYTES = 262_144

/** @typedef {import('./fields.js').Check} Check */
/** @typedef {'outbox/new' | 'outbox/done' | 'inbox/new' | 'state.json'} Folder */
/** @typedef {Record<string, any>} Document A document that was checked. */

/** A file can't be read as a document; `problem` is the queue's word for why. */
export class BadDocumentError extends Error {
	/** @param {string} problem @param {string} explanation */
	constructor(problem, explanation) {
		super(`${problem}: ${explanation}`)
		this.problem = problem
	}
}

const of = object({ id, from_me: boolean })
const media = (/** @type {string[]} */ ...kinds) => oneOf('image', 'video', 'audio', 'document', ...kinds)

const SEND = object({
	id: matching(/^3EB0[0-9A-F]{18}$/, 'is not 3EB0 and 18 of 0-9A-F'),
	ref: word(128),
	attempt: integer(1),
	account: phone,
	to: chat,
	created_at: time,
	expires_at: time,
	content: variant('type', {
		text: { text: notBlank },
		media: { media: media(), file, caption: text(65536), filename: optional(text(255)) },
	}),
	reply_to: optional(object({ id, from_me: boolean, text: text(4096) })),
})

/** @type {Check} */
const withoutProblem = (value, field) => {
	const content = /** @type {Document} */ (value)
	if (content.type !== 'media') return
	const hasFile = content.file !== undefined && content.file !== null
	if (!hasFile) text(255)(content.problem, `${field}.problem`)
	else if (content.problem !== undefined && content.problem !== null)
		throw new FieldError(`${field}.problem`, 'stands beside a file')
}

/** @type {Check} */
const received = (value, field) => {
	variant('type', {
		text: { text: text(65536) },
		media: {
			media: media('sticker'),
			caption: text(65536),
			filename: optional(text(255)),
			file: optional(file),
			problem: optional(text(255)),
		},
		location: {
			latitude: number(-90, 90),
			longitude: number(-180, 180),
			name: text(255),
			address: text(1024),
			live: boolean,
		},
		contacts: { contacts: listOf(1, 257, object({ name: text(255), vcard: text(16384) })) },
		reaction: { emoji: text(64), of },
		edit: { text: text(65536), of },
		deletion: { of },
		unsupported: { name: word(64) },
	})(value, field)
	withoutProblem(value, field)
}

const MESSAGE = object({
	id,
	account: phone,
	direction: oneOf('in', 'out'),
	chat,
	chat_alt: optional(chat),
	name: text(255),
	at: time,
	received_at: time,
	delivery: oneOf('notify', 'append'),
	content: received,
	reply_to: optional(of),
})

const STATUS = object({
	id,
	account: phone,
	ref: optional(word(128)),
	status: oneOf('sent', 'delivered', 'read', 'played', 'failed'),
	at: time,
	code: optional(word(32)),
	message: optional(text(1000)),
})

const LID = object({
	account: phone,
	lid: matching(/^\d{5,20}@lid$/, 'is no LID'),
	phone: matching(/^\d{5,20}@s\.whatsapp\.net$/, 'is no phone chat'),
	at: time,
})

const ANSWER = object({
	id: optional(id),
	ref: optional(word(128)),
	attempt: optional(integer(1)),
	outcome: oneOf('accepted', 'refused', 'not_sent', 'unknown'),
	at: time,
	code: optional(word(32)),
	message: optional(text(1000)),
	retry_after_seconds: optional(integer(0)),
})

const STATE = object({
	state: oneOf('connecting', 'pairing', 'open', 'logged_out', 'restricted', 'blocked'),
	since: time,
	written_at: time,
	reason: text(500),
	close_code: optional(integer()),
	retry_at: optional(time),
	restricted_until: optional(time),
	account: optional(phone),
	lid: optional(chat),
	last_frame_at: optional(time),
	ack_latency_ms: optional(integer(0)),
	ack_pending_since: optional(time),
	pairing: optional(object({ qr: optional(text(1024)), code: optional(text(16)), expires_at: time })),
	pace: object({ min_seconds: number(0), max_seconds: number(0) }),
	queues: object({ outbox: integer(0), inbox: integer(0), undecryptable: integer(0) }),
	versions: object({
		bridge: word(32),
		baileys: word(32),
		node: word(32),
		whatsapp: optional(word(32)),
	}),
})

/** @type {Record<Folder, Record<string, Check>>} */
const KINDS = {
	'outbox/new': { send: SEND },
	'outbox/done': { answer: ANSWER },
	'inbox/new': { message: MESSAGE, status: STATUS, lid: LID },
	'state.json': {},
}

const tooLarge = () => new BadDocumentError('too_large', `more than ${MAX_BYTES} bytes`)

const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

/**
 * Read a file's content as a document of a folder.
 *
 * @param {Uint8Array} content
 * @param {Folder} folder
 * @returns {Document}
 * @throws {BadDocumentError}
 */
export function parse(content, folder) {
	if (content.length > MAX_BYTES) throw tooLarge()
	let json
	try {
		json = decoder.decode(content)
	} catch {
		throw new BadDocumentError('not_utf8', 'is not UTF-8')
	}
	let value
	try {
		value = JSON.parse(json)
	} catch {
		throw new BadDocumentError('not_json', 'is no JSON')
	}
	return check(value, folder)
}

/**
 * @param {any} value
 * @param {Folder} folder
 * @returns {Document}
 * @throws {BadDocumentError}
 */
export function check(value, folder) {
	if (typeof value !== 'object' || value === null || Array.isArray(value))
		throw new BadDocumentError('not_an_object', 'is JSON, but no object')
	if (value.v !== 1) throw new BadDocumentError('version', 'v is not 1')
	const kinds = KINDS[folder]
	const found = folder === 'state.json' ? STATE : Object.hasOwn(kinds, value.kind) && kinds[value.kind]
	if (!found) throw new BadDocumentError('kind', 'kind does not belong in this folder')
	try {
		found(value, '')
		if (found === STATUS && value.status === 'failed') word(32)(value.code, 'code')
		if (found === ANSWER && value.outcome !== 'accepted') word(32)(value.code, 'code')
	} catch (error) {
		if (error instanceof FieldError) throw new BadDocumentError('field', error.message)
		throw error
	}
	return value
}

/**
 * A document as it is written; checked first, so that a fault of ours shows here and not at the
 * other side.
 *
 * @param {Document} document
 * @param {Folder} folder
 * @throws {BadDocumentError}
 */
export function serialize(document, folder) {
	const text = JSON.stringify(check({ v: 1, ...document }, folder))
	if (Buffer.byteLength(text) > MAX_BYTES) throw tooLarge()
	return text
}
