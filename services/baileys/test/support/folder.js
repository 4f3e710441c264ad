/** Folders of a bridge for one test. */

import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { dirname, join, relative } from 'node:path'

/** @param {import('node:test').TestContext} t */
export async function temporaryFolder(t) {
	const folder = await mkdtemp(join(tmpdir(), 'bridge-'))
	t.after(() => rm(folder, { recursive: true, force: true }))
	return folder
}

/** @param {string} folder @param {string} path @param {unknown} content an object is written as JSON */
export async function put(folder, path, content) {
	const target = join(folder, path)
	await mkdir(dirname(target), { recursive: true })
	await writeFile(target, typeof content === 'string' ? content : JSON.stringify(content))
}

/** Every file below a folder, by its path. @param {string} folder @returns {Promise<string[]>} */
export async function files(folder) {
	const entries = await readdir(folder, { withFileTypes: true, recursive: true })
	return entries
		.filter((entry) => !entry.isDirectory())
		.map((entry) => relative(folder, join(entry.parentPath, entry.name)))
		.sort()
}

/** @param {string} folder @param {string} path */
export const readJson = async (folder, path) => JSON.parse(await readFile(join(folder, path), 'utf8'))
