"""The REST API, from HTTP to the database, asked by who guesses, forges and mistypes."""

import base64
import itertools
from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest

from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from tests.support.api import KEY, OTHER_KEY, Api, running_api
from tests.support.attacks import Attacks
from tests.support.grpc_api import TOKEN, have_written, served
from tests.support.injections import INJECTIONS
from tests.support.receiving import inbound, phone, receive, rows
from tests.support.sending import now, open_database

# What gRPC is asked is tried on both databases; here it is the way there that matters.
pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

BASE = "/api/whatsapp"


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with open_database(database_url) as database:
        messages = [
            inbound(f"SM{number}", contact=number % 2, seconds=number, body=f"said {number % 2}")
            for number in range(8)
        ]
        await receive(SqlIngestStore(database), clock=now, replies=None)(messages, [])
        await have_written(database, 0)
        yield database


@pytest.fixture
async def api(database: Database) -> AsyncIterator[Api]:
    async with (
        served(database) as server,
        running_api(f"127.0.0.1:{server.port}", token=TOKEN, requests_per_minute=1_000_000) as api,
    ):
        yield api


def bent(token: str) -> Iterator[str]:
    """A token, changed a little behind the place that it leads to."""
    raw = base64.urlsafe_b64decode(token)
    for bit in range(128, len(raw) * 8, 5):
        flipped = bytearray(raw)
        flipped[bit // 8] ^= 1 << bit % 8
        yield base64.urlsafe_b64encode(flipped).decode()
    yield from (token[:-1], token + "A", token * 2, token.swapcase(), f" {token}", f"{token}\n")
    yield from (token.replace("A", "\uff21"), token + "\0", "null")


async def test_a_cursor_of_one_list_opens_no_other(api: Api, attacks: Attacks) -> None:
    """Of another contact, list or filter, or bent: the cursor is refused, and nothing is told."""
    lists: list[tuple[str, dict[str, Any]]] = [
        (f"{BASE}/conversation/{phone(0)}", {}),
        (f"{BASE}/conversation/{phone(1)}", {}),
        (f"{BASE}/messages", {"contact": phone(0)}),
        (f"{BASE}/messages", {"contact": phone(1)}),
        (f"{BASE}/messages", {"direction": "inbound"}),
        (f"{BASE}/messages", {}),
        (f"{BASE}/conversations", {}),
    ]
    cursors = []
    for path, query in lists:
        page = (await api.http.get(path, params={**query, "limit": 1})).json()
        cursors.append(page["next_cursor"])
    assert all(cursors)

    async def attempt(kind: str, number: int, cursor: str) -> None:
        path, query = lists[number]
        answer = await api.http.get(path, params={**query, "cursor": cursor})
        attacks.count(kind, through=answer.status_code != 400, evidence=(path, cursor, answer.text))

    for number, belongs in itertools.permutations(range(len(lists)), 2):
        await attempt("cursors of other lists", number, cursors[belongs])
    for cursor in bent(cursors[0]):
        await attempt("cursors bent", 0, cursor)
    for number in range(len(lists)):
        # Its own one still leads on.
        path, query = lists[number]
        again = await api.http.get(path, params={**query, "cursor": cursors[number]})
        assert again.status_code == 200


async def test_a_forged_position_starts_no_stream(api: Api, attacks: Attacks) -> None:
    """A Last-Event-ID that isn't one of ours is refused, and doesn't start somewhere else."""
    listed = await api.http.get(f"{BASE}/messages", params={"limit": 1})
    page_cursor = listed.json()["next_cursor"]
    for forged in (*bent(page_cursor), page_cursor, "0", "-1", "AAAA", "\u00e9", "a" * 201):
        headers = {"last-event-id": forged.encode("utf-8", "replace")}
        try:
            answer = await api.http.get(f"{BASE}/stream", headers=headers)
        except httpx.LocalProtocolError:
            continue  # No header, says the client.
        attacks.count("positions forged", through=answer.status_code != 400, evidence=forged)


async def test_ids_are_not_guessed(api: Api, attacks: Attacks) -> None:
    """Ids nearly right, of other things or with tricks of addresses lead to nothing."""
    listed = (await api.http.get(f"{BASE}/messages")).json()["messages"]
    id_, conversation = listed[0]["id"], listed[0]["conversation_id"]
    guesses = {
        *(
            id_[:at] + ("0" if id_[at] != "0" else "1") + id_[at + 1 :]
            for at in range(0, len(id_), 3)
        ),
        *(id_.upper(), id_ + "0", f"{id_}%00", f"%20{id_}", f"{id_}%0a", f"{id_}%2f..", "%25"),
        *(conversation, "1", "0", "-1", "*", "%2A", "_" * len(id_), "null", "..", "%2e%2e"),
    } - {id_}
    for guess in sorted(guesses):
        for kind in ("messages", "media"):
            answer = await api.http.get(f"{BASE}/{kind}/{guess}")
            attacks.count(
                "ids guessed over HTTP",
                # `..` leads to what is above, which is a list.
                through=not 400 <= answer.status_code < 500 and guess not in ("..", "%2e%2e"),
                evidence=(kind, guess, answer.status_code),
            )


async def test_one_keys_idempotency_is_not_anothers(
    api: Api, database: Database, attacks: Attacks
) -> None:
    """Two keys that use the same Idempotency-Key send two messages; neither takes the other's."""
    for value in ("a", "crm:a", "shop:a", "rest:crm:a", ":", "rest:shop:"):
        ids = set()
        for key in (KEY, OTHER_KEY):
            sent = await api.http.post(
                f"{BASE}/send",
                json={"to": phone(0), "body": "Hello"},
                headers={"x-api-key": key, "idempotency-key": value},
            )
            assert sent.status_code == 202, sent.text
            ids.add(sent.json()["id"])
        attacks.count("idempotency keys of others", through=len(ids) != 2, evidence=value)
    assert len([row for row in await rows(database, "messages") if row["status"] == "queued"]) == 12


# Digits of other scripts, marks that nobody sees, letters that look like others.
SPELLINGS = [
    "+\uff11\uff15\uff15\uff15\uff12\uff13\uff14\uff15\uff16\uff17\uff18",
    "\uff0b972501234567",
    "+\u0669\u0667\u0662\u0665\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667",
    "\u202e+972501234567\u202c",
    "+972\u200b50\u200d123\u20604567",
    "whatsapp:whatsapp:+972501234567",
    "wh\u0430tsapp:+972501234567",
    "whatsapp:+972501234567@g.us",
    "whatsapp:US.13491208655302\u200b",
    "whatsapp:\u216fS.13491208655302",
    "+972501234567,+972501234568",
    "+972501234567;ext=5",
    "+972501234567\n+15551234567",
    "+972\x0050",
    "1-800-FLOWERS",
    "*#06#",
    "tel:+972501234567",
    "sip:a@example.com",
    "\u2460\u2461\u2462",
    "+" + "9" * 159,
    "\U0001d7d7" * 12,
]


async def test_a_number_is_ascii_or_refused(api: Api, database: Database, attacks: Attacks) -> None:
    """However a number is spelt, who is written to stands in ASCII, or nobody is."""
    for spelling in SPELLINGS:
        answer = await api.http.post(f"{BASE}/send", json={"to": spelling, "body": "Hello"})
        attacks.count(
            "numbers spelt wickedly",
            through=answer.status_code not in (202, 400, 409),
            evidence=(spelling, answer.text),
        )
    for row in await rows(database, "conversations"):
        attacks.count("addresses", through=not str(row["contact_address"]).isascii())


async def test_any_text_in_any_field_is_text_or_refused(api: Api, attacks: Attacks) -> None:
    """Emoji, templates, escapes and line ends in every field and parameter: never an error of ours,
    and no header of the answer has them."""
    texts = [*[*INJECTIONS.values()][::3], "\U0001f600" * 50, "\u202e\u200b", "\ufeff", "'\"\\"]
    for text in texts:
        template = {"id": text, "variables": {text: text}}
        asked = [
            await api.http.post(f"{BASE}/send", json={"to": phone(0), "body": text}),
            await api.http.post(f"{BASE}/send", json={"to": phone(0), "media_url": text}),
            await api.http.post(f"{BASE}/send", json={"to": phone(0), "template": template}),
            await api.http.post(
                f"{BASE}/send", json={"to": phone(0), "body": "x", "reply_to": text}
            ),
            await api.http.post(f"{BASE}/send", json={text: text}),
            await api.http.get(f"{BASE}/messages", params={"contact": text}),
            await api.http.get(f"{BASE}/messages", params={"since": text}),
            await api.http.get(f"{BASE}/messages", params={text[:50]: text}),
            await api.http.get(f"{BASE}/stream", params={"contact": text}),
        ]
        for answer in asked:
            headers = b"".join(name + value for name, value in answer.headers.raw)
            attacks.count(
                "wicked text in fields",
                through=answer.status_code >= 500 or not headers.isascii(),
                evidence=(answer.request.content, answer.text),
            )


async def test_pages_of_others_learn_nothing(api: Api, attacks: Attacks) -> None:
    """Without CORS_ORIGINS no origin is allowed, `null` neither; methods have no side doors."""
    origins = ["null", "https://evil.example", "http://127.0.0.1", "*", "file://"]
    for origin, method in itertools.product(origins, ("GET", "OPTIONS", "POST")):
        answer = await api.http.request(
            method,
            f"{BASE}/status",
            headers={"origin": origin, "access-control-request-method": "GET"},
        )
        allowed = [name for name in answer.headers if name.startswith("access-control-allow")]
        attacks.count("origins", through=bool(allowed), evidence=(origin, allowed))
    for method in ("PUT", "DELETE", "PATCH", "TRACE", "PROPFIND", "POST"):
        for path in ("messages", "status", "conversations", "stream"):
            override = {"x-http-method-override": "GET", "x-method-override": "GET"}
            status = (
                await api.http.request(method, f"{BASE}/{path}", headers=override)
            ).status_code
            attacks.count("methods", through=status != 405, evidence=(method, path, status))


async def test_an_address_we_give_out_is_ours(api: Api, attacks: Attacks) -> None:
    """Whatever host a request says it is for, no answer leads there."""
    for name in ("host", "x-forwarded-host", "forwarded", "x-forwarded-prefix", "x-original-url"):
        sent = await api.http.post(
            f"{BASE}/send",
            json={"to": phone(0), "body": "Hello"},
            headers={name: "evil.example.com"},
        )
        told = sent.text + str(sent.headers.raw)
        attacks.count("hosts", through="evil" in told, evidence=told)
    for path in ("//evil.example.com/..", "/\\evil.example.com", f"{BASE}//evil.example.com"):
        answer = await api.http.get(path)
        attacks.count("open redirects", through=answer.status_code < 400, evidence=path)
