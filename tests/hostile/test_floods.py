"""Too much of everything: who floods is limited, and nobody else notices."""

import asyncio
from pathlib import Path

import httpx

from tests.support.api import KEY, OTHER_KEY, PretendMessaging, running_api, served
from tests.support.attacks import Attacks
from tests.support.edge import FORM, INCOMING, Edge, journal_client, message, running_edge
from tests.support.nats import NatsServer
from tests.support.raw_http import connected, exchange, head, signed, statuses

LIST = "/api/whatsapp/messages"
SLOW = 100


async def test_slow_senders_keep_nobody_waiting(edge: Edge, attacks: Attacks) -> None:
    """A hundred bodies that never come hold up no other request, and end by themselves."""
    begun = head(
        b"POST " + INCOMING.encode() + b" HTTP/1.1",
        (b"Host", b"x"),
        (b"Content-Type", FORM.encode()),
        (b"X-Twilio-Signature", b"A" * 28),
        (b"Content-Length", b"1000"),
    )
    slow = [asyncio.create_task(exchange(edge.port, begun, b"a=b")) for _ in range(SLOW)]
    async with connected(edge.port) as connection:
        for number in range(20):
            assert await connection.ask(signed(f"SM{number}").encoded()) == 200
    for task in slow:
        attacks.count("slow bodies", through=statuses(await task) != [408])


async def test_who_changes_names_is_limited_all_the_same(
    nats_server: NatsServer, tmp_path: Path, attacks: Attacks
) -> None:
    """Addresses that a sender puts before its own in X-Forwarded-For don't make it another."""
    async with (
        journal_client(nats_server.url) as client,
        running_edge(client, tmp_path / "spill.db", failures_per_minute=5) as edge,
    ):
        forged = {"content-type": FORM, "x-twilio-signature": "A" * 28}
        for number in range(100):
            sender = {"x-forwarded-for": f"198.51.100.{number}, unknown, 203.0.113.9"}
            answer = await edge.http.post(INCOMING, content="a=b", headers=forged | sender)
            attacks.count(
                "floods: forged signatures",
                through=answer.status_code != (403 if number < 5 else 429),
            )
        other = {"x-forwarded-for": "203.0.113.10"}
        answer = await edge.http.post(INCOMING, content="a=b", headers=forged | other)
        assert answer.status_code == 403
        good = await edge.post(INCOMING, message("SM1"), {"x-forwarded-for": "203.0.113.9"})
        assert good.status_code == 200


async def test_one_key_takes_nothing_from_another(attacks: Attacks) -> None:
    """Of a key's flood only its quota passes, of guessed keys nothing; another key is served."""
    async with (
        served(PretendMessaging()) as address,
        running_api(address, requests_per_minute=20, failures_per_minute=10) as api,
    ):
        flood = await asyncio.gather(
            *(api.http.get(LIST, headers={"x-api-key": KEY}) for _ in range(80))
        )
        passed = sum(answer.status_code == 200 for answer in flood)
        # What comes back during the flood is a third of a request a second.
        attacks.tried["floods: requests of a key"] += len(flood)
        assert 20 <= passed < 40
        assert {answer.status_code for answer in flood} == {200, 429}
        for number in range(60):
            answer = await api.http.get(LIST, headers={"x-api-key": f"guess-{number}"})
            attacks.count(
                "floods: guessed keys",
                through=answer.status_code != (401 if number < 10 else 429),
                evidence=answer.status_code,
            )
        others: list[httpx.Response] = [
            await api.http.get(LIST, headers={"x-api-key": OTHER_KEY}) for _ in range(10)
        ]
        assert {answer.status_code for answer in others} == {200}
