"""Addresses that would have us ask our own network, however they are written or resolved."""

import asyncio
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from yarl import URL

from services.common.errors import UnavailableError
from services.messaging.ports.media import MediaUnobtainableError
from services.messaging.providers.guarded_http import GuardedHttp
from services.messaging.providers.media_inspector import HttpMediaInspector
from tests.support.attacks import Attacks
from tests.support.hostile import file, hostile

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
