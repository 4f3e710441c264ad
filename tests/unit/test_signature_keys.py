"""Which keys, algorithms and headers the signature verifier takes, case by case."""

import base64

import pytest

from services.webhook.signature import SignatureResult, SignatureVerifier
from tests.support.signatures import GOOD, SHA256_SETTINGS, SHARED_KEY, TOKEN, sign, verify


@pytest.mark.parametrize(
    ("settings", "key", "digest", "expected"),
    [
        (None, TOKEN, "sha1", SignatureResult.VALID),
        (b"", TOKEN, "sha1", SignatureResult.VALID),
        (SHA256_SETTINGS, SHARED_KEY, "sha256", SignatureResult.VALID),
        (
            b"algorithm=HMAC_SHA256, key=webhooks_sharedkey_01",
            SHARED_KEY,
            "sha256",
            SignatureResult.VALID,
        ),
        (
            b"key=webhooks_sharedkey_01,algorithm=HMAC_SHA1",
            SHARED_KEY,
            "sha1",
            SignatureResult.VALID,
        ),
        (
            b"key=webhooks_sharedkey_01,algorithm=hmac_sha256",
            SHARED_KEY,
            "sha256",
            SignatureResult.VALID,
        ),
        (b"key=webhooks_sharedkey_01", SHARED_KEY, "sha1", SignatureResult.VALID),
        (
            b"key=webhooks_sharedkey_01,v=2,algorithm=HMAC_SHA256",
            SHARED_KEY,
            "sha256",
            SignatureResult.VALID,
        ),
        # The algorithm is the one named, the key too.
        (None, TOKEN, "sha256", SignatureResult.INVALID),
        (None, SHARED_KEY, "sha256", SignatureResult.INVALID),
        (None, SHARED_KEY, "sha1", SignatureResult.INVALID),
        (SHA256_SETTINGS, SHARED_KEY, "sha1", SignatureResult.INVALID),
        (SHA256_SETTINGS, TOKEN, "sha256", SignatureResult.INVALID),
        (SHA256_SETTINGS, TOKEN, "sha1", SignatureResult.INVALID),
        # A request that names a key is never checked against the auth tokens.
        (b"key=webhooks_sharedkey_01,algorithm=HMAC_SHA1", TOKEN, "sha1", SignatureResult.INVALID),
        (b"key=unknown,algorithm=HMAC_SHA256", SHARED_KEY, "sha256", SignatureResult.INVALID),
        (b"key=unknown,algorithm=HMAC_SHA1", TOKEN, "sha1", SignatureResult.INVALID),
        (b"key=,algorithm=HMAC_SHA1", TOKEN, "sha1", SignatureResult.INVALID),
        (b"algorithm=HMAC_SHA1", TOKEN, "sha1", SignatureResult.INVALID),
        (
            b"key=webhooks_sharedkey_01,algorithm=HMAC_MD5",
            SHARED_KEY,
            "md5",
            SignatureResult.INVALID,
        ),
        (b"key=webhooks_sharedkey_01,algorithm=", SHARED_KEY, "sha1", SignatureResult.INVALID),
        (SHA256_SETTINGS + b",key=unknown", SHARED_KEY, "sha256", SignatureResult.INVALID),
        (SHA256_SETTINGS + b",algorithm=HMAC_SHA1", SHARED_KEY, "sha1", SignatureResult.INVALID),
        (SHA256_SETTINGS + b",algorithm=HMAC_SHA1", SHARED_KEY, "sha256", SignatureResult.INVALID),
        (b"\xff\x00,;=,,", TOKEN, "sha1", SignatureResult.INVALID),
    ],
)
def test_keys_and_algorithms(
    settings: bytes | None, key: str, digest: str, expected: SignatureResult
) -> None:
    """The settings header alone decides which key and which algorithm count."""
    signature = sign("https://example.com/hookBodyhi", key, digest)
    assert verify(signature, form=[("Body", "hi")], settings=settings) is expected


def test_several_auth_tokens() -> None:
    """During a rotation each token is good, and no other."""
    for token in ("old", "new", "sub-account"):
        signature = sign("https://example.com/hook", token)
        result = verify(signature, auth_tokens=["old", "new", "sub-account"])
        assert result is SignatureResult.VALID
    signature = sign("https://example.com/hook", "other")
    result = verify(signature, auth_tokens=["old", "new", "sub-account"])
    assert result is SignatureResult.INVALID


@pytest.mark.parametrize(
    "signature",
    [
        b"",
        b" ",
        b"=",
        GOOD[:-1],
        GOOD + b"=",
        GOOD + b"\n",
        GOOD + b", " + GOOD,
        GOOD.lower(),
        GOOD.replace(b"=", b""),
        base64.b64decode(GOOD),
        base64.b64decode(GOOD).hex().encode(),
        "חתימה".encode(),
        b"\xff\xfe\x00",
        b"A" * 65536,
    ],
)
def test_malformed_signatures(signature: bytes) -> None:
    """Anything but the exact base64 text is refused."""
    assert verify(signature) is SignatureResult.INVALID


def test_one_signature_has_one_spelling() -> None:
    """Base64 that decodes to the right bytes from another text is refused."""
    respelt = GOOD[:-2] + bytes([GOOD[-2] + 1]) + b"="
    assert base64.b64decode(respelt) == base64.b64decode(GOOD)
    assert verify(respelt) is SignatureResult.INVALID


def test_repeated_headers() -> None:
    """Two signatures, or two settings headers, are refused even where one would be right."""
    more_headers = [(b"x-twilio-signature", b"RSOYDt4T1cUTdK1PDd93/VVr8B8=")]
    assert verify(GOOD, more_headers=more_headers) is SignatureResult.INVALID
    more_headers = [(b"x-twilio-signature", GOOD)]
    assert verify(GOOD, more_headers=more_headers) is SignatureResult.INVALID
    signature = sign("https://example.com/hook", SHARED_KEY, "sha256")
    more_headers = [(b"x-twilio-webhooks-signature-settings", SHA256_SETTINGS)]
    result = verify(signature, settings=SHA256_SETTINGS, more_headers=more_headers)
    assert result is SignatureResult.INVALID


def test_missing_signature_and_missing_keys() -> None:
    """No header and no key at all are told apart from a wrong signature."""
    assert verify(None) is SignatureResult.MISSING
    verifier = SignatureVerifier("https://example.com", [], {})
    headers = [(b"x-twilio-signature", GOOD)]
    result = verifier.verify(raw_path=b"/hook", raw_query=b"", headers=headers)
    assert result is SignatureResult.NO_KEY
    result = verifier.verify(raw_path=b"/hook", raw_query=b"", headers=[])
    assert result is SignatureResult.MISSING


def test_shared_keys_alone() -> None:
    """Where only SharedKeys are configured, a request that names none is refused."""
    assert verify(GOOD, auth_tokens=[]) is SignatureResult.INVALID


@pytest.mark.parametrize(
    "origin",
    [
        "",
        "example.com",
        "ftp://example.com",
        "wss://example.com",
        "https://",
        "https://example.com/",
        "https://example.com/path",
        "https://example.com?a=1",
        "https://example.com#rc=2",
        "https://example.com:",
        "https://example.com:0",
        "https://example.com:65536",
        "https://example.com:٤٤٣",
        "https://exämple.com",
        "https://exa mple.com",
        "https://example.com\n",
        "https://2001:db8::1",
        "https://[2001:db8::1",
        "https://user:hunter2@",
    ],
)
def test_unusable_origins(origin: str) -> None:
    """An origin that can't be one stops the start, by the setting's name, without showing it."""
    with pytest.raises(ValueError, match="PUBLIC_HOST") as caught:
        SignatureVerifier(origin, [TOKEN], {})
    assert "hunter2" not in str(caught.value)


def test_unusable_keys() -> None:
    """A key that anyone could guess, or that was pasted with white space, stops the start."""
    for token in ("", " ", " abc", "abc\n"):
        with pytest.raises(ValueError, match="auth_tokens"):
            SignatureVerifier("https://example.com", ["good", token], {})
        with pytest.raises(ValueError, match=r"shared_keys\['id'\]"):
            SignatureVerifier("https://example.com", [], {"id": token})
    with pytest.raises(TypeError, match="auth_tokens"):
        SignatureVerifier("https://example.com", "12345", {})
