/**
 * Silences the console. Must be imported before the library: libsignal prints whole session
 * records, private keys included, with `console.info`.
 */

for (const name of /** @type {const} */ (['log', 'info', 'debug', 'warn', 'error', 'trace', 'dir'])) {
	console[name] = () => undefined
}
