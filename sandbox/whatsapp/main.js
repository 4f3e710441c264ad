/**
 * A WhatsApp server for tests, with the account's phone and its contacts:
 *
 *     node sandbox/whatsapp/main.js --port 8571 --control-port 8572 --folder /tmp/whatsapp
 */

import './silence.js'

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'

import { controlServer } from './control.js'
import { Server, listening } from './server.js'
import { Store } from './store.js'

const { values } = parseArgs({
	options: {
		port: { type: 'string', default: '0' },
		'control-port': { type: 'string', default: '0' },
		// Another than this machine only where nobody else gets in, as among containers.
		'control-host': { type: 'string', default: '127.0.0.1' },
		folder: { type: 'string' },
		account: { type: 'string', default: '972500000001' },
		lid: { type: 'string', default: '100000000000001' },
		name: { type: 'string', default: 'Switchboard' },
	},
})
const folder = values.folder ?? mkdtempSync(join(tmpdir(), 'whatsapp-'))
const account = { phone: values.account.replace('+', ''), lid: values.lid, name: values.name }
const server = new Server(new Store(folder, account), folder)
const port = await server.listen(Number(values.port))
const control = await listening(controlServer(server), Number(values['control-port']), values['control-host'])
process.stdout.write(`whatsapp ws://127.0.0.1:${port}/ws/chat control http://127.0.0.1:${control}\n`)
if (!values.folder) process.on('exit', () => rmSync(folder, { recursive: true }))
for (const signal of /** @type {const} */ (['SIGINT', 'SIGTERM'])) process.on(signal, () => process.exit(0))
