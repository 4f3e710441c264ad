/** WhatsApp's messages as contents of the queue's documents. */

import { areJidsSameUser, getContentType, jidNormalizedUser, normalizeMessageContent, proto, toNumber } from 'baileys'

import { ROOM, bytes, cut } from './cut.js'

/** @typedef {import('baileys').WAMessage} WAMessage */
/** @typedef {import('./queue/documents.js').Document} Document */
/** @typedef {proto.Message.IImageMessage | proto.Message.IVideoMessage | proto.Message.IAudioMessage | proto.Message.IDocumentMessage | proto.Message.IStickerMessage} MediaMessage */

/** Of a card's JSON what is neither its name nor its vCard. */
const CARD_BYTES = Buffer.byteLength('{"name":,"vcard":},')

/** @param {unknown} seconds @param {number} otherwise milliseconds since 1970 */
export const timeOf = (seconds, otherwise) => {
	const number = seconds ? toNumber(/** @type {any} */ (seconds)) : 0
	const milliseconds = number > 0 ? number * 1000 : otherwise
	return new Date(Math.min(Math.max(milliseconds, 0), 253402300799000)).toISOString()
}

/** A chat with one contact, or undefined. @param {string | null | undefined} jid */
export function chatOf(jid) {
	const plain = jid ? jidNormalizedUser(jid) : ''
	return /^\d{5,20}@(s\.whatsapp\.net|lid)$/.test(plain) ? plain : undefined
}

/** E.164 of a phone's chat, or undefined. @param {string | null | undefined} jid */
export function phoneOf(jid) {
	const digits = /^([1-9]\d{6,14})@s\.whatsapp\.net$/.exec(jid ? jidNormalizedUser(jid) : '')?.[1]
	return digits && `+${digits}`
}

/**
 * @param {WAMessage} message
 * @param {{id: string, lid?: string | undefined}} me
 * @returns {{content: Document, replyTo?: {id: string, from_me: boolean}, media?: MediaMessage} | undefined}
 *   undefined for what is not for people; `media` is still to be fetched
 */
export function translate(message, me) {
	const inner = normalizeMessageContent(message.message)
	if (!inner) return undefined
	const fromMe = Boolean(message.key.fromMe)
	const found = contentOf(inner, fromMe)
	if (!found) return undefined
	const quoted = contextOf(inner)
	const replyTo =
		quoted?.stanzaId && isId(quoted.stanzaId)
			? { id: quoted.stanzaId, from_me: isMine(quoted.participant, me) }
			: undefined
	return { ...found, ...(replyTo && { replyTo }) }
}

/**
 * @param {proto.IMessage} inner
 * @param {boolean} fromMe
 * @returns {{content: Document, media?: MediaMessage} | undefined}
 */
function contentOf(inner, fromMe) {
	const text =
		inner.conversation ||
		inner.extendedTextMessage?.text ||
		inner.buttonsResponseMessage?.selectedDisplayText ||
		inner.templateButtonReplyMessage?.selectedDisplayText ||
		inner.listResponseMessage?.title ||
		inner.interactiveResponseMessage?.body?.text
	if (text) return { content: { type: 'text', text: cut(text, 65536) } }
	const media = mediaOf(inner)
	if (media) return media
	const location = inner.locationMessage ?? inner.liveLocationMessage
	if (location) {
		const { degreesLatitude: latitude, degreesLongitude: longitude } = location
		return {
			content: {
				type: 'location',
				latitude,
				longitude,
				name: cut(inner.locationMessage?.name, 255),
				address: cut(inner.locationMessage?.address ?? inner.liveLocationMessage?.caption, 1024),
				live: Boolean(inner.liveLocationMessage),
			},
		}
	}
	const contacts = inner.contactsArrayMessage?.contacts ?? (inner.contactMessage && [inner.contactMessage])
	if (contacts?.length) return { content: { type: 'contacts', contacts: cardsOf(contacts.slice(0, 257)) } }
	const reaction = inner.reactionMessage
	if (reaction?.key?.id)
		return {
			content: { type: 'reaction', emoji: cut(reaction.text, 64), of: target(reaction.key, Boolean(reaction.key.fromMe)) },
		}
	const protocol = inner.protocolMessage
	if (protocol) return changeOf(protocol, fromMe)
	const name = getContentType(inner)
	if (!name || name === 'senderKeyDistributionMessage' || name === 'messageContextInfo') return undefined
	return { content: { type: 'unsupported', name: String(name).slice(0, 64) } }
}

/** When all cards together have no room, each gets its share, and names go before pictures. @param {proto.Message.IContactMessage[]} contacts */
function cardsOf(contacts) {
	const cards = (/** @type {number} */ room) =>
		contacts.map(({ displayName, vcard }) => {
			const name = cut(displayName, 255, room)
			return { name, vcard: cut(vcard, 16384, room - bytes(name)) }
		})
	const whole = cards(ROOM)
	return Buffer.byteLength(JSON.stringify(whole)) <= ROOM ? whole : cards(Math.floor(ROOM / contacts.length) - CARD_BYTES)
}

/** An edit or a deletion: both are of the writer's own message. @param {proto.Message.IProtocolMessage} protocol @param {boolean} fromMe */
function changeOf(protocol, fromMe) {
	const { Type } = proto.Message.ProtocolMessage
	if (!protocol.key?.id) return undefined
	if (protocol.type === Type.REVOKE) return { content: { type: 'deletion', of: target(protocol.key, fromMe) } }
	if (protocol.type !== Type.MESSAGE_EDIT) return undefined
	const edited = normalizeMessageContent(protocol.editedMessage)
	const text =
		edited?.conversation ||
		edited?.extendedTextMessage?.text ||
		edited?.imageMessage?.caption ||
		edited?.videoMessage?.caption ||
		edited?.documentMessage?.caption
	return { content: { type: 'edit', text: cut(text, 65536), of: target(protocol.key, fromMe) } }
}

/** @param {proto.IMessage} inner @returns {{content: Document, media: MediaMessage} | undefined} */
function mediaOf(inner) {
	/** @type {[string, MediaMessage | null | undefined][]} */
	const kinds = [
		['image', inner.imageMessage],
		['video', inner.videoMessage ?? inner.ptvMessage],
		['audio', inner.audioMessage],
		['document', inner.documentMessage],
		['sticker', inner.stickerMessage],
	]
	const found = kinds.find(([, media]) => media)
	if (!found?.[1]) return undefined
	const [kind, media] = /** @type {[string, MediaMessage]} */ (found)
	const caption = 'caption' in media ? media.caption : undefined
	const filename = 'fileName' in media ? media.fileName : undefined
	return {
		content: {
			type: 'media',
			media: kind,
			caption: cut(caption, 65536),
			...(filename && { filename: cut(filename, 255) }),
		},
		media,
	}
}

/** @param {proto.IMessage} inner @returns {proto.IContextInfo | undefined} */
function contextOf(inner) {
	const type = getContentType(inner)
	const content = type && inner[type]
	return content && typeof content === 'object' && 'contextInfo' in content
		? (/** @type {{contextInfo?: proto.IContextInfo}} */ (content).contextInfo ?? undefined)
		: undefined
}

/** @param {proto.IMessageKey} key @param {boolean} fromMe */
const target = (key, fromMe) => ({ id: key.id, from_me: fromMe })

/** @param {string} id */
const isId = (id) => /^[!-~]{1,128}$/.test(id)

/** @param {string | null | undefined} jid @param {{id: string, lid?: string | undefined}} me */
const isMine = (jid, me) =>
	Boolean(jid) && (areJidsSameUser(jid ?? '', me.id) || areJidsSameUser(jid ?? '', me.lid ?? ''))
