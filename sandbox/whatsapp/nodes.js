/** Stanzas in short. */

import { getBinaryNodeChildBuffer } from './library.js'

/** @typedef {import('./library.js').BinaryNode} BinaryNode */

/**
 * @param {string} tag
 * @param {Record<string, string>} [attrs]
 * @param {BinaryNode['content']} [content]
 * @returns {BinaryNode}
 */
export const node = (tag, attrs = {}, content = undefined) => ({ tag, attrs, content })

/** A child's bytes; none are empty. @param {BinaryNode | undefined} parent @param {string} tag */
export const bytesOf = (parent, tag) => Buffer.from(getBinaryNodeChildBuffer(parent, tag) ?? [])

/** Now, as WhatsApp writes times. */
export const seconds = (at = Date.now()) => String(Math.floor(at / 1000))
