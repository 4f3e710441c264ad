/** One bridge a folder, and keys that survive. */

import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdir, readFile, readdir, truncate, writeFile } from 'node:fs/promises'
import { test } from 'node:test'

import { AuthStore, CorruptCredentialsError } from '../src/auth-state.js'
import { LockedError, lockFolder } from '../src/lock.js'
import { Record } from '../src/record.js'
import { temporaryFolder } from './support/folder.js'
import { silent } from './support/session.js'

test('a second bridge on one folder is refused, and a later one is not', async (t) => {
	const folder = await temporaryFolder(t)
	const lock = await lockFolder(folder)
	await assert.rejects(lockFolder(folder), LockedError)
	assert(await lock.held())
	await lock.release()
	const next = await lockFolder(folder)
	assert(await next.held())
	await next.release()
})

test('a folder may lie deep', async (t) => {
	const folder = `${await temporaryFolder(t)}/${'deep/'.repeat(40)}`
	await mkdir(folder, { recursive: true })
	const lock = await lockFolder(folder)
	await assert.rejects(lockFolder(folder), LockedError)
	assert(await lock.held())
	assert((await readdir(folder)).includes('bridge.lock'))
	await lock.release()
	assert.deepEqual(await readdir(folder), [])
})

test('the lock of a killed bridge is taken over at once', async (t) => {
	const folder = await temporaryFolder(t)
	const url = new URL('../src/lock.js', import.meta.url)
	const code = `import { lockFolder } from ${JSON.stringify(url.href)}
		await lockFolder(${JSON.stringify(folder)}); console.log('held'); setInterval(() => undefined, 1000)`
	const holder = spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'pipe', 'inherit'] })
	await once(holder.stdout, 'data')
	await assert.rejects(lockFolder(folder), LockedError)
	holder.kill('SIGKILL')
	await once(holder, 'exit')
	const lock = await lockFolder(folder)
	assert(await lock.held())
	await lock.release()
})

test('of many that start on a dead lock at one moment, one has it', async (t) => {
	const folder = await temporaryFolder(t)
	await writeFile(`${folder}/bridge.lock`, '')
	const results = await Promise.allSettled(Array.from({ length: 8 }, () => lockFolder(folder)))
	const holders = results.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
	const held = await Promise.all(holders.map((lock) => lock.held()))
	assert.equal(held.filter(Boolean).length, 1)
	for (const lock of holders) await lock.release()
})

test('keys and credentials come back as they were', async (t) => {
	const folder = await temporaryFolder(t)
	const store = new AuthStore(folder, silent)
	const { creds, keys } = await store.open()
	await store.saveCredentials(creds)
	const pair = { public: Buffer.from('public'), private: Buffer.from('private') }
	await keys.set({ 'pre-key': { 1: pair, 2: pair } })
	await keys.set({ 'pre-key': { 2: null } })
	const again = await new AuthStore(folder, silent).open()
	assert.deepEqual(again.creds.noiseKey, creds.noiseKey)
	assert.deepEqual(await again.keys.get('pre-key', ['1', '2', '3']), { 1: pair })
})

test('torn credentials are kept and reported, never replaced by new ones', async (t) => {
	const folder = await temporaryFolder(t)
	const store = new AuthStore(folder, silent)
	const { creds } = await store.open()
	await store.saveCredentials(creds)
	const path = `${folder}/auth/creds.json`
	const whole = await readFile(path)
	await truncate(path, 100)
	await assert.rejects(new AuthStore(folder, silent).open(), CorruptCredentialsError)
	// Also the next start, which finds no credentials any more.
	await assert.rejects(new AuthStore(folder, silent).open(), CorruptCredentialsError)
	assert.deepEqual(await readFile(`${path}.corrupt`), whole.subarray(0, 100))
})

test('a session that ended is put aside, and the next one is new', async (t) => {
	const folder = await temporaryFolder(t)
	const store = new AuthStore(folder, silent)
	const { creds } = await store.open()
	await store.saveCredentials(creds)
	await store.retire('ended-1')
	assert.notDeepEqual((await store.open()).creds.noiseKey, creds.noiseKey)
	assert((await readdir(folder)).includes('auth-ended-1'))
})

test('a phone is given a message again for a quarter of an hour', async (t) => {
	const record = new Record(await temporaryFolder(t))
	await record.open()
	const id = '3EB03EB1BD439947EB7629'
	const content = Buffer.from('message').toString('base64')
	await record.put(id, { state: 'accepted', ref: 'm', to: '1@lid', at: new Date().toISOString(), content })
	assert.equal((await record.content(id, Date.now()))?.toString(), 'message')
	assert.equal(await record.content(id, Date.now() + 16 * 60 * 1000), undefined)
	for (const foreign of ['../../../etc/passwd', `../sent/${id}`, 'A'.repeat(300), 'A\0']) {
		assert.equal(await record.get(foreign), undefined)
		assert.equal(await record.content(foreign, Date.now()), undefined)
	}
	await record.prune(Date.now() + 7 * 24 * 60 * 60 * 1000)
	assert.notEqual(await record.get(id), undefined)
	await record.prune(Date.now() + 9 * 24 * 60 * 60 * 1000)
	assert.equal(await record.get(id), undefined)
})
