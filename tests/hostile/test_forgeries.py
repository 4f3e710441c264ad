"""Forged webhooks over a socket: none is accepted, however the forger goes about it."""

import gzip
import hmac
import json
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from urllib.parse import urlencode

from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from tests.support.attacks import Attacks
from tests.support.edge import FORM, INCOMING, PUBLIC_HOST, STATUS, TOKEN, Edge, message, stored
from tests.support.nats import NatsServer
from tests.support.raw_http import Header, Raw, connected, signed

Form = list[tuple[str, str]]

SHARED = "a-shared-secret"
SETTINGS = b"X-Twilio-Webhooks-Signature-Settings"


def sign(url: str, form: Form = (), key: str = TOKEN, algorithm: str = "sha1") -> bytes:  # type: ignore[assignment] # Empty.
    """Twilio's signature with everything at the forger's choice."""
    text = url + "".join(name + value for name, value in sorted(set(form)))
    return b64encode(hmac.digest(key.encode(), text.encode(), algorithm))


def request(
    form: Form | bytes,
    *signatures: bytes,
    target: str = INCOMING,
    more: tuple[Header, ...] = (),
    kind: bytes = FORM.encode(),
) -> Raw:
    body = form if isinstance(form, bytes) else urlencode(form).encode()
    headers = [(b"Content-Type", kind), *((b"X-Twilio-Signature", one) for one in signatures)]
    return Raw(target.encode(), [*headers, *more], body)


@dataclass(frozen=True)
class Seen:
    """A good webhook that a forger has seen; of the key only that it isn't known."""

    form: Form
    draw: st.DrawFn

    @property
    def good(self) -> bytes:
        return sign(PUBLIC_HOST + INCOMING, self.form)

    def among(self) -> int:
        return self.draw(st.integers(0, len(self.form) - 1))

    def changed(self, at: int, *instead: tuple[str, str]) -> Raw:
        form = [*self.form[:at], *instead, *self.form[at + 1 :]]
        text = "".join(name + value for name, value in sorted(set(form)))
        # Twilio signs names and values without a mark between: the same text is the same request.
        assume(text != "".join(name + value for name, value in sorted(set(self.form))))
        return request(form, self.good)


texts = st.text(st.characters(codec="utf-8"), max_size=12)


def another_key(seen: Seen) -> Raw:
    key = seen.draw(
        st.sampled_from(["", " ", TOKEN[:-1], TOKEN + "\0x", TOKEN.upper(), SHARED]) | texts
    )
    assume(key.rstrip("\0") != TOKEN)  # HMAC pads a key with NUL.
    return request(seen.form, sign(PUBLIC_HOST + INCOMING, seen.form, key))


def another_url(seen: Seen) -> Raw:
    url = seen.draw(
        st.sampled_from(
            [
                "https://evil.example.com" + INCOMING,
                "http://switchboard.example.com" + INCOMING,
                PUBLIC_HOST + ":8443" + INCOMING,
                PUBLIC_HOST + STATUS,
                PUBLIC_HOST + INCOMING + "/",
                PUBLIC_HOST + INCOMING + "?",
                PUBLIC_HOST + INCOMING + "?a=b",
                PUBLIC_HOST + "/" + INCOMING,
                PUBLIC_HOST.upper() + INCOMING,
                PUBLIC_HOST + ".:443" + INCOMING,
                INCOMING,
                "",
            ]
        )
    )
    return request(seen.form, sign(url, seen.form))


def another_target(seen: Seen) -> Raw:
    target = seen.draw(
        st.sampled_from(
            [
                INCOMING + "?" + urlencode(seen.form),
                INCOMING + "?MessageSid=SMother",
                INCOMING + "?bodySHA256=" + sha256(urlencode(seen.form).encode()).hexdigest(),
                INCOMING.replace("incoming", "%69ncoming"),
                INCOMING.replace("/whatsapp", "//whatsapp"),
                STATUS,
                "/webhook/incoming_call",
                "/webhook/handle_recording?turn=1",
                "http://evil.example.com" + STATUS,
            ]
        )
    )
    return request(seen.form, seen.good, target=target)


def swapped(seen: Seen) -> Raw:
    one, other = seen.among(), seen.among()
    (name, value), (second, another) = seen.form[one], seen.form[other]
    form = [*seen.form]
    form[one], form[other] = (name, another), (second, value)
    assume(set(form) != set(seen.form))
    return request(form, seen.good)


def repeated(seen: Seen) -> Raw:
    at = seen.among()
    name, value = seen.form[at]
    return seen.changed(at, (name, seen.draw(texts) + "x"), (name, value))


def added(seen: Seen) -> Raw:
    at = seen.among()
    return seen.changed(at, seen.form[at], (seen.draw(texts), seen.draw(texts)))


def removed(seen: Seen) -> Raw:
    return seen.changed(seen.among())


def case_changed(seen: Seen) -> Raw:
    at = seen.among()
    name, value = seen.form[at]
    return seen.changed(at, (name.swapcase(), value))


def value_changed(seen: Seen) -> Raw:
    at = seen.among()
    name, value = seen.form[at]
    other = seen.draw(st.sampled_from([value + " ", value.swapcase(), value + "\0", ""]) | texts)
    return seen.changed(at, (name, other))


def algorithms(seen: Seen) -> Raw:
    """What is signed is signed well; what is said about it isn't true."""
    url = PUBLIC_HOST + INCOMING
    made_with, said = seen.draw(
        st.sampled_from(
            [
                (("wrong", "sha256"), b"key=shared,algorithm=HMAC_SHA256"),
                ((TOKEN, "sha256"), b""),
                ((TOKEN, "sha256"), b"key=shared,algorithm=HMAC_SHA256"),
                ((TOKEN, "sha1"), b"key=shared"),
                ((TOKEN, "sha1"), b"key=unknown"),
                ((TOKEN, "sha1"), b"algorithm=HMAC_SHA1"),
                ((TOKEN, "sha1"), b"key="),
                ((TOKEN, "sha1"), b","),
                ((SHARED, "sha1"), b""),
                ((SHARED, "sha1"), b"key=shared,algorithm=HMAC_SHA256"),
                ((SHARED, "sha256"), b"key=shared"),
                ((SHARED, "md5"), b"key=shared,algorithm=HMAC_MD5"),
                ((SHARED, "sha512"), b"key=shared,algorithm=HMAC_SHA512"),
                ((SHARED, "sha256"), b"key=shared,algorithm=none"),
                ((SHARED, "sha256"), b"key=shared,algorithm="),
                ((SHARED, "sha256"), b"key=SHARED,algorithm=HMAC_SHA256"),
                ((SHARED, "sha256"), b"key=shared,key=other,algorithm=HMAC_SHA256"),
                ((SHARED, "sha256"), b"key=shared,algorithm=HMAC_SHA256,algorithm=HMAC_SHA1"),
                ((SHARED, "sha256"), b"key=shared;algorithm=HMAC_SHA256"),
                ((SHARED, "sha256"), b'{"key": "shared", "algorithm": "HMAC_SHA256"}'),
                (("", "sha256"), b"key=,algorithm=HMAC_SHA256"),
            ]
        )
    )
    more = ((SETTINGS, said),) if said else ()
    return request(seen.form, sign(url, seen.form, *made_with), more=more)


def two_settings(seen: Seen) -> Raw:
    first, second = seen.draw(
        st.permutations([b"key=shared,algorithm=HMAC_SHA256", b"", b"key=other"]).map(
            lambda three: three[:2]
        )
    )
    made = sign(PUBLIC_HOST + INCOMING, seen.form, SHARED, "sha256")
    return request(seen.form, made, more=((SETTINGS, first), (SETTINGS, second)))


def misspelt(seen: Seen) -> Raw:
    """The right signature, written as Twilio never does."""
    digest = hmac.digest(TOKEN.encode(), (PUBLIC_HOST + INCOMING).encode(), "sha1")
    good = seen.good
    return request(
        seen.form,
        seen.draw(
            st.sampled_from(
                [
                    b"",
                    b"=",
                    good.rstrip(b"="),
                    good + b"=",
                    good[:-1] + b"\xff",
                    good.swapcase(),
                    good + b"," + good,
                    b'"' + good + b'"',
                    b"sha1=" + good,
                    good[:14] + b" " + good[14:],
                    digest.hex().encode(),
                    urlsafe_b64encode(b"\xff" * 20),
                    b"A" * 60_000,
                    good * 2000,
                    b"\0"[:0] + b"null",
                    b"true",
                    b"*",
                ]
            )
        ),
    )


def two_signatures(seen: Seen) -> Raw:
    return request(seen.form, *seen.draw(st.permutations([seen.good, b"A" * 28])))


def folded(seen: Seen) -> Raw:
    fold = seen.draw(st.sampled_from([b"\r\n ", b"\r\n\t", b"\n ", b"\r", b"\n"]))
    return request(seen.form, b"A" * 28 + fold + seen.good)


def elsewhere(seen: Seen) -> Raw:
    """The right signature where none is looked for."""
    good = seen.good
    place = seen.draw(st.integers(0, 5))
    more: list[tuple[Header, ...]] = [
        ((b"X_Twilio_Signature", good),),
        ((b"X-Twilio-Signature2", good),),
        ((b"Cookie", b"X-Twilio-Signature=" + good),),
        ((b"Authorization", b"Bearer " + good),),
        ((b"X-Original-X-Twilio-Signature", good),),
        ((b"Connection", b"X-Twilio-Signature"),),
    ]
    return request(seen.form, more=more[place])


def digests(seen: Seen) -> Raw:
    """A body under a digest, with nothing of it among the signed parameters."""
    body = seen.draw(st.sampled_from([b"&&&", b"&", b"", urlencode(seen.form).encode()]))
    other = sha256(body).hexdigest()
    empty = sha256(b"").hexdigest()
    query = seen.draw(
        st.sampled_from(
            [
                f"bodySHA256={empty}" if body else f"bodySHA256={sha256(b'x').hexdigest()}",
                f"bodySHA256={other.upper()}" if body else "bodySHA256=",
                f"bodySHA256={other}&bodySHA256={empty}",
                f"bodySHA256={empty}&bodySHA256={other}",
                f"bodysha256={other}",
                f"xbodySHA256={other}",
                f"body%53HA256={other}",
                f"bodySHA256={other}0",
                f"bodySHA256={other[:-1]}",
                f"a=b;bodySHA256={other}",
                f"bodySHA256=%{ord(other[0]):x}{other[1:]}",
                "bodySHA256",
            ]
        )
    )
    target = f"{INCOMING}?{query}"
    return request(body, sign(PUBLIC_HOST + target), target=target)


def other_bodies(seen: Seen) -> Raw:
    """The right parameters in a body that is no form, or says so."""
    form = urlencode(seen.form).encode()
    kind, body = seen.draw(
        st.sampled_from(
            [
                (b"application/json", json.dumps(dict(seen.form)).encode()),
                (FORM.encode(), json.dumps(dict(seen.form)).encode()),
                (b"multipart/form-data; boundary=x", b"--x\r\n\r\n" + form + b"\r\n--x--"),
                (FORM.encode() + b"; boundary=x", b"--x\r\n\r\n" + form + b"\r\n--x--"),
                (b"text/plain", form),
                (b"", form),
                (b"application/xml", form),
                (b"application/x-www-form-urlencoded-2", form),
                (FORM.encode() + b"; charset=utf-16", form.decode().encode("utf-16")),
                (FORM.encode() + b"; charset=utf-7", form.decode().encode("utf-16-le")),
                (FORM.encode(), form.replace(b"&", b";")),
                (FORM.encode(), b"\xef\xbb\xbf" + form),
                (FORM.encode(), form.replace(b"=", b"%3D")),
                (FORM.encode(), form + b"\r\n"),
                (FORM.encode(), form.replace(b"%", b"%25")),
                (FORM.encode(), gzip.compress(form)),
            ]
        )
    )
    more = ((b"Content-Encoding", b"gzip"),) if body[:2] == b"\x1f\x8b" else ()
    return request(body, seen.good, kind=kind, more=more)


def spoofed(seen: Seen) -> Raw:
    """Headers that tell another address, sender or method, with a signature that fits them."""
    evil = "https://evil.example.com"
    header, url = seen.draw(
        st.sampled_from(
            [
                ((b"Host", b"evil.example.com"), evil + INCOMING),
                ((b"X-Forwarded-Host", b"evil.example.com"), evil + INCOMING),
                ((b"Forwarded", b"host=evil.example.com;proto=https"), evil + INCOMING),
                ((b"X-Forwarded-Proto", b"http"), f"http://switchboard.example.com{INCOMING}"),
                ((b"X-Forwarded-Port", b"8443"), f"{PUBLIC_HOST}:8443{INCOMING}"),
                ((b"X-Forwarded-Prefix", b"/a"), f"{PUBLIC_HOST}/a{INCOMING}"),
                ((b"X-Original-URL", b"/healthz"), f"{PUBLIC_HOST}/healthz"),
                ((b"X-Rewrite-URL", STATUS.encode()), PUBLIC_HOST + STATUS),
                ((b"X-Forwarded-For", b"127.0.0.1, ::1"), "http://127.0.0.1" + INCOMING),
                ((b"X-HTTP-Method-Override", b"PUT"), evil + INCOMING),
            ]
        )
    )
    # Without the key it can't be signed; with another key it may be signed well.
    key = seen.draw(st.sampled_from([TOKEN, "another"]))
    return request(seen.form, sign(url, seen.form, key), more=(header,))


KINDS: list[Callable[[Seen], Raw]] = [
    another_key,
    another_url,
    another_target,
    swapped,
    repeated,
    added,
    removed,
    case_changed,
    value_changed,
    algorithms,
    two_settings,
    misspelt,
    two_signatures,
    folded,
    elsewhere,
    digests,
    other_bodies,
    spoofed,
]


def forged(kind: Callable[[Seen], Raw]) -> list[Raw]:
    """Some forgeries of one kind."""
    found: list[Raw] = []

    @st.composite
    def forgeries(draw: st.DrawFn) -> Raw:
        more = draw(st.lists(st.tuples(texts.filter(bool), texts), max_size=2))
        return kind(Seen([*message("SMseen").items(), *more], draw))

    @settings(deadline=None, max_examples=20, suppress_health_check=list(HealthCheck))
    @given(forgeries())
    def find(forgery: Raw) -> None:
        found.append(forgery)

    find()
    return found


async def test_no_forgery_is_accepted(
    edge: Edge, nats_server: NatsServer, attacks: Attacks
) -> None:
    """Whatever is changed in a good webhook, or made up: an error of the sender, and no event."""
    for kind in KINDS:
        name = f"forgery: {kind.__name__.replace('_', ' ')}"
        for raw in forged(kind):
            async with connected(edge.port) as connection:
                status = await connection.ask(raw.encoded())
            attacks.count(name, through=not 400 <= status < 500, evidence=(status, raw))
    assert await stored(nats_server.url) == []
    async with connected(edge.port) as connection:
        assert await connection.ask(signed("SMgood").encoded()) == 200
