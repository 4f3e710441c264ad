/** One JSON object a line on stderr, as the other services write. */

const LEVELS = ['debug', 'info', 'warning', 'error']

/** @typedef {(event: string, fields?: Record<string, unknown>) => void} Write */
/** @typedef {{debug: Write, info: Write, warning: Write, error: Write}} Log */

/**
 * @param {string} least the lowest level that is written
 * @param {{write(line: string): unknown}} stream
 * @returns {Log}
 */
export function makeLog(least, stream = process.stderr) {
	const from = LEVELS.indexOf(least)
	const at =
		(/** @type {string} */ level) =>
		(/** @type {string} */ event, /** @type {Record<string, unknown>} */ fields = {}) => {
			if (LEVELS.indexOf(level) < from) return
			const timestamp = new Date().toISOString()
			stream.write(JSON.stringify({ ...fields, event, level, timestamp }) + '\n')
		}
	return { debug: at('debug'), info: at('info'), warning: at('warning'), error: at('error') }
}

/**
 * The library's logger. Only the texts of warnings and errors go on: its fields hold numbers,
 * messages and keys. What it calls an error is often an everyday thing, such as the end of a
 * connection; the bridge's own words say what matters.
 *
 * @param {Log} log
 */
export function forLibrary(log) {
	const told =
		(/** @type {'debug' | 'info'} */ level) =>
		(/** @type {unknown} */ fields, /** @type {string | undefined} */ text) =>
			log[level]('baileys', { text: text ?? (typeof fields === 'string' ? fields : 'no text') })
	const silent = () => undefined
	const logger = {
		level: 'warn',
		trace: silent,
		debug: silent,
		info: silent,
		warn: told('debug'),
		error: told('info'),
		child: () => logger,
	}
	return logger
}
