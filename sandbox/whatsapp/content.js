/** What messages say, as plain objects: the words of docs/baileys-queue.md. */

import { normalizeMessageContent, proto } from './library.js'

/** @typedef {import('./media.js').Kind} Kind */
/** @typedef {Record<string, unknown> & {type: string, text?: string | null}} Description */
/** @typedef {{id: string, from_me: boolean}} Of `from_me`: of the account */

/**
 * @typedef {object} Writing
 * @property {'text' | 'media' | 'location' | 'contacts' | 'reaction' | 'edit' | 'deletion' | 'raw'} type
 * @property {string} [id] to send one that went out before once more
 * @property {'phone' | 'lid'} [from]
 * @property {boolean} [hide_phone] of a message from a LID
 * @property {string} [to] the chat the account's owner writes to
 * @property {string} [at] the time it claims
 * @property {boolean} [hang_up] to close the connection right behind it
 * @property {string} [text]
 * @property {Kind} [media]
 * @property {string} [data] in base64
 * @property {string} [mimetype]
 * @property {string} [caption]
 * @property {string} [filename]
 * @property {number} [latitude]
 * @property {number} [longitude]
 * @property {string} [name]
 * @property {string} [address]
 * @property {boolean} [live]
 * @property {{name: string, vcard: string}[]} [contacts]
 * @property {string} [emoji]
 * @property {Of} [of]
 * @property {Of & {text?: string}} [reply_to]
 * @property {object} [message] of `raw`: the protobuf as an object
 * @property {string} [plaintext] in base64: what a client that isn't WhatsApp's encrypts instead
 */

/**
 * @param {Writing} writing
 * @param {{me: string, them: string}} chat the writer's address and the other one's
 * @param {import('./media.js').Media} media
 * @returns {proto.Message}
 */
export function compose(writing, { me, them }, media) {
	const { text = '', reply_to: reply, of } = writing
	// Whoever writes is not the account, so its messages are the other's.
	const key = of && { remoteJid: them, fromMe: !of.from_me, id: of.id }
	const quotedMessage = { conversation: reply?.text ?? '' }
	const contextInfo = reply && { stanzaId: reply.id, participant: reply.from_me ? them : me, quotedMessage }
	const { Type } = proto.Message.ProtocolMessage
	const message = (() => {
		switch (writing.type) {
			case 'text':
				return reply ? { extendedTextMessage: { text, contextInfo } } : { conversation: text }
			case 'media': {
				const { media: kind = 'document', caption, mimetype, filename: fileName } = writing
				const file = media.encrypt(Buffer.from(writing.data ?? '', 'base64'), kind)
				return { [`${kind}Message`]: { ...file, mimetype, caption, fileName, contextInfo } }
			}
			case 'location': {
				const { latitude: degreesLatitude, longitude: degreesLongitude, name, address } = writing
				const place = { degreesLatitude, degreesLongitude, contextInfo }
				return writing.live ? { liveLocationMessage: place } : { locationMessage: { ...place, name, address } }
			}
			case 'contacts': {
				const contacts = (writing.contacts ?? []).map(({ name, vcard }) => ({ displayName: name, vcard }))
				if (contacts.length === 1) return { contactMessage: { ...contacts[0], contextInfo } }
				return { contactsArrayMessage: { displayName: `${contacts.length}`, contacts } }
			}
			case 'reaction':
				return { reactionMessage: { key, text: writing.emoji ?? '', senderTimestampMs: Date.now() } }
			case 'edit': {
				const editedMessage = { conversation: text }
				return { protocolMessage: { key, type: Type.MESSAGE_EDIT, editedMessage, timestampMs: Date.now() } }
			}
			case 'deletion':
				return { protocolMessage: { key, type: Type.REVOKE } }
			case 'raw':
				return writing.message ?? {}
			default:
				throw new Error(`type: unknown: ${writing.type}`)
		}
	})()
	return proto.Message.fromObject(message)
}

/** @param {proto.IMessage} message */
export function stanzaType(message) {
	const inner = normalizeMessageContent(message) ?? {}
	if (inner.reactionMessage) return 'reaction'
	return mediaOf(inner) ? 'media' : 'text'
}

/**
 * What a phone shows. Files are downloaded, decrypted and checked.
 *
 * @param {proto.IMessage} message
 * @param {import('./media.js').Media} media
 * @returns {Description}
 */
export function describe(message, media) {
	const inner = normalizeMessageContent(message) ?? {}
	const found = mediaOf(inner)
	const { extendedTextMessage } = inner
	const context = found?.message.contextInfo ?? extendedTextMessage?.contextInfo
	const reply = context?.stanzaId ? { reply_to: { id: context.stanzaId, participant: context.participant } } : {}
	if (found) {
		const { caption, fileName, mimetype } = /** @type {proto.Message.IDocumentMessage} */ (found.message)
		const { size, sha256 } = media.decrypt(found.message, found.kind)
		return { type: 'media', media: found.kind, caption, filename: fileName, mimetype, size, sha256, ...reply }
	}
	const text = inner.conversation || extendedTextMessage?.text
	if (text) return { type: 'text', text, ...reply }
	return { type: 'other', message: proto.Message.toObject(proto.Message.fromObject(inner)) }
}

/** @param {proto.IMessage} inner @returns {{kind: Kind, message: import('./media.js').MediaMessage} | undefined} */
function mediaOf(inner) {
	for (const kind of /** @type {Kind[]} */ (['image', 'video', 'audio', 'document', 'sticker'])) {
		const message = inner[/** @type {'imageMessage'} */ (`${kind}Message`)]
		if (message) return { kind, message }
	}
	return undefined
}
