"""Requests signed as Twilio signs them, by hand, and what the verifier says of them."""

import base64
import hmac
from collections.abc import Sequence

from services.webhook.signature import SignatureResult, SignatureVerifier

TOKEN = "12345"
SHARED_KEY_ID = "webhooks_sharedkey_01"
SHARED_KEY = "shared secret"
SHA256_SETTINGS = f"key={SHARED_KEY_ID},algorithm=HMAC_SHA256".encode()


def sign(text: str | bytes, key: str = TOKEN, digest: str = "sha1") -> bytes:
    """The signature of a text: base64 of its HMAC."""
    signed = text.encode() if isinstance(text, str) else text
    return base64.b64encode(hmac.digest(key.encode(), signed, digest))


GOOD = sign("https://example.com/hook")
"""Of what `verify` verifies by default."""


def verify(
    signature: bytes | None,
    *,
    origin: str = "https://example.com",
    path: bytes = b"/hook",
    query: bytes = b"",
    form: Sequence[tuple[str, str]] = (),
    body: bytes = b"",
    websocket: bool = False,
    settings: bytes | None = None,
    auth_tokens: Sequence[str] = (TOKEN,),
    more_headers: Sequence[tuple[bytes, bytes]] = (),
) -> SignatureResult:
    """What the verifier says of a request to `/hook`, unless told otherwise."""
    headers = [(b"host", b"attacker.example"), (b"x-forwarded-proto", b"http"), *more_headers]
    if signature is not None:
        headers.append((b"x-twilio-signature", signature))
    if settings is not None:
        headers.append((b"x-twilio-webhooks-signature-settings", settings))
    verifier = SignatureVerifier(origin, auth_tokens, {SHARED_KEY_ID: SHARED_KEY})
    return verifier.verify(
        raw_path=path,
        raw_query=query,
        headers=headers,
        form=form,
        body=body,
        websocket=websocket,
    )
