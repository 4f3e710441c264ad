/** Messages of every kind as what they are. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { proto } from 'baileys'

import { check } from '../src/queue/documents.js'
import { chatOf, phoneOf, timeOf, translate } from '../src/translate.js'

const ME = { id: '14155238886:1@s.whatsapp.net', lid: '998877665544332:1@lid' }
const CONTACT = '972501234567@s.whatsapp.net'
const { Type } = proto.Message.ProtocolMessage

/** @param {proto.IMessage} message */
const translated = (message, fromMe = false) =>
	translate(/** @type {any} */ ({ key: { remoteJid: CONTACT, id: 'A1', fromMe }, message }), ME)

/** @type {[string, proto.IMessage, object][]} */
const CASES = [
	['a text', { conversation: 'Hello' }, { type: 'text', text: 'Hello' }],
	['a text with a preview', { extendedTextMessage: { text: 'Hello' } }, { type: 'text', text: 'Hello' }],
	[
		'a disappearing text',
		{ ephemeralMessage: { message: { extendedTextMessage: { text: 'Hello' } } } },
		{ type: 'text', text: 'Hello' },
	],
	['a button', { buttonsResponseMessage: { selectedDisplayText: 'Yes' } }, { type: 'text', text: 'Yes' }],
	['a picture', { imageMessage: { caption: 'See' } }, { type: 'media', media: 'image', caption: 'See' }],
	[
		'a view-once picture',
		{ viewOnceMessageV2: { message: { imageMessage: {} } } },
		{ type: 'media', media: 'image', caption: '' },
	],
	[
		'a document with a caption',
		{ documentWithCaptionMessage: { message: { documentMessage: { fileName: 'a.pdf', caption: 'See' } } } },
		{ type: 'media', media: 'document', caption: 'See', filename: 'a.pdf' },
	],
	['a voice note', { audioMessage: { ptt: true } }, { type: 'media', media: 'audio', caption: '' }],
	['a sticker', { stickerMessage: {} }, { type: 'media', media: 'sticker', caption: '' }],
	[
		'a place',
		{ locationMessage: { degreesLatitude: 32.8, degreesLongitude: 35, name: 'Haifa', address: 'Port' } },
		{ type: 'location', latitude: 32.8, longitude: 35, name: 'Haifa', address: 'Port', live: false },
	],
	[
		'a contact',
		{ contactMessage: { displayName: 'Dana', vcard: 'BEGIN:VCARD' } },
		{ type: 'contacts', contacts: [{ name: 'Dana', vcard: 'BEGIN:VCARD' }] },
	],
	[
		'a reaction',
		{ reactionMessage: { key: { id: 'B1', fromMe: true }, text: '👍' } },
		{ type: 'reaction', emoji: '👍', of: { id: 'B1', from_me: true } },
	],
	[
		'a deletion',
		{ protocolMessage: { type: Type.REVOKE, key: { id: 'B1', fromMe: true } } },
		{ type: 'deletion', of: { id: 'B1', from_me: false } },
	],
	[
		'an edit',
		{ protocolMessage: { type: Type.MESSAGE_EDIT, key: { id: 'B1' }, editedMessage: { conversation: 'Hi' } } },
		{ type: 'edit', text: 'Hi', of: { id: 'B1', from_me: false } },
	],
	['a poll', { pollCreationMessage: { name: 'Which?' } }, { type: 'unsupported', name: 'pollCreationMessage' }],
]

for (const [name, message, content] of CASES) {
	test(name, () => {
		const found = translated(message)
		assert.deepEqual(found?.content, content)
		const media = found?.content.type === 'media'
		check(
			{
				v: 1,
				kind: 'message',
				id: 'A1',
				account: '+14155238886',
				direction: 'in',
				chat: CONTACT,
				name: '',
				at: timeOf(1772366400, 0),
				received_at: timeOf(undefined, 0),
				delivery: 'notify',
				content: { ...found?.content, ...(media && { problem: 'gone' }) },
			},
			'inbox/new',
		)
	})
}

test('what is not for people is nothing', () => {
	assert.equal(translated({ protocolMessage: { type: Type.HISTORY_SYNC_NOTIFICATION } }), undefined)
	assert.equal(translated({ senderKeyDistributionMessage: {} }), undefined)
	assert.equal(translated({}), undefined)
})

test('a reply knows whose message it quotes', () => {
	const reply = (/** @type {string} */ participant) =>
		translated({ extendedTextMessage: { text: 'Yes', contextInfo: { stanzaId: 'B1', participant } } })?.replyTo
	assert.deepEqual(reply(CONTACT), { id: 'B1', from_me: false })
	assert.deepEqual(reply('14155238886@s.whatsapp.net'), { id: 'B1', from_me: true })
	assert.deepEqual(reply('998877665544332@lid'), { id: 'B1', from_me: true })
})

test('texts are cut, not refused', () => {
	const content = translated({ conversation: 'é'.repeat(70_000) })?.content
	assert.equal(content?.text, `${'é'.repeat(65_535)}…`)
})

test('addresses', () => {
	assert.equal(chatOf('972501234567:3@s.whatsapp.net'), CONTACT)
	assert.equal(chatOf('123456789012345:3@lid'), '123456789012345@lid')
	for (const jid of ['1-2@g.us', 'status@broadcast', '1@newsletter', '', null, undefined]) assert.equal(chatOf(jid), undefined)
	assert.equal(phoneOf(CONTACT), '+972501234567')
	assert.equal(phoneOf('123456789012345@lid'), undefined)
})
