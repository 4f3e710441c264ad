/**
 * For containers: ends with 0 while the bridge keeps its state.json up to date, whatever the
 * session's state is. That is messaging's to judge: a restart pairs no phone.
 */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { exit } from 'node:process'

/** Three times what the bridge takes between two writes. */
const STALE_MS = 15_000

const path = join(process.env.BAILEYS_QUEUE_DIR ?? '', 'state.json')
try {
	const age = Date.now() - Date.parse(JSON.parse(readFileSync(path, 'utf8')).written_at)
	if (!(age < STALE_MS)) throw new Error(`${path} was last written ${Math.round(age / 1000)} s ago`)
} catch (error) {
	process.stderr.write(`${error}\n`)
	exit(1)
}
