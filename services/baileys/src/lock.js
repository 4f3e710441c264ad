/**
 * One bridge a folder. The lock is a socket: the kernel knows whether somebody still listens, so
 * that of a process that is gone is taken over at once, also by another container.
 */

import { connect, createServer } from 'node:net'
import { lstat } from 'node:fs/promises'
import { join } from 'node:path'

import { hasCode, isMissing, remove } from './queue/files.js'

/** Another bridge has the folder. */
export class LockedError extends Error {}

const SETTLE_MS = 100

/**
 * @param {string} folder
 * @returns {Promise<{held(): Promise<boolean>, release(): Promise<void>}>}
 * @throws {LockedError}
 */
export async function lockFolder(folder) {
	const path = join(folder, 'bridge.lock')
	let server = await listen(path)
	if (server === undefined) {
		if (await answers(path)) throw new LockedError('another bridge is running on this folder')
		await remove(path)
		server = await listen(path)
		if (server === undefined) throw new LockedError('another bridge has just been started on this folder')
	}
	const listening = server
	const mine = (await lstat(path)).ino
	const held = async () => {
		try {
			return (await lstat(path)).ino === mine
		} catch (error) {
			if (isMissing(error)) return false
			throw error
		}
	}
	// Two that found the same dead lock at one moment may both have replaced it: the last one has it.
	await new Promise((done) => setTimeout(done, SETTLE_MS))
	if (!(await held())) {
		listening.close()
		throw new LockedError('another bridge has just been started on this folder')
	}
	return {
		held,
		release: async () => {
			// Closing removes the path, which may be somebody else's by now.
			if (await held()) await new Promise((done) => listening.close(done))
		},
	}
}

/** @param {string} path @returns {Promise<import('node:net').Server | undefined>} */
function listen(path) {
	return new Promise((resolve, reject) => {
		const server = createServer((socket) => socket.destroy())
		server.once('error', (error) => (hasCode(error, 'EADDRINUSE') ? resolve(undefined) : reject(error)))
		server.listen(path, () => {
			server.unref()
			resolve(server)
		})
	})
}

/** @param {string} path @returns {Promise<boolean>} */
function answers(path) {
	return new Promise((resolve) => {
		const socket = connect(path)
		socket.once('connect', () => {
			socket.destroy()
			resolve(true)
		})
		socket.once('error', () => resolve(false))
	})
}
