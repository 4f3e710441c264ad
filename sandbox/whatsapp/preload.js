/**
 * Lets an unchanged program take the sandbox for WhatsApp:
 *
 *     node --import sandbox/whatsapp/preload.js services/baileys/src/main.js
 */

import { globalAgent } from 'node:https'
import { connect } from 'node:net'

import { WA_CERT_DETAILS } from './library.js'
import { ROOT } from './trust.js'

WA_CERT_DETAILS.PUBLIC_KEY = ROOT.public

// The library uploads files by https alone, and a certificate would need a key that is no secret:
// on this machine it speaks in the clear instead.
const { createConnection } = globalAgent
globalAgent.createConnection = (options, done) =>
	options.host === '127.0.0.1'
		? connect(Number(options.port), options.host)
		: createConnection.call(globalAgent, options, done)
