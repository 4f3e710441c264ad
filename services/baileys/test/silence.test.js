/** A connection that is there and dead. */

import assert from 'node:assert/strict'
import { test } from 'node:test'

import { paired, until } from './support/bridge.js'

test('slow acknowledgements show, and a silent WhatsApp is left within 70 seconds', async (t) => {
	const { server, bridge } = await paired(t)
	await server.ask('PATCH /faults', { delay_ms: 400 })
	assert.equal((await bridge.answer(await bridge.send({ type: 'text', text: 'slow' }))).outcome, 'accepted')
	assert.ok((await bridge.when('open', (state) => state.ack_latency_ms >= 400)).last_frame_at)
	await server.ask('PATCH /faults', { delay_ms: 0, silent: true })
	const gone = async () => {
		const state = await bridge.state()
		return state?.state === 'connecting' && state.close_code === 408
	}
	await until('the bridge has left', gone, 70_000)
	await server.ask('PATCH /faults', { silent: false })
	await bridge.when('open')
})
