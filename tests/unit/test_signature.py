"""The signature verifier, case by case, against texts written out as Twilio signs them."""

import hashlib

import pytest
from twilio.request_validator import (  # type: ignore[import-untyped] # twilio has no py.typed
    RequestValidator,
)

from services.webhook.signature import SignatureResult, parse_form
from tests.support.signatures import GOOD, SHA256_SETTINGS, TOKEN, sign, verify

VECTOR_FORM = [
    ("CallSid", "CA1234567890ABCDE"),
    ("Caller", "+14158675309"),
    ("Digits", "1234"),
    ("From", "+14158675309"),
    ("To", "+18005551212"),
]
VECTOR_TEXT = (
    "https://mycompany.com/myapp.php?foo=1&bar=2CallSidCA1234567890ABCDECaller+14158675309"
    "Digits1234From+14158675309To+18005551212"
)


class TestVectors:
    def test_reference(self) -> None:
        """The vector that every Twilio library tests itself with is valid."""
        result = verify(
            b"RSOYDt4T1cUTdK1PDd93/VVr8B8=",
            origin="https://mycompany.com",
            path=b"/myapp.php",
            query=b"foo=1&bar=2",
            form=VECTOR_FORM,
        )
        assert result is SignatureResult.VALID

    def test_shared_key(self) -> None:
        """The same request under a SharedKey, its HMAC-SHA256 computed by OpenSSL, is valid."""
        result = verify(
            b"Tr3AlkzD0SLwaHdo8YFqzSt/R6MkTg7dDiIFijetPeE=",
            origin="https://mycompany.com",
            path=b"/myapp.php",
            query=b"foo=1&bar=2",
            form=VECTOR_FORM,
            settings=SHA256_SETTINGS,
        )
        assert result is SignatureResult.VALID

    def test_json(self) -> None:
        """A JSON body with its digest in the query, signed by OpenSSL, is valid."""
        result = verify(
            b"VdvRbXimkLLzWiuzkYjUHvDijmI=",
            query=b"bodySHA256=e43abcf3375244839c012f9633f95862d232a95b00d5bc7348b3098b9fed7f32",
            body=b'{"key":"value"}',
        )
        assert result is SignatureResult.VALID

    def test_websocket(self) -> None:
        """A WebSocket upgrade, signed over the wss URL by OpenSSL, is valid."""
        result = verify(
            b"bueH7sLBnC+oqtcUZf4hX9Jxrmo=",
            origin="https://mycompany.com",
            path=b"/relay",
            websocket=True,
        )
        assert result is SignatureResult.VALID


@pytest.mark.parametrize(
    ("origin", "websocket", "signed_origin"),
    [
        ("https://example.com", False, "https://example.com"),
        ("https://example.com", False, "https://example.com:443"),
        ("http://example.com", False, "http://example.com"),
        ("http://example.com", False, "http://example.com:80"),
        ("https://example.com:8443", False, "https://example.com:8443"),
        ("https://example.com:8443", False, "https://example.com"),
        ("https://example.com:443", False, "https://example.com"),
        ("https://Hooks.Example.COM", False, "https://Hooks.Example.COM"),
        ("https://user:p%40ss@example.com", False, "https://user:p%40ss@example.com"),
        ("https://user:p%40ss@example.com", False, "https://user:p%40ss@example.com:443"),
        ("https://user:pw@example.com:8443", False, "https://user:pw@example.com:8443"),
        ("https://user:pw@example.com:8443", False, "https://user:pw@example.com"),
        ("HTTPS://example.com", False, "HTTPS://example.com"),
        ("HTTPS://example.com", False, "HTTPS://example.com:443"),
        ("HTTPS://example.com", False, "https://example.com"),
        ("https://[2001:db8::1]", False, "https://[2001:db8::1]"),
        ("https://[2001:db8::1]", False, "https://[2001:db8::1]:443"),
        ("https://[2001:db8::1]:8443", False, "https://[2001:db8::1]:8443"),
        ("https://[2001:db8::1]:8443", False, "https://[2001:db8::1]"),
        ("https://u:p@[2001:db8::1]:8443", False, "https://u:p@[2001:db8::1]"),
        ("https://example.com", True, "wss://example.com"),
        ("https://example.com", True, "wss://example.com:443"),
        ("http://example.com", True, "ws://example.com"),
        ("http://example.com", True, "ws://example.com:80"),
        ("https://user:pw@example.com:8443", True, "wss://user:pw@example.com:8443"),
        ("https://user:pw@example.com:8443", True, "wss://user:pw@example.com"),
        ("https://[2001:db8::1]", True, "wss://[2001:db8::1]:443"),
        ("HTTPS://example.com", True, "WSS://example.com"),
        ("HTTPS://example.com", True, "wss://example.com"),
    ],
)
def test_accepted_origins(origin: str, websocket: bool, signed_origin: str) -> None:
    """Every spelling of the configured origin that Twilio may sign is accepted."""
    signature = sign(f"{signed_origin}/hook?a=1")
    result = verify(signature, origin=origin, query=b"a=1", websocket=websocket)
    assert result is SignatureResult.VALID


@pytest.mark.parametrize(
    ("origin", "websocket", "signed_origin"),
    [
        ("https://example.com", False, "http://example.com"),
        ("https://example.com", False, "wss://example.com"),
        ("https://example.com", True, "https://example.com"),
        ("https://example.com", True, "wss://example.com:80"),
        ("https://example.com", False, "https://EXAMPLE.com"),
        ("https://example.com", False, "HTTPS://example.com"),
        ("https://example.com", False, "https://example.com:8443"),
        ("https://example.com:8443", False, "https://example.com:443"),
        ("https://user:pw@example.com", False, "https://example.com"),
        ("https://example.com", False, "https://attacker.example"),
        ("https://[2001:db8::1]", False, "https://[2001:db8:0::1]"),
    ],
)
def test_refused_origins(origin: str, websocket: bool, signed_origin: str) -> None:
    """A signature over another origin is refused, were it only another spelling of the host."""
    signature = sign(f"{signed_origin}/hook?a=1")
    result = verify(signature, origin=origin, query=b"a=1", websocket=websocket)
    assert result is SignatureResult.INVALID


@pytest.mark.parametrize(
    ("path", "query", "signed_target", "expected"),
    [
        (b"/hook", b"", "/hook", SignatureResult.VALID),
        (b"/", b"", "/", SignatureResult.VALID),
        (b"//a//b/", b"", "//a//b/", SignatureResult.VALID),
        (b"/a%2Fb", b"x=%d7%A9", "/a%2Fb?x=%d7%A9", SignatureResult.VALID),
        (b"/a%2Fb", b"", "/a/b", SignatureResult.INVALID),
        (b"/hook", b"x=a%20b", "/hook?x=a+b", SignatureResult.INVALID),
        (b"/hook", b"x=a?b", "/hook?x=a?b", SignatureResult.VALID),
        (b"/hook", b"b=2&a=1", "/hook?a=1&b=2", SignatureResult.INVALID),
        ("/שלום".encode(), b"", "/שלום", SignatureResult.VALID),
        (b"/hook", b"n=it's", "/hook?n=it's", SignatureResult.VALID),
        (b"/hook", b"n=it's", "/hook?n=it%27s", SignatureResult.VALID),
        (b"/hook", b"n=it%27s", "/hook?n=it's", SignatureResult.VALID),
        (b"/hook", b"n='%27'", "/hook?n=%27%27%27", SignatureResult.VALID),
        (b"/hook", b"n='%27'", "/hook?n='''", SignatureResult.VALID),
        (b"/it's", b"", "/it%27s", SignatureResult.INVALID),
        (b"/hook", b"n=%22", '/hook?n="', SignatureResult.INVALID),
        # Twilio never signs the fragment of a configured URL, and doesn't send it either.
        (b"/hook", b"", "/hook#rc=2", SignatureResult.INVALID),
        (b"/hook", b"a=1#rc=2", "/hook?a=1", SignatureResult.INVALID),
    ],
)
def test_targets(path: bytes, query: bytes, signed_target: str, expected: SignatureResult) -> None:
    """Path and query are signed as sent, never decoded; only `'` and `%27` are exchangeable."""
    signature = sign(f"https://example.com{signed_target}")
    assert verify(signature, path=path, query=query) is expected


@pytest.mark.parametrize(
    ("body", "signed_parameters"),
    [
        (b"B=2&A=1", b"A1B2"),
        (b"a=1&B=2&A=3&_=4", b"A3B2_4a1"),
        (b"a=1&a=0&a=1", b"a0a1"),
        (b"MediaUrl=b&To=x&MediaUrl=a", b"MediaUrlaMediaUrlbTox"),
        (b"Body=&From=x", b"BodyFromx"),
        (b"Body&From=x", b"BodyFromx"),
        (b"=x", b"x"),
        (b"AB=1&A=2", b"A2AB1"),
        (b"Body=a+b%20c%2Bd", b"Bodya b c+d"),
        (b"Body=1;2&x=3", b"Body1;2x3"),
        (b"Body=a%3Db=c", b"Bodya=b=c"),
        (b"&&Body=x&", b"Bodyx"),
        (b"Body=100%&x=%zz", b"Body100%x%zz"),
        (b"Body=%0D%0A%00", b"Body\r\n\0"),
        (b"Body=%D7%A9", "Bodyש".encode()),
        ("Body=ש".encode(), "Bodyש".encode()),
        # U+E000 sorts before U+1F600 in UTF-8, after it in UTF-16.
        ("\ue000=1&😀=2".encode(), "\ue0001😀2".encode()),
        # Not UTF-8: the bytes themselves are signed and sorted, escaped or bare.
        (b"Body=%FF%FE", b"Body\xff\xfe"),
        (b"Body=\xff%d7", b"Body\xff\xd7"),
        (b"Body=%ED%A0%80", b"Body\xed\xa0\x80"),
        (b"\xd7%A9=2&\xd7%A9=1", "ש1ש2".encode()),
        ("%FF=1&😀=2&\ue000=3".encode(), "\ue0003😀2".encode() + b"\xff1"),
    ],
)
def test_forms(body: bytes, signed_parameters: bytes) -> None:
    """A form is signed decoded, in byte order, each distinct value once, whatever its bytes."""
    signature = sign(b"https://example.com/hook" + signed_parameters)
    form = parse_form(body, max_parameters=10)
    assert verify(signature, form=form, body=body) is SignatureResult.VALID


def test_a_surrogate_that_never_was_a_byte_is_refused() -> None:
    """Text that no form can carry is refused, not an encoding error."""
    for signed in ("", "Body", "Body?"):
        signature = sign(f"https://example.com/hook{signed}")
        assert verify(signature, form=[("Body", "\ud83d")]) is SignatureResult.INVALID


def test_too_many_parameters() -> None:
    """A form with more parameters than allowed is refused while it is parsed."""
    assert len(parse_form(b"a=1&" * 9 + b"a=1", max_parameters=10)) == 10
    with pytest.raises(ValueError, match="fields"):
        parse_form(b"a=1&" * 10 + b"a=1", max_parameters=10)


JSON_BODY = b'{"EventType":"onMessageAdded"}'
JSON_DIGEST = hashlib.sha256(JSON_BODY).hexdigest()


@pytest.mark.parametrize(
    ("query", "body", "expected"),
    [
        (f"bodySHA256={JSON_DIGEST}", JSON_BODY, SignatureResult.VALID),
        (f"a=1&bodySHA256={JSON_DIGEST}&b=2", JSON_BODY, SignatureResult.VALID),
        (f"bodySHA256={JSON_DIGEST}", JSON_BODY + b" ", SignatureResult.INVALID),
        (f"bodySHA256={JSON_DIGEST}", b"", SignatureResult.INVALID),
        (f"bodySHA256={JSON_DIGEST.upper()}", JSON_BODY, SignatureResult.INVALID),
        (f"bodySHA256={JSON_DIGEST[:-1]}", JSON_BODY, SignatureResult.INVALID),
        (f"xbodySHA256={JSON_DIGEST}", JSON_BODY, SignatureResult.INVALID),
        (f"bodySHA256={JSON_DIGEST}&bodySHA256=0", JSON_BODY, SignatureResult.INVALID),
        ("bodySHA256=", JSON_BODY, SignatureResult.INVALID),
        ("bodySHA256=%FF\u00ff", JSON_BODY, SignatureResult.INVALID),
        ("", JSON_BODY, SignatureResult.INVALID),
        ("a=1", b"", SignatureResult.VALID),
        (f"bodySHA256={hashlib.sha256().hexdigest()}", b"", SignatureResult.VALID),
    ],
)
def test_body_digests(query: str, body: bytes, expected: SignatureResult) -> None:
    """A body that isn't a form is valid only with its digest, once, in the signed query."""
    signature = sign("https://example.com/hook" + (f"?{query}" if query else ""))
    assert verify(signature, query=query.encode(), body=body) is expected


def test_a_body_digest_does_not_replace_the_signature() -> None:
    """A right digest under a wrong signature is refused."""
    query = f"bodySHA256={JSON_DIGEST}"
    signature = sign(f"https://example.com/hook?{query}", key="another")
    assert verify(signature, query=query.encode(), body=JSON_BODY) is SignatureResult.INVALID


class TestWhereTheSdkIsWrong:
    """Faults of twilio-python 9.13 that are the reason not to call it.

    Each stands here so that the day the SDK mends one is noticed.
    """

    sdk = RequestValidator(TOKEN)

    @pytest.mark.parametrize(
        ("origin", "websocket", "signed_origin"),
        [
            ("https://user:pw@example.com:8443", False, "https://user:pw@example.com"),
            ("HTTPS://example.com", False, "HTTPS://example.com"),
            ("https://[2001:db8::1]:8443", False, "https://[2001:db8::1]"),
            ("https://example.com", True, "wss://example.com:443"),
        ],
    )
    def test_valid_urls_it_rejects(self, origin: str, websocket: bool, signed_origin: str) -> None:
        """Ours accepts what the SDK rejects: userinfo + port, HTTPS://, IPv6 and wss ports."""
        signature = sign(f"{signed_origin}/hook")
        url = (origin.replace("https", "wss") if websocket else origin) + "/hook"
        assert not self.sdk.validate(url, {}, signature.decode())
        result = verify(signature, origin=origin, websocket=websocket)
        assert result is SignatureResult.VALID

    def test_input_it_raises_on(self) -> None:
        """Ours refuses what makes the SDK raise: no signature, a body without its digest."""
        with pytest.raises(TypeError):
            self.sdk.validate("https://example.com/hook", {}, None)
        assert verify(None) is SignatureResult.MISSING
        with pytest.raises(TypeError):
            self.sdk.validate("https://example.com/hook", '{"a":1}', GOOD.decode())
        assert verify(GOOD, body=b'{"a":1}') is SignatureResult.INVALID

    def test_repeats_a_dict_loses(self) -> None:
        """Ours takes the parameters as parsed, so that no repeated one is lost."""
        form = [("MediaUrl", "a"), ("MediaUrl", "b")]
        signature = sign("https://example.com/hookMediaUrlaMediaUrlb")
        url = "https://example.com/hook"
        assert not self.sdk.validate(url, dict(form), signature.decode())
        assert verify(signature, form=form) is SignatureResult.VALID
