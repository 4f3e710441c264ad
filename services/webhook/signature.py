"""Twilio's webhook signature: is this request really from Twilio?

Twilio signs the URL configured with it, byte for byte, followed by the sorted form parameters,
and sends the base64 of the HMAC in ``X-Twilio-Signature``
(https://www.twilio.com/docs/usage/webhooks/webhooks-security). Behind a proxy that URL can't be
had from the socket, and ``Host`` and ``X-Forwarded-*`` are the caller's to choose, so it is built
from the configured origin and the request target exactly as received.
"""

import enum
import hmac
import re
from binascii import a2b_qp, b2a_base64
from collections.abc import Iterable, Mapping, Sequence
from hashlib import sha256
from itertools import chain
from urllib.parse import unquote_to_bytes

SIGNATURE_HEADER = b"x-twilio-signature"
SETTINGS_HEADER = b"x-twilio-webhooks-signature-settings"

# What separates fields, and what a form has only escaped, becomes SOH; `=` is the sign of escapes.
_AS_QUOTED_PRINTABLE = bytes.maketrans(b"&=\r\n+%", b"\1\1\1\1 =")
_NO_SEPARATORS = bytes(sign for sign in range(256) if sign not in b"&=")
_HASHES = {b"HMAC_SHA1": "sha1", b"HMAC_SHA256": "sha256"}
_DEFAULT_PORTS = {"https": "443", "wss": "443", "http": "80", "ws": "80"}
_ORIGIN = re.compile(
    r"(?P<scheme>https?)://"
    r"(?P<host>(?:[^/?#\s]*@)?(?:\[[^\[\]@/?#\s]+\]|[^\[\]@:/?#\s]+))"
    r"(?::(?P<port>[0-9]{1,5}))?",
    re.ASCII | re.IGNORECASE,
)


class SignatureResult(enum.Enum):
    """What the check found. Everything but ``VALID`` must be refused."""

    VALID = "valid"
    MISSING = "missing"
    """No signature header: not a request from Twilio (400)."""
    INVALID = "invalid"
    """A signature that doesn't match, or that can't (403)."""
    NO_KEY = "no_key"
    """The verifier was given no key, so nothing can be valid: a fault of ours (500)."""


def parse_form(body: bytes, *, max_parameters: int) -> list[tuple[str, str]]:
    """Decode ``application/x-www-form-urlencoded`` so that every signed byte survives.

    ``&`` alone separates, ``+`` is a space, empty values stay, repeats and order stay. Bytes that
    aren't UTF-8, escaped or bare, become lone surrogates (``surrogateescape``), which
    `SignatureVerifier.verify` turns back into the bytes; whoever stores the text must replace them.

    Raises:
        ValueError: there are more than ``max_parameters`` parameters.
    """
    separators = body.translate(None, _NO_SEPARATORS)
    count = separators.count(b"&") + 1
    if count > max_parameters:
        raise ValueError(f"more than {max_parameters} fields")
    # `urllib.parse.parse_qsl` gives the same in five times the time. Quoted-printable is the same
    # with another sign, and undone in C.
    plain = a2b_qp(body.translate(_AS_QUOTED_PRINTABLE))
    parts = plain.decode("utf-8", "surrogateescape").split("\1")
    if (
        # Each field is a name and a value.
        separators == b"=&" * (count - 1) + b"="
        # Nothing else has become a separator.
        and len(parts) == 2 * count
        # Each sign gave one byte.
        and len(plain) == len(body) - 2 * body.count(b"%")
    ):
        return list(zip(parts[::2], parts[1::2], strict=True))
    return _parse_unusual_form(body)


def _parse_unusual_form(body: bytes) -> list[tuple[str, str]]:
    """The same for any body."""
    fields = [field.partition(b"=") for field in body.replace(b"+", b" ").split(b"&") if field]
    return [(_unescaped(name), _unescaped(value)) for name, _, value in fields]


def _unescaped(raw: bytes) -> str:
    return unquote_to_bytes(raw).decode("utf-8", "surrogateescape")


class SignatureVerifier:
    """Verifies requests to one origin, signed with any of several keys.

    Args:
        origin: ``PUBLIC_HOST``: the http(s) origin configured at Twilio, written as it is there
            (``https://user:pw@Example.com:8443``, ``https://[2001:db8::1]``). WebSocket URLs are
            derived from it.
        auth_tokens: Auth Tokens that are good at present; several during a rotation or for
            sub-accounts.
        shared_keys: secrets of Twilio SharedKeys by their id.

    Raises:
        ValueError: ``origin`` isn't an http(s) origin, or a key is blank.
        TypeError: ``auth_tokens`` is one string instead of a sequence of them.
    """

    def __init__(
        self, origin: str, auth_tokens: Sequence[str], shared_keys: Mapping[str, str]
    ) -> None:
        if isinstance(auth_tokens, str):
            # It would be taken for a sequence of one-letter tokens, which anyone could guess.
            raise TypeError("auth_tokens must be a sequence of tokens, not one string")
        http_urls, websocket_urls = _signed_origins(origin)
        self._has_keys = bool(auth_tokens or shared_keys)

        def keyed(secrets: Iterable[bytes], digest: str) -> dict[bool, list[hmac.HMAC]]:
            return {
                websocket: [hmac.new(secret, url, digest) for secret in secrets for url in urls]
                for websocket, urls in ((False, http_urls), (True, websocket_urls))
            }

        tokens = [_secret("auth_tokens", token) for token in dict.fromkeys(auth_tokens)]
        self._by_token = keyed(tokens, "sha1")
        self._by_shared_key = {
            (key_id.encode(), algorithm): keyed([_secret(f"shared_keys[{key_id!r}]", key)], digest)
            for key_id, key in shared_keys.items()
            for algorithm, digest in _HASHES.items()
        }

    def verify(
        self,
        *,
        raw_path: bytes,
        raw_query: bytes,
        headers: Iterable[tuple[bytes, bytes]],
        form: Sequence[tuple[str, str]] = (),
        body: bytes = b"",
        websocket: bool = False,
    ) -> SignatureResult:
        """Check one request. Whatever a caller sends, this answers and never raises.

        Parameters are signed in the byte order of their names, each distinct value once, sorted.
        A body that gave no parameters is signed by its digest in the query, ``bodySHA256``, and
        without one is refused. A query is accepted with ``'`` and ``%27`` exchanged, because
        Twilio's own libraries differ in which they sign.

        Args:
            raw_path: ASGI's ``raw_path``, undecoded.
            raw_query: ASGI's ``query_string``, undecoded.
            headers: ASGI's ``headers``, names in lower case.
            form: what `parse_form` made of a form body; empty for anything else.
            body: the raw body. Only looked at when ``form`` is empty.
            websocket: whether this is an upgrade, signed over the ``ws(s)://`` URL.
        """
        signatures: list[bytes] = []
        settings: list[bytes] = []
        for name, value in headers:
            if name == SIGNATURE_HEADER:
                signatures.append(value)
            elif name == SETTINGS_HEADER:
                settings.append(value)
        if not signatures:
            return SignatureResult.MISSING
        if not self._has_keys:
            return SignatureResult.NO_KEY
        if len(signatures) > 1 or len(settings) > 1:
            return SignatureResult.INVALID

        keyed = self._by_token
        # As in Twilio's SDK, an empty settings header means the same as none.
        if settings and settings[0].strip():
            named = _named_key(settings[0])
            if named not in self._by_shared_key:
                return SignatureResult.INVALID
            keyed = self._by_shared_key[named]

        parameters = _signed_parameters(form)
        if parameters is None:
            return SignatureResult.INVALID
        for query in _query_spellings(raw_query):
            target = raw_path + b"?" + query if query else raw_path
            for prepared in keyed[websocket]:
                mac = prepared.copy()
                mac.update(target + parameters)
                # The text is compared, not the decoded bytes: base64 has several spellings of one
                # value, and Twilio sends only one.
                if hmac.compare_digest(b2a_base64(mac.digest(), newline=False), signatures[0]):
                    if form or _digest_matches(raw_query, body):
                        return SignatureResult.VALID
                    return SignatureResult.INVALID
        return SignatureResult.INVALID


def _signed_origins(origin: str) -> tuple[list[bytes], list[bytes]]:
    """Every spelling of the origin that Twilio may have signed, for HTTP and for WebSocket.

    Twilio is inconsistent about ports: a URL may be signed with its port or without, and one
    without may be signed with the default port.
    """
    match = _ORIGIN.fullmatch(origin)
    if match is None or not origin.isascii() or not 0 < int(match["port"] or 443) < 65536:
        # The origin isn't shown: it may hold a password.
        raise ValueError(
            "origin (PUBLIC_HOST) must be an http(s) origin without path, query or fragment, "
            "its host name in ASCII, for example https://hooks.example.com"
        )
    scheme, host, port = match["scheme"], match["host"], match["port"]
    websocket_scheme = ("WS" if scheme[:4].isupper() else "ws") + scheme[4:]

    def spellings(scheme: str) -> list[bytes]:
        bare = f"{scheme}://{host}"
        with_port = f"{bare}:{port or _DEFAULT_PORTS[scheme.lower()]}"
        return [url.encode() for url in ((with_port, bare) if port else (bare, with_port))]

    # A scheme in upper case is signed as typed at Twilio, which needn't be as typed here.
    http, websocket = (
        [url for spelt in dict.fromkeys((name, name.lower())) for url in spellings(spelt)]
        for name in (scheme, websocket_scheme)
    )
    return http, websocket


def _secret(field: str, value: str) -> bytes:
    # Whoever sends a request can compute the HMAC of an empty key.
    if not value or value != value.strip():
        raise ValueError(f"{field}: a key must not be empty or have white space around it")
    return value.encode()


def _named_key(settings: bytes) -> tuple[bytes, bytes] | None:
    """Key id and algorithm in ``key=<id>,algorithm=HMAC_SHA256``, None when it names no one key.

    As in Twilio's SDK the algorithm may be in lower case, and is HMAC_SHA1 when left out. Fields
    that Twilio may add later are ignored.
    """
    fields = [
        (name.strip(), value.strip())
        for name, _, value in (field.partition(b"=") for field in settings.split(b","))
    ]
    keys = [value for name, value in fields if name == b"key"]
    algorithms = [value for name, value in fields if name == b"algorithm"] or [b"HMAC_SHA1"]
    if len(keys) != 1 or len(algorithms) != 1:
        return None
    return keys[0], algorithms[0].upper()


def _signed_parameters(form: Sequence[tuple[str, str]]) -> bytes | None:
    """The parameters as signed, None when they hold a surrogate that never was a byte.

    Python sorts text by code point, which is the byte order of its UTF-8, except for surrogates:
    with those among them, the bytes themselves are sorted.
    """
    values = dict(form)
    try:
        if len(values) == len(form):
            # Names alone are sorted in half the time.
            return "".join([name + values[name] for name in sorted(values)]).encode()
        return "".join(chain.from_iterable(sorted(set(form)))).encode()
    except UnicodeEncodeError:
        pass
    try:
        pairs = {
            (name.encode("utf-8", "surrogateescape"), value.encode("utf-8", "surrogateescape"))
            for name, value in form
        }
    except UnicodeEncodeError:
        return None
    return b"".join(chain.from_iterable(sorted(pairs)))


def _query_spellings(query: bytes) -> Iterable[bytes]:
    if b"'" not in query and b"%27" not in query:
        return (query,)
    return dict.fromkeys((query, query.replace(b"'", b"%27"), query.replace(b"%27", b"'")))


def _digest_matches(query: bytes, body: bytes) -> bool:
    """Whether ``bodySHA256`` stands once in the query and is the body's lowercase hex SHA-256.

    An empty body needs none, but one that stands there must match all the same: otherwise a signed
    request could be sent again with its body left out.
    """
    marker = b"bodySHA256="
    digests = [
        field.removeprefix(marker) for field in query.split(b"&") if field.startswith(marker)
    ]
    if not digests:
        return not body
    return len(digests) == 1 and hmac.compare_digest(digests[0], sha256(body).hexdigest().encode())
