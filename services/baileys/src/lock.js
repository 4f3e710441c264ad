/**
 * One bridge a folder. The lock is a socket: the kernel knows whether somebody still listens, so
 * that of a process that is gone is taken over at once, also by another container.
 */

import { randomBytes } from 'node:crypto'
import { link, open, readdir } from 'node:fs/promises'
import { connect, createServer } from 'node:net'
import { join } from 'node:path'

import { exists, hasCode, remove } from './queue/files.js'

/** Another bridge has the folder. */
export class LockedError extends Error {}

const OWN = '.bridge-'
/** Of a socket's path on the systems where that is shortest. */
const MOST_BYTES = 100
const SETTLE_MS = 100
const ANSWER_MS = 5_000

/**
 * @param {string} folder
 * @returns {Promise<{held(): Promise<boolean>, release(): Promise<void>}>}
 * @throws {LockedError}
 */
export async function lockFolder(folder) {
	// A socket's whole path has some hundred bytes at most, and Node cuts it without a word: by its
	// descriptor a folder is short, however deep it lies.
	const handle = await open(folder)
	const short = `/proc/self/fd/${handle.fd}`
	const base = (await exists(short)) ? short : folder
	try {
		const lock = await lockIn(base)
		return {
			held: lock.held,
			release: async () => {
				await lock.release()
				await handle.close()
			},
		}
	} catch (error) {
		await handle.close()
		throw error
	}
}

/** @param {string} folder */
async function lockIn(folder) {
	const path = join(folder, 'bridge.lock')
	// Who listens says who it is: a file's number may be another file's a moment later.
	const name = randomBytes(8).toString('hex')
	if (Buffer.byteLength(join(folder, `${OWN}${name}`)) > MOST_BYTES)
		throw new Error(`the path of the queue's folder is too long for a lock: ${folder}`)
	// A socket of one's own, as Node removes the path that it listened on: a loser's would be the
	// winner's by then.
	const own = join(folder, `${OWN}${name}`)
	await removeLeft(folder)
	const server = await listen(own, name)
	try {
		await claim(own, path)
		// Two that found the same dead lock at one moment may both have replaced it: the last one has it.
		await new Promise((done) => setTimeout(done, SETTLE_MS))
		if ((await holder(path)) !== name) throw new LockedError('another bridge has just been started on this folder')
	} catch (error) {
		await new Promise((done) => server.close(done))
		throw error
	}
	const held = async () => (await holder(path)) === name
	return {
		held,
		release: async () => {
			if (await held()) await remove(path)
			await new Promise((done) => server.close(done))
		},
	}
}

/** @param {string} own @param {string} path */
async function claim(own, path) {
	for (let tries = 0; tries < 3; tries++) {
		try {
			return await link(own, path)
		} catch (error) {
			if (!hasCode(error, 'EEXIST')) throw error
		}
		if ((await holder(path)) !== undefined) throw new LockedError('another bridge is running on this folder')
		await remove(path)
	}
	throw new LockedError('other bridges are being started on this folder')
}

/** Sockets of bridges that were killed. @param {string} folder */
async function removeLeft(folder) {
	for (const name of await readdir(folder)) {
		const path = join(folder, name)
		if (name.startsWith(OWN) && (await holder(path)) === undefined) await remove(path)
	}
}

/** @param {string} path @param {string} name @returns {Promise<import('node:net').Server>} */
function listen(path, name) {
	return new Promise((resolve, reject) => {
		const server = createServer((socket) => {
			socket.on('error', () => undefined)
			socket.end(name)
		})
		server.once('error', reject)
		server.listen(path, () => {
			server.unref()
			resolve(server)
		})
	})
}

/** What who listens says; undefined when nobody does, "" when it says nothing in time. @param {string} path @returns {Promise<string | undefined>} */
function holder(path) {
	return new Promise((resolve) => {
		let said = ''
		let connected = false
		const socket = connect(path, () => (connected = true))
		socket.setTimeout(ANSWER_MS, () => socket.destroy())
		socket.on('data', (data) => (said += data))
		socket.on('error', () => undefined)
		socket.on('close', () => resolve(connected ? said : undefined))
	})
}
