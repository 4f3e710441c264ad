"""Addresses that would have us ask our own network, however they are written or resolved."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from pydantic import SecretStr
from yarl import URL

from services.common.errors import UnavailableError
from services.messaging.ports.media import MediaUnobtainableError
from services.messaging.ports.speech import RecordingRefusedError
from services.messaging.providers.guarded_http import GuardedHttp
from services.messaging.providers.media_inspector import HttpMediaInspector
from services.messaging.providers.twilio.media import TwilioMedia
from services.messaging.providers.twilio.recordings import TwilioRecordings
from tests.support.attacks import Attacks
from tests.support.hostile import Hostile, file, hostile, sends_to

WRITTEN = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "0x7f000001",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.1",
    "127.000.000.001",
    "127.0.0.1.",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "localhost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "[::1%25lo]",
    "127。0。0。1",
    "１２７.0.0.1",  # noqa: RUF001 - Full-width digits.
    "①②⑦.0.0.1",
    "127.0.0.1%00.example.com",
    "127.0.0.1%2f",
    "10.0.0.1",
    "0xa9fea9fe",
    "2852039166",
    "169.254.169.254",
    "[fd00:ec2::254]",
]
PUBLIC, PRIVATE = "93.184.215.14", "127.0.0.1"


async def attempt(url: str) -> None:
    await HttpMediaInspector(timeout_seconds=2, local=False).inspect(url)


async def test_this_network_is_not_asked(attacks: Attacks) -> None:
    """In decimal, octal, hexadecimal, mapped, wrapped or other digits: no connection is made."""
    async with hostile(file) as here:
        port = here.base_url.rpartition(":")[2]
        for host in WRITTEN:
            for scheme in ("http", "https"):
                before = len(here.writers)
                with pytest.raises((MediaUnobtainableError, UnavailableError)):
                    await attempt(f"{scheme}://{host}:{port}/file")
                attacks.count("asking our network", through=len(here.writers) > before)


# Networks that are nobody's but ours, or no network at all, each wrapped in what can hold it.
INSIDE = [
    "10.1.2.3",
    "172.16.0.1",
    "192.168.0.1",
    "100.64.0.1",
    "169.254.169.254",
    "192.0.0.1",
    "198.18.0.1",
    "224.0.0.1",
    "240.0.0.1",
    "255.255.255.255",
]
LITERAL = ["[fe80::1]", "[fec0::1]", "[fd00::1]", "[ff02::1]", "[2001:db8::1]", "[100::1]"]


def spellings(address: str) -> Iterator[str]:
    """An IPv4 address as it is, as a number, and inside IPv6 ones."""
    whole = int(ipaddress.IPv4Address(address))
    high, low = f"{whole >> 16:x}", f"{whole & 0xFFFF:x}"
    yield from (address, str(whole), hex(whole), f"0{whole:o}")
    yield ".".join(f"0{int(part):o}" for part in address.split("."))
    for prefix in ("::", "::ffff:", "::ffff:0:", "64:ff9b::", "64:ff9b:1::"):
        yield f"[{prefix}{high}:{low}]"
    yield f"[2002:{high}:{low}::]"  # 6to4
    yield f"[2001:0:{high}:{low}::]"  # Teredo
    yield f"[2001::{whole >> 16 ^ 0xFFFF:x}:{whole & 0xFFFF ^ 0xFFFF:x}]"


LOCATIONS = [
    *(f"https://{spelt}/" for address in INSIDE for spelt in spellings(address)),
    *(f"https://{literal}/" for literal in LITERAL),
    "http://8.8.8.8/",
    "file:///etc/passwd",
    "gopher://10.0.0.1/",
    "//10.0.0.1/",
    "https://8.8.8.8@10.0.0.1/",
    "https://user:secret@8.8.8.8/",
    "https://10.0.0.1:8.8.8.8/",
    "https://10.0.0.1\\@8.8.8.8/",
    "https://10.0.0.1%2f@8.8.8.8/",
    "",
]


@asynccontextmanager
async def fetching(kind: str, base_url: str) -> AsyncIterator[Callable[[], Awaitable[object]]]:
    """One of those who ask addresses that others chose; it asks `base_url` first."""
    account, token = f"AC{0:032}", SecretStr("token")
    if kind == "files to send":
        inspector = HttpMediaInspector(timeout_seconds=5, local=True)
        yield lambda: inspector.inspect(f"{base_url}/file")
    elif kind == "files that came":
        media = TwilioMedia(account_sid=account, auth_token=token, base_url=base_url)
        yield lambda: media.fetch(f"{base_url}/file")
    else:
        recordings = TwilioRecordings(
            account_sid=account,
            auth_token=token,
            base_url=base_url,
            max_bytes=1000,
            timeout_seconds=5,
        )
        id_ = f"RE{0:032}"
        address = f"{base_url}/2010-04-01/Accounts/{account}/Recordings/{id_}"
        yield lambda: recordings.fetch(id_, address)
        await recordings.close()


@pytest.mark.parametrize("kind", ["files to send", "files that came", "recordings"])
async def test_no_redirect_leads_inside(
    monkeypatch: pytest.MonkeyPatch, attacks: Attacks, kind: str
) -> None:
    """Whoever is asked can't send us into a network of ours, in whatever spelling or wrapping."""
    loop = asyncio.get_running_loop()
    connect, connected = loop.sock_connect, []

    async def sock_connect(sock: socket.socket, address: Any) -> None:
        if address[0] != "127.0.0.1":
            connected.append(address[0])
            raise ConnectionRefusedError
        await connect(sock, address)

    monkeypatch.setattr(loop, "sock_connect", sock_connect)

    async def redirect(host: Hostile, writer: asyncio.StreamWriter) -> None:
        await sends_to(location)(host, writer)

    async with hostile(redirect) as here, fetching(kind, here.base_url) as fetch:
        for location in LOCATIONS:
            with pytest.raises((MediaUnobtainableError, UnavailableError, RecordingRefusedError)):
                await fetch()
            # Names like 0x0a010203 are asked of the resolver, which may know none of them.
            attacks.count(f"redirects inside: {kind}", through=bool(connected), evidence=location)
        assert len(here.requests) >= len(LOCATIONS)


class Dns:
    """A name server in a stranger's hand, and a network that leads nowhere."""

    def __init__(self, *answers: list[str]) -> None:
        self._answers: Iterator[list[str]] = iter(answers)
        self.asked = 0
        self.connected: list[str] = []

    async def getaddrinfo(self, host: str, port: int, **_: Any) -> list[Any]:
        self.asked += 1
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port))
            for address in next(self._answers)
        ]

    async def sock_connect(self, _: socket.socket, address: tuple[str, int]) -> None:
        self.connected.append(address[0])
        raise ConnectionRefusedError


@pytest.mark.parametrize(
    "answers",
    [
        ([PUBLIC], [PRIVATE], [PRIVATE]),
        ([PUBLIC, PRIVATE],),
        ([PRIVATE, PUBLIC],),
        ([PRIVATE],),
        ([],),
    ],
)
async def test_a_name_that_changes_leads_nowhere(
    monkeypatch: pytest.MonkeyPatch, attacks: Attacks, answers: tuple[list[str], ...]
) -> None:
    """The address that was checked is the one connected to, whatever the name says next."""
    dns = Dns(*answers)
    loop = asyncio.get_running_loop()
    monkeypatch.setattr(loop, "getaddrinfo", dns.getaddrinfo)
    monkeypatch.setattr(loop, "sock_connect", dns.sock_connect)
    with pytest.raises((MediaUnobtainableError, OSError)):
        async with GuardedHttp(local=False).ask("GET", URL("https://example.com/file")):
            pass
    attacks.count("DNS rebinding", through=PRIVATE in dns.connected, evidence=dns.connected)
    assert dns.asked == 1
    assert dns.connected == ([PUBLIC] if answers[0] == [PUBLIC] else [])
