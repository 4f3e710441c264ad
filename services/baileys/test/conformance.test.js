/** The cases that messaging's tests run too. */

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { test } from 'node:test'

import { BadDocumentError, parse } from '../src/queue/documents.js'
import { isIgnored, isValid, messageId } from '../src/queue/names.js'

const CASES = new URL('../../../tests/conformance/baileys-queue/', import.meta.url)
const load = async (/** @type {string} */ name) => JSON.parse(await readFile(new URL(name, CASES), 'utf8'))

/** @param {any} one */
function content(one) {
	if ('base64' in one) return Buffer.from(one.base64, 'base64')
	if ('text' in one) return Buffer.from(one.text.repeat(one.repeat ?? 1))
	return Buffer.from(JSON.stringify(one.document))
}

for (const one of (await load('documents.json')).cases) {
	test(`document: ${one.name}`, () => {
		let problem = null
		let field
		try {
			parse(content(one), one.folder)
		} catch (error) {
			assert(error instanceof BadDocumentError, `${error}`)
			problem = error.problem
			field = error.message.split(': ')[1]
		}
		assert.equal(problem, one.problem)
		if (one.field) assert.equal(field, one.field)
	})
}

const names = await load('names.json')

test('names', () => {
	for (const name of names.valid) assert(isValid(name), name)
	for (const name of names.foreign) assert(!isValid(name) && !isIgnored(name), name)
	for (const name of names.ignored) assert(isIgnored(name), name)
	assert.deepEqual([...names.in_order].sort((a, b) => (a < b ? -1 : 1)), names.in_order)
	for (const { ref, id } of names.ids) assert.equal(messageId(ref), id)
})
