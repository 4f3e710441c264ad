"""The signature verifier over generated requests: beside Twilio's SDK, mutated, and malformed."""

import base64
import hmac
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from urllib.parse import parse_qsl, quote_from_bytes, urlencode

from hypothesis import assume, given, settings
from hypothesis import strategies as st
from twilio.request_validator import (  # type: ignore[import-untyped] # twilio has no py.typed
    RequestValidator,
)

from services.webhook.signature import SignatureResult, SignatureVerifier, parse_form

# The machine may be busy, and none of this is about time.
untimed = settings(deadline=None)

Form = list[tuple[str, str]]

verifier = SignatureVerifier("https://example.com", ["token"], {"shared": "secret"})


class Parameters:
    """A form as web frameworks hand it to the SDK: names, each with a list of values."""

    def __init__(self, form: Form) -> None:
        self._form = form

    def __iter__(self) -> Iterator[str]:
        return (name for name, _ in self._form)

    def __len__(self) -> int:
        return len(self._form)

    def getlist(self, name: str) -> list[str]:
        return [value for key, value in self._form if key == name]


@dataclass(frozen=True, kw_only=True)
class Request:
    """A signed request and the key it was signed with."""

    origin: str
    path: bytes
    query: bytes
    form: Form
    body: bytes
    key: str
    algorithm: str
    """Empty for an auth token, else the algorithm of a SharedKey."""
    signature: bytes = b""

    def url(self) -> str:
        target = self.path + b"?" + self.query if self.query else self.path
        return self.origin + target.decode()

    def signed(self) -> "Request":
        sdk = RequestValidator(self.key)
        parameters = Parameters(self.form)
        signature = sdk.compute_signature(self.url(), parameters, self.algorithm)
        return replace(self, signature=signature.encode())

    def verify(self) -> SignatureResult:
        headers = [(b"x-twilio-signature", self.signature)]
        if self.algorithm:
            named = f"key=shared,algorithm={self.algorithm}".encode()
            headers.append((b"x-twilio-webhooks-signature-settings", named))
            verifier = SignatureVerifier(self.origin, ["another"], {"shared": self.key})
        else:
            verifier = SignatureVerifier(self.origin, ["another", self.key], {})
        return verifier.verify(
            raw_path=self.path,
            raw_query=self.query,
            headers=headers,
            form=self.form,
            body=self.body,
        )


hosts = st.from_regex(r"[a-zA-Z][a-zA-Z0-9-]{0,9}\.(com|example)", fullmatch=True)
ports = st.one_of(st.just(""), st.integers(1, 65535).map(lambda port: f":{port}"))
origins = st.builds("{}://{}{}".format, st.sampled_from(["https", "http"]), hosts, ports)
# The userinfo that the SDK gets right is the one without a port.
origins |= st.builds("https://{}:{}@{}".format, st.just("user"), st.just("pw"), hosts)
paths = st.from_regex(rb"/[a-zA-Z0-9._~%-][a-zA-Z0-9/._~%-]{0,20}", fullmatch=True)
# Without a quote: the SDK knows only one of its two spellings.
queries = st.from_regex(rb"([a-z]{1,5}=[a-zA-Z0-9.+_-]{0,8}(&|\Z)){0,3}", fullmatch=True)
texts = st.text(max_size=12)
# Few names and values, so that repeats are many, and any text at all.
pairs = st.tuples(st.sampled_from(["Body", "From", "a", "A", ""]) | texts, texts)
pairs |= st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(["", "x", "xx"]))
forms = st.lists(pairs, max_size=8)
keys = st.from_regex(r"[A-Za-z0-9]{1,80}", fullmatch=True)
algorithms = st.sampled_from(["", "HMAC_SHA1", "HMAC_SHA256"])
form_requests = st.builds(
    Request,
    origin=origins,
    path=paths,
    query=queries,
    form=forms,
    body=st.just(b""),
    key=keys,
    algorithm=algorithms,
).map(Request.signed)


def with_digest(request: Request, body: bytes) -> Request:
    digest = b"bodySHA256=" + sha256(body).hexdigest().encode()
    query = b"&".join(filter(None, [request.query.rstrip(b"&"), digest]))
    return replace(request, form=[], body=body, query=query).signed()


json_requests = st.builds(
    with_digest, form_requests, st.text(min_size=1, max_size=40).map(str.encode)
)
requests = form_requests | json_requests


@st.composite
def mutated(draw: st.DrawFn, original: bytes) -> bytes:
    """The original with one byte replaced, taken out or put in."""
    kind = draw(st.sampled_from(["replace", "insert", "delete"] if original else ["insert"]))
    at = draw(st.integers(0, len(original) - (kind != "insert")))
    new = b"" if kind == "delete" else bytes([draw(st.integers(0, 255))])
    result = original[:at] + new + original[at + (kind != "insert") :]
    assume(result != original)
    return result


@untimed
@given(requests)
def test_what_the_sdk_signs_is_valid(request: Request) -> None:
    """A request signed by Twilio's SDK is valid, form or JSON, under either kind of key."""
    assert request.verify() is SignatureResult.VALID


@untimed
@given(requests, st.data())
def test_agrees_with_the_sdk(request: Request, data: st.DataObject) -> None:
    """On requests of which any part may be another request's, both say the same."""
    other = data.draw(requests | st.just(request))
    parts = ["origin", "path", "query", "form", "body", "key", "algorithm", "signature"]
    taken = data.draw(st.lists(st.sampled_from(parts), max_size=3))
    mixed = replace(request, **{part: getattr(other, part) for part in taken})
    # Form parameters and another kind of body don't come in one request.
    assume(not (mixed.form and mixed.body))
    if not mixed.form:
        # Given a body the SDK raises without a digest, and given none it doesn't look for one.
        assume((b"bodySHA256" in mixed.query) == bool(mixed.body))
    parameters = mixed.body.decode() or Parameters(mixed.form)
    sdk = RequestValidator(mixed.key)
    expected = sdk.validate(mixed.url(), parameters, mixed.signature.decode(), mixed.algorithm)
    assert (mixed.verify() is SignatureResult.VALID) == expected


@untimed
@given(requests, st.data())
def test_default_and_absent_ports(request: Request, data: st.DataObject) -> None:
    """What was signed without a port, or with the default one, is valid under either origin."""
    bare = data.draw(hosts)
    scheme, port = data.draw(st.sampled_from([("https", ":443"), ("http", ":80")]))
    signed_as, configured_as = data.draw(st.sampled_from([("", port), (port, ""), (port, port)]))
    signed = replace(request, origin=f"{scheme}://{bare}{signed_as}").signed()
    received = replace(signed, origin=f"{scheme}://{bare}{configured_as}")
    assert received.verify() is SignatureResult.VALID


@untimed
@given(form_requests, st.data())
def test_order_and_repeats_do_not_count(request: Request, data: st.DataObject) -> None:
    """The same parameters in another order, or one of them twice, are the same request."""
    form = data.draw(st.permutations(request.form))
    if form:
        form = [*form, data.draw(st.sampled_from(form))]
    assert replace(request, form=form).verify() is SignatureResult.VALID


@untimed
@given(requests, st.sampled_from(["path", "query", "body", "signature"]), st.data())
def test_one_changed_byte_is_refused(request: Request, part: str, data: st.DataObject) -> None:
    """One byte changed, added or lost in the target, the body or the signature is refused."""
    # The body of a form is its parameters.
    assume(part != "body" or not request.form)
    changed: dict[str, Any] = {part: data.draw(mutated(getattr(request, part)))}
    assert replace(request, **changed).verify() is SignatureResult.INVALID


@untimed
@given(form_requests.filter(lambda request: bool(request.form)), st.data())
def test_one_changed_parameter_is_refused(request: Request, data: st.DataObject) -> None:
    """One byte changed, added or lost in a parameter's name or value is refused."""
    at = data.draw(st.integers(0, len(request.form) - 1))
    which = data.draw(st.integers(0, 1))
    pair = list(request.form[at])
    changed = data.draw(mutated(pair[which].encode()))
    pair[which] = changed.decode("utf-8", "surrogateescape")
    form = [*request.form[:at], (pair[0], pair[1]), *request.form[at + 1 :]]
    # Twilio signs what is distinct, and a parameter that is empty altogether adds nothing.
    assume(set(form) - {("", "")} != set(request.form) - {("", "")})
    assert replace(request, form=form).verify() is SignatureResult.INVALID


@untimed
@given(requests, st.data())
def test_one_changed_byte_of_the_key_is_refused(request: Request, data: st.DataObject) -> None:
    """A key that differs in one character, or an origin in its host, verifies nothing."""
    at = data.draw(st.integers(0, len(request.key) - 1))
    letter = data.draw(st.sampled_from("abcXYZ019").filter(lambda new: new != request.key[at]))
    key = request.key[:at] + letter + request.key[at + 1 :]
    assume(key != "another")
    assert replace(request, key=key).verify() is SignatureResult.INVALID
    origin = request.origin.replace(".", "x.")
    assert replace(request, origin=origin).verify() is SignatureResult.INVALID


@untimed
@given(form_requests)
def test_an_encoded_form_comes_back_as_signed(request: Request) -> None:
    """What a client encodes and `parse_form` decodes is what was signed."""
    body = urlencode(request.form).encode()
    form = parse_form(body, max_parameters=100)
    assert form == request.form
    assert replace(request, form=form, body=body).verify() is SignatureResult.VALID


@untimed
@given(st.lists(st.tuples(st.binary(max_size=6), st.binary(max_size=6), st.booleans()), max_size=6))
def test_every_byte_of_a_form_survives(fields: list[tuple[bytes, bytes, bool]]) -> None:
    """Names and values of any bytes, escaped or as bare as they may be, are verified as bytes."""

    def encoded(part: bytes, escaped: bool) -> bytes:
        if escaped:
            return quote_from_bytes(part).encode()
        return re.sub(rb"[%&+=]", lambda special: b"%%%02X" % special[0][0], part)

    body = b"&".join(
        encoded(name, escaped) + b"=" + encoded(value, escaped) for name, value, escaped in fields
    )
    form = parse_form(body, max_parameters=100)
    # The SDK can't sign what isn't UTF-8.
    signed = b"https://example.com/" + b"".join(
        name + value for name, value in sorted({(name, value) for name, value, _ in fields})
    )
    signature = base64.b64encode(hmac.digest(b"token", signed, "sha1"))
    headers = [(b"x-twilio-signature", signature)]
    result = verifier.verify(raw_path=b"/", raw_query=b"", headers=headers, form=form, body=body)
    assert result is SignatureResult.VALID


any_text = st.text(st.characters(exclude_categories=()), max_size=8)
header_names = st.sampled_from([b"x-twilio-signature", b"x-twilio-webhooks-signature-settings"])
settings_values = st.lists(
    st.sampled_from([b"key=", b"shared", b"algorithm=", b"HMAC_SHA256", b",", b"=", b" ", b"\xff"])
).map(b"".join)
any_headers = st.lists(
    st.tuples(header_names | st.binary(max_size=8), settings_values | st.binary(max_size=40)),
    max_size=4,
)


@untimed
@given(
    raw_path=st.binary(max_size=20),
    raw_query=st.binary(max_size=20)
    | st.binary(max_size=20).map(lambda rest: b"bodySHA256=" + rest),
    headers=any_headers,
    form=st.lists(st.tuples(any_text, any_text), max_size=4),
    body=st.binary(max_size=20),
    websocket=st.booleans(),
)
def test_nothing_raises(
    raw_path: bytes,
    raw_query: bytes,
    headers: list[tuple[bytes, bytes]],
    form: Form,
    body: bytes,
    websocket: bool,
) -> None:
    """Whatever bytes a stranger sends get an answer, and never a yes."""
    result = verifier.verify(
        raw_path=raw_path,
        raw_query=raw_query,
        headers=headers,
        form=form,
        body=body,
        websocket=websocket,
    )
    signed = any(name == b"x-twilio-signature" for name, _ in headers)
    assert result is (SignatureResult.INVALID if signed else SignatureResult.MISSING)


@untimed
@given(st.binary(max_size=60) | st.lists(st.sampled_from(b"a=&%+;\xff\xd7C3")).map(bytes))
def test_any_body_parses(body: bytes) -> None:
    """Any bytes can be read as a form, and then verified, without an exception."""
    form = parse_form(body, max_parameters=100)
    headers = [(b"x-twilio-signature", b"A" * 28)]
    result = verifier.verify(raw_path=b"/", raw_query=b"", headers=headers, form=form, body=body)
    assert result is SignatureResult.INVALID


@untimed
@given(st.text(alphabet="%%%01aAfFg=&+\0\1\r\n x_é", max_size=40))
def test_a_form_is_read_as_the_standard_library_reads_it(body: str) -> None:
    """Broken escapes, line ends and second equal signs included."""
    expected = parse_qsl(body, keep_blank_values=True, errors="surrogateescape")
    assert parse_form(body.encode(), max_parameters=100) == expected
