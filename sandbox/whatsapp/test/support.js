/** The server as a process of its own, and what asks it things. */

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const MAIN = fileURLToPath(new URL('../main.js', import.meta.url))

/**
 * Wait until something holds.
 *
 * @template T
 * @param {string} what for the failure's message
 * @param {() => T | Promise<T>} look
 * @param {number} [most] milliseconds
 * @param {number} [every] milliseconds
 * @returns {Promise<NonNullable<Awaited<T>>>}
 */
export async function until(what, look, most = 20_000, every = 20) {
	const end = Date.now() + most
	for (;;) {
		const found = await look()
		if (found) return found
		if (Date.now() > end) throw new Error(`waited in vain until ${what}`)
		await pause(every)
	}
}

export class WhatsApp {
	url = ''
	#control = ''
	#folder
	/** @type {import('node:child_process').ChildProcess | undefined} */
	#process

	/** @param {string} folder */
	constructor(folder) {
		this.#folder = folder
	}

	/** @param {import('node:test').TestContext} t ends the server with it */
	static async start(t) {
		const folder = await mkdtemp(join(tmpdir(), 'whatsapp-'))
		const server = new WhatsApp(folder)
		t.after(async () => {
			await server.kill()
			await rm(folder, { recursive: true })
		})
		await server.run()
		return server
	}

	/** Also after `kill`, with the same address and state. */
	async run() {
		const ports = this.url ? ['--port', new URL(this.url).port, '--control-port', new URL(this.#control).port] : []
		const child = spawn(process.execPath, [MAIN, ...ports, '--folder', this.#folder], { stdio: ['ignore', 'pipe', 'inherit'] })
		this.#process = child
		for await (const line of createInterface({ input: /** @type {import('node:stream').Readable} */ (child.stdout) })) {
			const [, url, , control] = line.split(' ')
			this.url = url ?? ''
			this.#control = control ?? ''
			return
		}
		throw new Error('the server has ended')
	}

	/** SIGKILL. */
	async kill() {
		if (!this.#process || this.#process.exitCode !== null || this.#process.signalCode) return
		const ended = once(this.#process, 'exit')
		this.#process.kill('SIGKILL')
		await ended
	}

	/** @param {string} path such as `POST /contacts` @param {object} [body] @returns {Promise<any>} */
	async ask(path, body) {
		const [method, target] = path.split(' ')
		const response = await fetch(`${this.#control}${target}`, { method, ...(body && { body: JSON.stringify(body) }) })
		const answer = /** @type {any} */ (await response.json())
		if (!response.ok) throw new Error(`${path}: ${answer.error}`)
		return answer
	}

	/** @returns {Promise<any>} */
	async state() {
		return await this.ask('GET /state')
	}

	/** @param {string} phone @param {object} [more] */
	async contact(phone, more = {}) {
		return await this.ask('POST /contacts', { phone, ...more })
	}

	/** @param {string} phone @param {object} writing @returns {Promise<string>} the message's id */
	async write(phone, writing) {
		return (await this.ask(`POST /contacts/${phone}/messages`, writing)).id
	}

	/** What a contact's phone shows, by id. @param {string} phone @returns {Promise<any[]>} */
	async shown(phone) {
		return (await this.ask(`GET /contacts/${phone}`)).received
	}
}
