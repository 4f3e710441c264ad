/** Maildir rules: a file outside `tmp/` is complete, and a rename decides who has it. */

import { constants } from 'node:fs'
import { mkdir, open, readdir, rename, rm, stat } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { randomBytes } from 'node:crypto'

/** @param {string} folder */
export async function createFolder(folder) {
	await mkdir(folder, { recursive: true, mode: 0o700 })
}

/** Make a folder's entries durable. @param {string} folder */
export async function syncFolder(folder) {
	const handle = await open(folder, constants.O_RDONLY)
	try {
		await handle.sync()
	} finally {
		await handle.close()
	}
}

/**
 * Write a whole file, durable when this returns. One that is there is replaced.
 *
 * @param {string} path
 * @param {string | Uint8Array} content
 * @param {string} temporary folder on the same file system
 */
export async function writeDurably(path, content, temporary) {
	const unfinished = join(temporary, `${basename(path)}.${randomBytes(4).toString('hex')}`)
	try {
		const handle = await open(unfinished, 'wx', 0o600)
		try {
			await handle.writeFile(content)
			await handle.sync()
		} finally {
			await handle.close()
		}
		await rename(unfinished, path)
	} catch (error) {
		await rm(unfinished, { force: true }).catch(() => undefined)
		throw error
	}
	await syncFolder(dirname(path))
}

/**
 * Rename from one folder to another, durably; false when the file isn't there (any more).
 *
 * @param {string} from
 * @param {string} to
 */
export async function move(from, to) {
	try {
		await rename(from, to)
	} catch (error) {
		if (isMissing(error)) return false
		throw error
	}
	// A crash may undo a rename, but must not leave the file in both places or in neither.
	await syncFolder(dirname(to))
	await syncFolder(dirname(from))
	return true
}

/** Remove a file, if it is there. @param {string} path */
export async function remove(path) {
	await rm(path, { force: true })
}

/** The names of a folder that may be files of the queue, in their order. @param {string} folder */
export async function list(folder) {
	const entries = await readdir(folder, { withFileTypes: true })
	return entries
		.filter((entry) => !entry.name.startsWith('.') && !entry.isDirectory())
		.map((entry) => entry.name)
		.sort((one, other) => (one < other ? -1 : 1))
}

/**
 * A regular file's content; null when there is none, or it is longer than `most` bytes.
 * Never follows a symbolic link, and never waits for a pipe.
 *
 * @param {string} path
 * @param {number} most bytes
 * @returns {Promise<{content: Buffer} | {problem: 'missing' | 'not_a_file' | 'too_large'}>}
 */
export async function readBounded(path, most) {
	const flags = constants.O_RDONLY | constants.O_NOFOLLOW | constants.O_NONBLOCK
	let handle
	try {
		handle = await open(path, flags)
	} catch (error) {
		if (isMissing(error)) return { problem: 'missing' }
		// A symbolic link, or a socket.
		if (hasCode(error, 'ELOOP') || hasCode(error, 'ENXIO')) return { problem: 'not_a_file' }
		throw error
	}
	try {
		const found = await handle.stat()
		if (!found.isFile()) return { problem: 'not_a_file' }
		if (found.size > most) return { problem: 'too_large' }
		const content = await handle.readFile()
		return content.length > most ? { problem: 'too_large' } : { content }
	} finally {
		await handle.close()
	}
}

/** @param {string} path */
export async function exists(path) {
	return stat(path).then(
		() => true,
		(error) => {
			if (isMissing(error)) return false
			throw error
		},
	)
}

const WORDS = new Map([
	['ENOSPC', 'no space is left on the disk'],
	['EDQUOT', 'the disk quota is used up'],
	['EFBIG', 'files may not become so large here'],
	['EACCES', 'it may not be written to'],
	['EPERM', 'it may not be written to'],
	['EROFS', 'the disk is read-only'],
	['EIO', 'the disk fails'],
	['ENOENT', 'a folder is gone'],
])

/** Why a file could not be written, for people; an error's own words hold names with numbers in them. @param {unknown} error */
export function inWords(error) {
	if (!(error instanceof Error)) return 'an unknown error'
	const { code = error.name } = /** @type {NodeJS.ErrnoException} */ (error)
	return WORDS.get(code) ?? code
}

/** Whether a folder takes a file of some size; nothing of it is left. @param {string} folder @param {number} size bytes */
export async function tryRoom(folder, size) {
	const path = join(folder, `room-${randomBytes(4).toString('hex')}`)
	try {
		await writeDurably(path, Buffer.alloc(size, 1), folder)
	} finally {
		await remove(path)
	}
}

/** @param {unknown} error */
export const isMissing = (error) => hasCode(error, 'ENOENT')

/** @param {unknown} error @param {string} code */
export const hasCode = (error, code) =>
	error instanceof Error && /** @type {NodeJS.ErrnoException} */ (error).code === code
