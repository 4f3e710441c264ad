/**
 * Lets an unchanged program take the sandbox for WhatsApp:
 *
 *     node --import sandbox/whatsapp/preload.js services/baileys/src/main.js
 */

import { globalAgent } from 'node:https'
import { rootCertificates } from 'node:tls'

import { WA_CERT_DETAILS } from './library.js'
import { ROOT, TLS } from './trust.js'

WA_CERT_DETAILS.PUBLIC_KEY = ROOT.public
globalAgent.options.ca = [...rootCertificates, TLS]
