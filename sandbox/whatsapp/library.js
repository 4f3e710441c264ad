/**
 * The library, from the one place where it is installed: `preload.js` changes an object in it, so
 * the program under test must resolve the same copy.
 */

export * from '../../services/baileys/node_modules/baileys/lib/index.js'
export { verifySignature } from '../../services/baileys/node_modules/libsignal/src/curve.js'
// @ts-expect-error it comes without types
export { WebSocketServer } from '../../services/baileys/node_modules/ws/wrapper.mjs'
