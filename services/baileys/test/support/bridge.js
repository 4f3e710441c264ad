/** The bridge as a process, on folders of its own, with the sandbox's WhatsApp. */

import { spawn } from 'node:child_process'
import { randomBytes } from 'node:crypto'
import { once } from 'node:events'
import { mkdir, readdir, rename, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import { WhatsApp, until } from '../../../../sandbox/whatsapp/test/support.js'
import { messageId } from '../../src/queue/names.js'
import { readJson, temporaryFolder } from './folder.js'

export { until }

const MAIN = fileURLToPath(new URL('../../src/main.js', import.meta.url))
const PRELOAD = new URL('../../../../sandbox/whatsapp/preload.js', import.meta.url).href

export const ACCOUNT = '+972500000001'
export const DANA = '972541112222'
export const DANA_LID = '200000000000002'

/** @typedef {import('../../src/queue/documents.js').Document} Document */

export class Bridge {
	queue
	stateDir
	/** @type {import('node:child_process').ChildProcess | undefined} */
	process
	#url
	#environment
	#lastName = 0

	/** @param {string} folder @param {string} url @param {Record<string, string>} environment */
	constructor(folder, url, environment) {
		this.queue = join(folder, 'queue')
		this.stateDir = join(folder, 'state')
		this.#url = url
		this.#environment = environment
	}

	start() {
		this.process = spawn(process.execPath, ['--import', PRELOAD, MAIN], {
			stdio: ['ignore', 'ignore', process.env.BRIDGE_LOG ? 'inherit' : 'ignore'],
			env: {
				PATH: process.env.PATH,
				APP_ENV: 'development',
				BAILEYS_QUEUE_DIR: this.queue,
				BAILEYS_STATE_DIR: this.stateDir,
				BAILEYS_WEB_SOCKET_URL: this.#url,
				BAILEYS_MIN_SECONDS_BETWEEN_MESSAGES: '0',
				BAILEYS_MAX_SECONDS_BETWEEN_MESSAGES: '0.05',
				...this.#environment,
			},
		})
	}

	/** @param {NodeJS.Signals} signal @returns {Promise<number | null>} the exit status */
	async end(signal) {
		if (!this.process || this.process.exitCode !== null || this.process.signalCode) return null
		const ended = once(this.process, 'exit')
		this.process.kill(signal)
		return (await ended)[0]
	}

	/** @returns {Promise<Document | undefined>} */
	async state() {
		return await readJson(this.queue, 'state.json').catch(() => undefined)
	}

	/**
	 * Wait for a state that fits.
	 *
	 * @param {string} name
	 * @param {(state: Document) => unknown} [fits]
	 * @returns {Promise<Document>}
	 */
	async when(name, fits = () => true) {
		return await until(`the state is ${name}`, async () => {
			const state = await this.state()
			return state?.state === name && fits(state) ? state : undefined
		})
	}

	/**
	 * Write a send as messaging does.
	 *
	 * @param {Document} content
	 * @param {Document} [more] fields that are to differ
	 * @returns {Promise<string>} the file's name
	 */
	async send(content, { ref = randomBytes(8).toString('hex'), attempt = 1, ...more } = {}) {
		const id = messageId(ref)
		this.#lastName = Math.max(Date.now() * 1000, this.#lastName + 1)
		const name = `${this.#lastName}-${id}-${attempt}.json`
		const now = Date.now()
		const document = {
			v: 1,
			kind: 'send',
			id,
			ref,
			attempt,
			account: ACCOUNT,
			to: `${DANA}@s.whatsapp.net`,
			created_at: new Date(now).toISOString(),
			expires_at: new Date(now + 300_000).toISOString(),
			content,
			...more,
		}
		const folder = join(this.queue, 'outbox')
		for (const name of ['tmp', 'new']) await mkdir(join(folder, name), { recursive: true })
		await writeFile(join(folder, 'tmp', name), JSON.stringify(document))
		await rename(join(folder, 'tmp', name), join(folder, 'new', name))
		return name
	}

	/** @param {string} name of the send @returns {Promise<Document>} */
	async answer(name) {
		const read = () => readJson(this.queue, `outbox/done/${name}`).catch(() => undefined)
		return await until('the send is answered', read, 100_000)
	}

	/** What lies in the inbox. @param {string} kind @returns {Promise<Document[]>} */
	async inbox(kind) {
		const folder = join(this.queue, 'inbox', 'new')
		const names = await readdir(folder).catch(() => [])
		const documents = await Promise.all(names.sort().map((name) => readJson(folder, name)))
		return documents.filter((document) => document.kind === kind)
	}

	/** @param {string} id @returns {Promise<Document>} */
	async message(id) {
		const found = async () => (await this.inbox('message')).find((one) => one.id === id)
		return await until('the message is in the inbox', found)
	}

	/** @param {string} id @param {string} status @returns {Promise<Document>} */
	async status(id, status) {
		const found = async () => (await this.inbox('status')).find((one) => one.id === id && one.status === status)
		return await until(`the message is ${status}`, found)
	}
}

/** @param {import('node:test').TestContext} t @param {Record<string, string>} [environment] */
export async function started(t, environment = {}) {
	const server = await WhatsApp.start(t)
	await server.contact(DANA, { lid: DANA_LID, name: 'Dana' })
	/** @type {Bridge | undefined} */
	let bridge
	// Before the folder goes.
	t.after(() => bridge?.end('SIGKILL'))
	bridge = new Bridge(await temporaryFolder(t), server.url, environment)
	bridge.start()
	return { server, bridge }
}

/** @param {import('node:test').TestContext} t */
export async function paired(t) {
	const { server, bridge } = await started(t)
	const { pairing } = await bridge.when('pairing')
	await server.ask('POST /scan', { qr: pairing.qr })
	await bridge.when('open')
	return { server, bridge }
}
