/**
 * SIGKILL at every step, of the bridge and of WhatsApp's server in turn. `BRIDGE_KILL_ROUNDS` says
 * how often: 20 go once through every pair of a step and a victim.
 */

import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { readFileSync, readdirSync } from 'node:fs'
import { readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'

import { messageId } from '../src/queue/names.js'
import { DANA, paired, until } from './support/bridge.js'
import { readJson } from './support/folder.js'

const ROUNDS = Number(process.env.BRIDGE_KILL_ROUNDS ?? 10)

/** @typedef {import('./support/bridge.js').Bridge} Bridge */
/** @typedef {import('../../../sandbox/whatsapp/test/support.js').WhatsApp} WhatsApp */

/** @param {string[]} path */
function names(...path) {
	try {
		return readdirSync(join(...path))
	} catch {
		return []
	}
}

/** The queue's steps and those of the bridge's own folder, as they can be seen from outside. */
const STEPS = /** @type {Record<string, (bridge: Bridge, server: WhatsApp, id: string) => unknown>} */ ({
	'the send is written': () => true,
	'the send is taken': ({ queue }, _, id) => names(queue, 'outbox', 'cur').some((name) => name.includes(id)),
	'the sending is recorded': ({ stateDir }, _, id) => names(stateDir, 'sent').includes(`${id}.json`),
	'the message is on the phone': async (_, server, id) => (await server.shown(DANA)).some((one) => one.id === id),
	'the acknowledgement is recorded': ({ stateDir }, _, id) => {
		try {
			return readFileSync(join(stateDir, 'sent', `${id}.json`), 'utf8').includes('accepted')
		} catch {
			return false
		}
	},
	'the send is answered': ({ queue }, _, id) => names(queue, 'outbox', 'done').some((name) => name.includes(id)),
	'the delivery is in the inbox': async (bridge, _, id) =>
		(await bridge.inbox('status')).some((one) => one.id === id && one.status === 'delivered'),
	'a message is decrypted': ({ stateDir }) => names(stateDir, 'received').length,
	'a message is in the inbox': ({ queue }) => names(queue, 'inbox', 'new').some((name) => name.includes('message')),
	'a message waits at WhatsApp': async (_, server) => (await server.state()).queue.length,
})

test(`nothing is lost and nothing shown twice in ${ROUNDS} rounds of SIGKILL`, async (t) => {
	const { server, bridge } = await paired(t)
	/** What came through the inbox in all, as messaging would have it. @type {Map<string, any>} */
	const inbox = new Map()
	/** @type {string[]} */
	const sent = []
	/** @type {string[]} */
	const written = []
	const steps = Object.keys(STEPS)

	/** Take and remove what is in the inbox. */
	const take = async () => {
		const folder = join(bridge.queue, 'inbox', 'new')
		for (const name of await readdir(folder)) {
			const document = await readJson(folder, name)
			inbox.set(`${document.kind} ${document.id} ${document.status ?? ''}`, document)
			await rm(join(folder, name))
		}
	}
	/**
	 * Send until it is accepted, always under the same id.
	 *
	 * @param {string} ref
	 * @param {string} first the name of the first attempt
	 */
	const settle = async (ref, first) => {
		let name = first
		for (let attempt = 2; ; attempt++) {
			const { outcome, code } = await bridge.answer(name)
			if (outcome === 'accepted') return
			assert.ok(outcome !== 'refused' && attempt < 9, `${outcome} ${code}`)
			name = await bridge.send({ type: 'text', text: ref }, { ref, attempt })
		}
	}
	/** A contact's phone, too, tries until its server has the message. @param {string} id */
	const write = async (id) => {
		const writing = { type: 'text', text: id, id, from: id < '3A8' ? 'lid' : 'phone' }
		while (!(await server.write(DANA, writing).catch(() => undefined))) await pause(50)
	}

	for (let round = 0; round < ROUNDS; round++) {
		const step = steps[round % steps.length] ?? ''
		const victim = (round + Math.floor(round / steps.length)) % 2 ? 'server' : 'bridge'
		await t.test(`round ${round + 1}: the ${victim}, when ${step}`, async () => {
			const refs = [`${round}-a`, `${round}-b`]
			const ids = refs.map(() => `3A${randomBytes(9).toString('hex').toUpperCase()}`)
			const sends = await Promise.all(refs.map((ref) => bridge.send({ type: 'text', text: ref }, { ref })))
			const writing = Promise.all(ids.map(write))
			const reached = async () => {
				try {
					return await STEPS[step]?.(bridge, server, messageId(refs[0] ?? ''))
				} catch {
					return false
				}
			}
			await until(step, reached, 5_000, 1).catch(() => t.diagnostic(`too fast to be seen: ${step}`))
			if (victim === 'bridge') {
				await bridge.end('SIGKILL')
				bridge.start()
			} else {
				await server.kill()
				await server.run()
			}
			await writing
			await Promise.all(refs.map((ref, index) => settle(ref, sends[index] ?? '')))
			sent.push(...refs)
			written.push(...ids)
			const expected = [
				...refs.flatMap((ref) => ['sent', 'delivered'].map((status) => `status ${messageId(ref)} ${status}`)),
				...ids.map((id) => `message ${id} `),
			]
			const missing = () => expected.filter((key) => !inbox.has(key))
			const complete = async () => {
				await take()
				return missing().length === 0
			}
			await until('all is in the inbox', complete, 30_000).catch(() => assert.fail(`not in the inbox: ${missing()}`))
			await until('WhatsApp keeps nothing', async () => (await server.state()).queue.length === 0, 30_000)
		})
	}
	const shown = await server.shown(DANA)
	assert.deepEqual(
		shown.map(({ id, content }) => `${id} ${content.text}`).sort(),
		sent.map((ref) => `${messageId(ref)} ${ref}`).sort(),
	)
	for (const ref of sent) assert.equal(inbox.get(`status ${messageId(ref)} sent`).ref, ref)
	for (const id of written) assert.equal(inbox.get(`message ${id} `).content.text, id)
	const { empty, violations } = await server.state()
	assert.deepEqual({ empty, violations }, { empty: [], violations: [] })
})
