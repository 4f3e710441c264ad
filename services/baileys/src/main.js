/** `node src/main.js`: one WhatsApp Web session behind a file queue. */

// First, so that the console is silent when the library loads.
import './silence.js'

import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { setTimeout as pause } from 'node:timers/promises'

import { AuthStore } from './auth-state.js'
import { Inbox } from './inbox.js'
import { LockedError, lockFolder } from './lock.js'
import { makeLog } from './log.js'
import { Media } from './media.js'
import { Outbox } from './outbox.js'
import { createFolder, inWords, tryRoom } from './queue/files.js'
import { Received } from './received.js'
import { Receiver } from './receiver.js'
import { Record } from './record.js'
import { Restriction } from './restriction.js'
import { Sender } from './sender.js'
import { Session, ownLid } from './session.js'
import { SettingsError, readSettings } from './settings.js'
import { State } from './state.js'

/** EX_CONFIG and EX_TEMPFAIL of sysexits(3). */
const EXIT_CONFIGURATION = 78
const EXIT_LOCKED = 75

const CHECK_MS = 5_000
/** So much must fit on the disk again before WhatsApp may send. */
const ROOM_BYTES = 256 * 1024
const HOUR_MS = 60 * 60 * 1000

/** @param {import('./settings.js').Settings} settings @param {import('./log.js').Log} log */
async function run(settings, log) {
	await createFolder(settings.queueDir)
	await createFolder(settings.stateDir)
	const lock = await lockFolder(settings.queueDir)
	const inbox = new Inbox(settings.queueDir)
	const outbox = new Outbox(settings.queueDir)
	const media = new Media(settings.queueDir, settings.mediaMaxBytes)
	const record = new Record(settings.stateDir)
	const received = new Received(settings.stateDir, log)
	const restriction = new Restriction(settings.stateDir)
	const queues = { outbox: 0, inbox: 0 }
	const versions = await readVersions()
	const time = (/** @type {number | undefined} */ at) => (at ? new Date(at).toISOString() : undefined)
	/** @type {State} */
	const state = new State(
		settings.queueDir,
		/** @returns {import('./queue/documents.js').Document} */
		() => ({
			account: session.account,
			lid: ownLid(session.me),
			last_frame_at: time(session.lastFrameAt),
			ack_latency_ms: sender.ackLatencyMs,
			ack_pending_since: sender.ackPendingSince?.toISOString(),
			pace: { min_seconds: settings.minSeconds, max_seconds: settings.maxSeconds },
			queues: { ...queues, undecryptable: receiver.undecryptable },
			versions,
		}),
		(error) => session.block(`state.json can't be written: ${inWords(error)}`),
		log,
	)
	/** @type {Session} */
	const session = new Session({
		settings,
		state,
		auth: new AuthStore(settings.stateDir, log),
		record,
		received,
		restriction,
		handlers: {
			messages: (messages, delivery) => receiver.messages(messages, delivery),
			receipt: (node) => receiver.receipt(node),
			ack: (node) => sender.ack(node),
			lid: (mapping) => receiver.lid(mapping),
		},
		log,
	})
	/** @type {Receiver} */
	const receiver = new Receiver({ inbox, record, received, media, session, log })
	/** @type {Sender} */
	const sender = new Sender({ outbox, record, inbox, media, session, settings, log })

	for (const part of [inbox, outbox, media, record, received, restriction]) await part.open()
	await sender.recover()
	session.on('open', () => {
		receiver.recover().catch((error) => session.block(`what was received can't be read: ${inWords(error)}`))
	})
	state.start()

	const stopping = new AbortController()
	const stop = () => stopping.abort()
	process.on('SIGTERM', stop)
	process.on('SIGINT', stop)
	const watching = watch()
	const sending = sender.run()
	const running = session.run().then(async () => {
		// People have to act; until then the state says what.
		if (!stopping.signal.aborted) await new Promise((done) => stopping.signal.addEventListener('abort', done))
	})
	await Promise.race([running, watching, stopped(stopping.signal)])
	stopping.abort()
	sender.stop()
	await sending
	await session.stop()
	await receiver.idle()
	receiver.stop()
	await Promise.all([running, watching])
	await state.stop()
	await lock.release()

	async function watch() {
		let pruned = 0
		while (!stopping.signal.aborted) {
			if (!(await lock.held())) throw new LockedError('another bridge has taken this folder over')
			try {
				queues.outbox = await outbox.waiting()
				queues.inbox = await inbox.waiting()
				if (inbox.isFull(queues.inbox, session.isBlocked))
					session.block(`${queues.inbox} files wait in inbox/new: messaging does not take them`)
				else if (session.isBlocked) {
					for (const folder of [join(settings.queueDir, 'inbox'), settings.stateDir])
						await tryRoom(join(folder, 'tmp'), ROOM_BYTES)
					session.unblock()
				}
				if (Date.now() - pruned > HOUR_MS) {
					await record.prune(Date.now())
					pruned = Date.now()
				}
			} catch (error) {
				session.block(`the queue can't be used: ${inWords(error)}`)
			}
			await pause(CHECK_MS, undefined, { signal: stopping.signal }).catch(() => undefined)
		}
	}
}

/** @param {AbortSignal} signal */
const stopped = (signal) => new Promise((done) => signal.addEventListener('abort', done, { once: true }))

async function readVersions() {
	const own = JSON.parse(await readFile(new URL('../package.json', import.meta.url), 'utf8'))
	return { bridge: own.version, baileys: own.dependencies.baileys, node: process.versions.node }
}

try {
	const settings = readSettings(process.env)
	await run(settings, makeLog(settings.level))
	process.exit(0)
} catch (error) {
	const log = makeLog('info')
	if (error instanceof SettingsError) {
		process.stderr.write(`The bridge can't start:\n${error.message}\n`)
		process.exit(EXIT_CONFIGURATION)
	}
	if (error instanceof LockedError) {
		log.error('the bridge does not run', { reason: error.message })
		process.exit(EXIT_LOCKED)
	}
	log.error('the bridge ended by an error', { error: error instanceof Error ? (error.stack ?? error.message) : String(error) })
	process.exit(1)
}
