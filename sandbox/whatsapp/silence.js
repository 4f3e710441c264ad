/** Must be imported first: libsignal prints whole session records, private keys included. */

for (const name of /** @type {const} */ (['log', 'info', 'debug', 'warn', 'error', 'trace', 'dir'])) {
	console[name] = () => undefined
}
