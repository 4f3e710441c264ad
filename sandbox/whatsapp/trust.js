/** What a program under test trusts instead of WhatsApp's own key. No secret: it proves nothing. */

/** The root of the Noise certificates. */
export const ROOT = {
	private: Buffer.from('287fa991442d48bcb2c5c13e31b8e8b2251e8cf0dcbc65a3b7a88d4c3e3e0543', 'hex'),
	public: Buffer.from('78b250d2dbc3b3f733ca52edb198e2add99ff26e4ba9c4d0b57687d9cf052a7f', 'hex'),
}
