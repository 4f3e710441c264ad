/** Making WhatsApp's message of a send. */

import { readFile } from 'node:fs/promises'

import { generateWAMessage } from 'baileys'

import { phoneOf } from './translate.js'

/** @typedef {import('baileys').WASocket} Socket */
/** @typedef {import('./queue/documents.js').Document} Document */

/**
 * @param {Document} send
 * @param {Socket} socket
 * @param {string} own the session's own address
 * @param {import('./media.js').Media} media
 * @returns {Promise<import('baileys').proto.IMessage | 'bad_media' | 'not_on_whatsapp' | 'no_devices'>}
 */
export async function compose(send, socket, own, media) {
	const content = await contentOf(send, media)
	if (!content) return 'bad_media'
	// Without devices the library would send an empty message, and say that it was sent.
	if (!(await hasDevices(socket, send.to)))
		return (await isUnknownNumber(socket, send.to)) ? 'not_on_whatsapp' : 'no_devices'
	const { message } = await generateWAMessage(send.to, content, {
		userJid: own,
		messageId: send.id,
		upload: socket.waUploadToServer,
		...(send.reply_to && { quoted: quoted(send) }),
	})
	if (!message) throw new Error('the library made no message')
	return message
}

/** @param {Document} send @param {import('./media.js').Media} media @returns {Promise<import('baileys').AnyMessageContent | undefined>} */
async function contentOf(send, media) {
	if (send.content.type === 'text') return { text: send.content.text, linkPreview: null }
	const { file, caption, filename, media: kind } = send.content
	const path = await media.outgoing(file)
	if (!path) return undefined
	// Read whole: the library opens a path again and again, and it may be removed meanwhile.
	const content = await readFile(path)
	const common = { mimetype: file.mimetype, ...(caption && { caption }) }
	if (kind === 'image') return { image: content, ...common }
	if (kind === 'video') return { video: content, ...common }
	if (kind === 'audio') return { audio: content, mimetype: file.mimetype }
	return { document: content, ...common, fileName: filename ?? 'file' }
}

/** @param {Socket} socket @param {string} jid */
async function hasDevices(socket, jid) {
	const user = jid.split('@')[0]
	return (await socket.getUSyncDevices([jid], true, false)).some((device) => device.user === user)
}

/** @param {Socket} socket @param {string} jid */
async function isUnknownNumber(socket, jid) {
	const phone = phoneOf(jid)
	if (!phone) return false
	const found = await socket.onWhatsApp(phone)
	return found !== undefined && !found.some((one) => one.exists)
}

/** @param {Document} send */
const quoted = (send) => ({
	key: { remoteJid: send.to, id: send.reply_to.id, fromMe: send.reply_to.from_me },
	message: { conversation: send.reply_to.text },
})
