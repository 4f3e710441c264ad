"""Files from Twilio: nothing that a hostile host could do with those who fetch them."""

import asyncio
import ipaddress

import pytest
from yarl import URL

from services.common.errors import UnavailableError
from services.messaging.domain.public_address import is_public
from services.messaging.ports.media import MediaUnobtainableError
from services.messaging.providers.guarded_http import GuardedHttp
from tests.support.files import source
from tests.support.hostile import (
    Answer,
    Hostile,
    endless,
    file,
    garbage,
    head,
    hostile,
    sends_to,
    slow_body,
    status,
)


async def too_large(host: Hostile, writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", "Content-Length: 1001"))


async def compressed(host: Hostile, writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", "Content-Encoding: gzip", "Content-Length: 4") + b"data")


async def cut(host: Hostile, writer: asyncio.StreamWriter) -> None:
    writer.write(head("200 OK", "Content-Length: 1000") + b"data")


async def test_credentials_do_not_follow_a_redirect() -> None:
    """The API gets the credentials, the host it redirects to gets none, even on one machine."""
    async with (
        hostile(file) as other,
        hostile(sends_to(f"{other.base_url}/a%2Fb?c=%7e")) as twilio,
    ):
        found = await source(twilio.base_url).fetch(f"{twilio.base_url}/file")
    assert (found.content, found.content_type) == (b"data", "image/png")
    assert "authorization: basic" in twilio.requests[0].lower()
    assert "authorization" not in other.requests[0].lower()
    # A signed address must arrive as it was written.
    assert other.requests[0].startswith("GET /a%2Fb?c=%7e HTTP/1.1")
    # Nor to the same host.
    async with hostile(sends_to("{here}/again")) as itself:
        with pytest.raises(MediaUnobtainableError, match="more than once"):
            await source(itself.base_url).fetch(f"{itself.base_url}/file")
    assert "authorization" not in itself.requests[1].lower()
    assert len(itself.requests) == 2


@pytest.mark.parametrize(
    ("location", "why"),
    [
        ("http://10.0.0.1/", "private network"),
        ("https://192.168.1.1/", "private network"),
        ("https://169.254.169.254/latest/meta-data/", "private network"),
        ("https://[fd00::1]/", "private network"),
        ("https://[fe80::1]/", "private network"),
        ("https://[::ffff:10.0.0.1]/", "private network"),
        ("https://[::ffff:7f00:1]/", "private network"),
        ("https://[64:ff9b::a00:1]/", "private network"),
        ("https://[2002:7f00:1::]/", "private network"),
        ("https://0.0.0.0/", "private network"),
        ("https://0/", "private network|malformed"),
        ("http://8.8.8.8/", "not https"),
        ("file:///etc/passwd", "neither https"),
        ("ftp://example.com/", "neither https|not https"),
        ("gopher://127.0.0.1/", "neither https|not https"),
        ("https://user:secret@example.com/", "credentials"),
        ("", "malformed"),
        ("https://[::1/", "malformed"),
        ("https://exa mple.com/", "malformed"),
    ],
)
async def test_a_redirect_into_a_network_of_ours_is_refused(location: str, why: str) -> None:
    """No connection is made to an address that isn't public, however it is written."""
    async with hostile(sends_to(location)) as twilio:
        with pytest.raises(MediaUnobtainableError, match=why):
            await source(twilio.base_url).fetch(f"{twilio.base_url}/file")
    assert len(twilio.requests) == 1


@pytest.mark.parametrize(
    "url",
    [
        "file:///etc/passwd",
        "https://example.com/file",
        "https://twilio.com.example.com/file",
        "https://eviltwilio.com/file",
        "http://api.twilio.com/file",
        "https://api.twilio.com:8443/file",
        "https://user:pass@api.twilio.com/file",
        "https://api.twilio.com@127.0.0.1/file",
        "http://127.0.0.1:1/file",
        "//api.twilio.com/file",
        "https://api.twilio.com\\@127.0.0.1/",
        "https://api.twilio.com/\r\nX: y",
        "",
        "x" * 5000,
    ],
)
async def test_only_addresses_of_twilio_are_asked(url: str) -> None:
    """An address in a webhook that isn't Twilio's, or the sandbox's, is never asked."""
    async with hostile(file) as twilio:
        with pytest.raises(MediaUnobtainableError, match=r"not one of Twilio's|malformed"):
            await source(twilio.base_url).fetch(url)
    assert twilio.requests == []


async def test_this_machine_is_asked_only_when_twilio_is_here() -> None:
    """With the real Twilio an address on this machine is refused like any other private one."""
    async with hostile(file) as here:
        with pytest.raises(MediaUnobtainableError, match="not one of Twilio's"):
            await source("https://api.twilio.com").fetch(f"{here.base_url}/file")
        # A name under twilio.com that leads here would be somebody's forged DNS.
        real = GuardedHttp(local=False)
        for address in (here.base_url, "https://localhost/", "https://127.0.0.1:443/"):
            with pytest.raises(MediaUnobtainableError, match="private network"):
                async with real.ask("GET", URL(address)):
                    pass
    assert here.requests == []


@pytest.mark.parametrize(
    ("answer", "error", "why"),
    [
        (too_large, MediaUnobtainableError, "larger than 1000 bytes"),
        (endless, MediaUnobtainableError, "larger than 1000 bytes"),
        (compressed, MediaUnobtainableError, "compressed"),
        (status("410 Gone"), MediaUnobtainableError, "HTTP 410"),
        (status("204 No Content"), MediaUnobtainableError, "HTTP 204"),
        (status("404 Not Found"), UnavailableError, "HTTP 404"),
        (status("401 Unauthorized"), UnavailableError, "HTTP 401"),
        (status("503 Service Unavailable"), UnavailableError, "HTTP 503"),
        (slow_body, UnavailableError, "in time"),
        (cut, UnavailableError, "its host broke off"),
        (garbage, UnavailableError, "no proper HTTP"),
    ],
)
async def test_a_bad_answer_has_an_end(answer: Answer, error: type[Exception], why: str) -> None:
    """Whatever is answered, fetching ends in time and says whether to try again."""
    async with hostile(answer) as twilio:
        fetcher = source(twilio.base_url, max_bytes=1000, timeout_seconds=1)
        with pytest.raises(error, match=why):
            await fetcher.fetch(f"{twilio.base_url}/file")


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b:1::808:808", False),
        ("::ffff:8.8.8.8", False),
        ("::ffff:127.0.0.1", False),
        ("::127.0.0.1", False),
        ("::1", False),
        ("::", False),
        ("fec0::1", False),
        ("fc00::1", False),
        ("fe80::1", False),
        ("ff02::1", False),
        ("2001:db8::1", False),
        ("2001::1", False),
        ("2002:a00:1::1", False),
        ("100.64.0.1", False),
        ("127.0.0.1", False),
        ("169.254.169.254", False),
        ("172.16.0.1", False),
        ("192.0.2.1", False),
        ("198.18.0.1", False),
        ("224.0.0.1", False),
        ("240.0.0.1", False),
        ("255.255.255.255", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    """Only ordinary addresses of the public internet pass, in every way of writing them."""
    assert is_public(ipaddress.ip_address(address)) is public
