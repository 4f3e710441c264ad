"""The REST API over HTTP, with a pretend messaging behind it that speaks real gRPC."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from prometheus_client import generate_latest
from structlog.testing import capture_logs
from switchboard.messaging.v1 import message_pb2

from services.common.errors import (
    IdempotencyConflictError,
    InvalidInputError,
    MediaUnreadableError,
    NotFoundError,
    OverloadedError,
    PaceExceededError,
    PolicyRefusedError,
    SwitchboardError,
    UnavailableError,
)
from tests.support.api import KEY, OTHER_KEY, Api, PretendMessaging, running_api, served
from tests.support.raw_http import Raw, connected

STATUS = "/api/whatsapp/status"
SEND = "/api/whatsapp/send"
MESSAGES = "/api/whatsapp/messages"
TEXT = {"to": "+972501234567", "body": "Hello"}


@pytest.fixture
def messaging() -> PretendMessaging:
    return PretendMessaging()


@pytest.fixture
async def address(messaging: PretendMessaging) -> AsyncIterator[str]:
    async with served(messaging) as address:
        yield address


@pytest.fixture
async def api(address: str) -> AsyncIterator[Api]:
    async with running_api(address) as api:
        yield api


def problem(response: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    """The problem document, after a look at what all of them have."""
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["status"]) == (status, status)
    assert document["reason"] == reason
    assert document["type"] == "about:blank"
    assert document["title"]
    assert document["detail"]
    assert document["instance"].startswith("urn:uuid:")
    assert document["request_id"] == response.headers["x-request-id"]
    return document


@pytest.mark.parametrize("shown", [[], [""], ["wrong"], [KEY + "x"], [KEY, KEY]])
async def test_without_a_key_nothing_is_answered(api: Api, shown: list[str]) -> None:
    """No key, a wrong one or two of them: 401, wherever it is asked."""
    headers = [("x-api-key", key) for key in shown]
    async with httpx.AsyncClient(base_url=api.http.base_url, timeout=60) as http:
        for path in (STATUS, MESSAGES, "/api/nothing"):
            response = await http.get(path, headers=headers)
            problem(response, 401, "UNAUTHENTICATED")
            assert "www-authenticate" in response.headers


async def test_white_space_around_a_key_is_not_of_it(api: Api) -> None:
    """RFC 9110 has it so, and who copies a key may bring some along."""
    async with connected(api.http.base_url.port or 0) as connection:
        for shown, status in ((f"{KEY} ", 200), (f" {KEY}\t ", 200), (f"a {KEY}", 401)):
            asked = Raw(STATUS.encode(), [(b"X-API-Key", shown.encode())], method=b"GET")
            assert await connection.ask(asked.encoded()) == status


async def test_every_configured_key_is_good(api: Api, messaging: PretendMessaging) -> None:
    """Each key opens the API, and says in the metrics whose it is."""
    for key in (KEY, OTHER_KEY):
        assert (await api.http.get(MESSAGES, headers={"x-api-key": key})).status_code == 200
    for name in ("crm", "shop"):
        labels = {"operation": "list_messages", "key": name, "status": "200"}
        assert api.registry.get_sample_value("switchboard_api_requests_total", labels) == 1
    assert KEY.encode() not in generate_latest(api.registry)


async def test_without_configured_keys_there_is_no_api(address: str) -> None:
    """Not an open API but none, and the answer says what to set."""
    async with running_api(address, keys=()) as api:
        document = problem(await api.http.get(MESSAGES), 503, "API_DISABLED")
    assert "API_KEYS" in document["detail"]


async def test_guessing_keys_is_slowed_down(address: str) -> None:
    """Past its failures a sender gets 429; a good key passes all the same."""
    async with running_api(address, failures_per_minute=3) as api:
        answers = [await api.http.get(MESSAGES, headers={"x-api-key": "no"}) for _ in range(5)]
        assert [answer.status_code for answer in answers] == [401, 401, 401, 429, 429]
        assert 0 < int(answers[-1].headers["retry-after"]) <= 60
        assert (await api.http.get(MESSAGES)).status_code == 200


async def test_each_key_has_a_quota(address: str) -> None:
    """Every answer tells what is left; without any left it is 429, and other keys go on."""
    async with running_api(address, requests_per_minute=2) as api:
        first, second, third = [await api.http.get(MESSAGES) for _ in range(3)]
        other = await api.http.get(MESSAGES, headers={"x-api-key": OTHER_KEY})
    assert first.headers["ratelimit-policy"] == '"default";q=2;w=60'
    assert first.headers["ratelimit"] == '"default";r=1;t=30'
    assert second.headers["ratelimit"].startswith('"default";r=0;t=')
    problem(third, 429, "RATE_LIMITED")
    assert 0 < int(third.headers["retry-after"]) <= 30
    assert third.headers["ratelimit"].startswith('"default";r=0;')
    assert other.status_code == 200


async def test_a_message_is_taken_and_has_an_address(api: Api, messaging: PretendMessaging) -> None:
    """202 with the message, as it was asked for, and where to find it."""
    response = await api.http.post(SEND, json={**TEXT, "author": "person", "reply_to": "m-0"})
    assert response.status_code == 202
    assert response.headers["location"] == "/api/whatsapp/messages/m-1"
    found = response.json()
    assert (found["id"], found["status"], found["author"]) == ("m-1", "queued", "program")
    assert found["created_at"] == "2026-05-01T09:30:00Z"
    assert found["sent_at"] is None
    [request] = messaging.requests
    assert (request.to, request.body) == (TEXT["to"], "Hello")
    assert (request.from_person, request.reply_to_message_id) == (True, "m-0")
    assert request.request_id == ""
    assert not request.HasField("template")


async def test_templates_and_files_are_passed_on(api: Api, messaging: PretendMessaging) -> None:
    """A template with its variables, and a file with its caption."""
    template = {"id": "HX" + "0" * 32, "variables": {"1": "Dana"}}
    file = "https://example.com/plan.pdf"
    for more in ({"template": template}, {"media_url": file, "body": "The plan."}):
        assert (await api.http.post(SEND, json={"to": "1", **more})).status_code == 202
    first, second = messaging.requests
    assert (first.template.id, dict(first.template.variables)) == (
        template["id"],
        template["variables"],
    )
    assert (second.media_url, second.body) == (file, "The plan.")


async def test_idempotency_keys_belong_to_their_api_key(
    api: Api, messaging: PretendMessaging
) -> None:
    """The same Idempotency-Key of two API keys is two requests, of one it is the same."""
    for key in (KEY, OTHER_KEY, KEY):
        headers = {"idempotency-key": "visit-17", "x-api-key": key}
        assert (await api.http.post(SEND, json=TEXT, headers=headers)).status_code == 202
    first, other, again = [request.request_id for request in messaging.requests]
    assert first == again != other


async def test_a_send_can_be_waited_for(api: Api, messaging: PretendMessaging) -> None:
    """The answer is held until the message is sent, and no longer than asked."""
    messaging.statuses = [
        message_pb2.MESSAGE_STATUS_QUEUED,
        message_pb2.MESSAGE_STATUS_SENDING,
        message_pb2.MESSAGE_STATUS_SENT,
    ]
    response = await api.http.post(SEND, params={"wait": 30}, json=TEXT)
    assert (response.status_code, response.json()["status"]) == (202, "sent")
    messaging.statuses = [message_pb2.MESSAGE_STATUS_SENDING]
    response = await api.http.post(SEND, params={"wait": 0.3}, json=TEXT)
    assert (response.status_code, response.json()["status"]) == (202, "sending")


@pytest.mark.parametrize(
    ("error", "status", "members"),
    [
        (NotFoundError("id: there is no message with this id"), 404, {}),
        (
            IdempotencyConflictError("request_id: it was used before"),
            422,
            {"detail": "Idempotency-Key: it was used before"},
        ),
        (
            PolicyRefusedError("pace", "too fast", datetime(2026, 5, 1, 9, 30, tzinfo=UTC)),
            409,
            {"rule": "pace", "until": "2026-05-01T09:30:00+00:00"},
        ),
        (
            PaceExceededError("pace", "too many wait", datetime(2026, 5, 1, 9, 30, tzinfo=UTC)),
            429,
            {"rule": "pace", "until": "2026-05-01T09:30:00+00:00"},
        ),
        (
            MediaUnreadableError("media_unreadable", "media_url: the file can't be read now"),
            424,
            {"rule": "media_unreadable", "detail": "media_url: the file can't be read now"},
        ),
        (OverloadedError("too many calls at once"), 429, {}),
        (UnavailableError("the database doesn't answer"), 503, {}),
    ],
)
async def test_errors_of_messaging_keep_their_meaning(
    api: Api,
    messaging: PretendMessaging,
    error: SwitchboardError,
    status: int,
    members: dict[str, str],
) -> None:
    """Each has its status, its reason and its details; what may pass says when to come again."""
    messaging.error = error
    response = await api.http.post(SEND, json=TEXT)
    document = problem(response, status, error.reason)
    assert {name: document.get(name) for name in members} == members
    assert ("retry-after" in response.headers) == error.retryable


@pytest.mark.parametrize(
    ("path", "field", "shown"),
    [
        (f"{MESSAGES}?cursor=x", "page_token", "cursor"),
        (f"{MESSAGES}?contact=x", "contact_address", "contact"),
        ("/api/whatsapp/conversation/x", "contact_address", "phone"),
        ("/api/whatsapp/stream?cursor=x", "cursor", "cursor"),
        ("/api/whatsapp/stream?contact=x", "contact_address", "contact"),
    ],
)
async def test_fields_have_the_names_of_this_api(
    api: Api, messaging: PretendMessaging, path: str, field: str, shown: str
) -> None:
    """What messaging refuses is named as the caller named it."""
    messaging.error = InvalidInputError(field, "is wrong")
    document = problem(await api.http.get(path), 400, "INVALID_INPUT")
    assert document["errors"] == [{"field": shown, "problem": "is wrong"}]
    assert document["detail"] == f"{shown}: is wrong"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({**TEXT, "form": 1}, "form"),
        ({"body": "Hello"}, "to"),
        ({"to": 972501234567, "body": "Hello"}, "to"),
        ({"to": "", "body": "Hello"}, "to"),
        ({"to": "1", "body": None}, "body"),
        ({"to": "1", "body": ""}, "body"),
        ({"to": "1", "body": "x" * 1601}, "body"),
        ({"to": "1", "body": "\ud800"}, "body"),
        ({"to": "1", "\ud800": "x", "body": "Hello"}, ""),
        ({"to": "1"}, "request"),
        ({"to": "1", "body": "x", "template": {"id": "HX" + "0" * 32}}, "request"),
        ({"to": "1", "template": {"id": "' OR 1=1 --"}}, "template.id"),
        ({"to": "1", "template": {"id": "HX0", "variables": {"1": 2}}}, "template.variables.1"),
        ({"to": "1", "media_url": "http://example.com/x"}, "media_url"),
        ({**TEXT, "author": "robot"}, "author"),
        ([], "request"),
        ("Hello", "request"),
    ],
)
async def test_a_bad_body_is_refused_by_the_fields_name(
    api: Api, messaging: PretendMessaging, body: object, field: str
) -> None:
    """400, the field and what is wrong with it; nothing is sent."""
    headers = {"content-type": "application/json"}
    response = await api.http.post(SEND, content=json.dumps(body), headers=headers)
    document = problem(response, 400, "INVALID_INPUT")
    assert any(one["field"].startswith(field) for one in document["errors"])
    assert messaging.requests == []


_TEMPLATE = {"id": "HX0", "variables": {}}


@pytest.mark.parametrize(
    ("body", "key", "errors"),
    [
        ([], "k", {"request": "must be a JSON object"}),
        ({"to": "1", "template": "HX0"}, "k", {"template": "must be a JSON object"}),
        (
            {"to": "1", "template": {**_TEMPLATE, "variables": []}},
            "k",
            {"template.variables": "must be a JSON object"},
        ),
        (
            {"to": "1", "template": {"id": "a b", "variables": {"a b": "c"}}},
            "k",
            {
                "template.id": "must be 1 to 128 characters of A-Z, a-z, 0-9, _, ., : and -",
                "template.variables.a b.[key]": "must be 1 to 64 characters of A-Z, a-z, 0-9 and _",
            },
        ),
        (
            {"to": "1", "media_url": "http://example.com/x"},
            "k",
            {
                "media_url": "must begin with https:// and contain only ASCII characters without"
                " spaces"
            },
        ),
        (
            TEXT,
            "visit 17",
            {"Idempotency-Key": "must be 1 to 200 printable ASCII characters without spaces"},
        ),
    ],
)
async def test_a_refusal_says_what_to_write_instead(
    api: Api, body: object, key: str, errors: dict[str, str]
) -> None:
    """No patterns, and no words of Python, in what people read."""
    response = await api.http.post(SEND, json=body, headers={"idempotency-key": key})
    document = problem(response, 400, "INVALID_INPUT")
    assert {one["field"]: one["problem"] for one in document["errors"]} == errors


@pytest.mark.parametrize("body", [b"{", b"\xff", b"[" * 60_000, b"1" * 5_000, b"NaN", b""])
async def test_a_body_that_is_no_json_is_refused(
    api: Api, messaging: PretendMessaging, body: bytes
) -> None:
    """Whatever the bytes are, it is a 400 and not our failure."""
    headers = {"content-type": "application/json"}
    problem(await api.http.post(SEND, content=body, headers=headers), 400, "INVALID_INPUT")
    assert messaging.requests == []


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ("limit=0", "limit"),
        ("limit=201", "limit"),
        ("limit=x", "limit"),
        ("page=2", "page"),
        ("status=Sent", "status"),
        ("direction=up", "direction"),
        ("since=yesterday", "since"),
        ("since=1700000000", "since"),
        ("since=2026-05-01T09:30:00", "since"),
        ("since=2026-05-01 09:30", "since"),
        ("since=2026-05-01T09:30:00Z 02:00", "since"),
        ("until=0001-01-01T00:00:00%2B14:00", "until"),
        ("contact=", "contact"),
        ("cursor=" + "x" * 201, "cursor"),
    ],
)
async def test_a_bad_query_is_refused_by_the_fields_name(
    api: Api, messaging: PretendMessaging, query: str, field: str
) -> None:
    """A filter that can't be meant is an error, never ignored."""
    document = problem(await api.http.get(f"{MESSAGES}?{query}"), 400, "INVALID_INPUT")
    assert [one["field"] for one in document["errors"]] == [field]
    assert messaging.requests == []


async def test_a_plus_that_came_as_a_space_is_an_offset(
    api: Api, messaging: PretendMessaging
) -> None:
    """Times are understood as they are typed into an address, like numbers."""
    query = "since=2026-11-23T12:00:00+02:00&until=2026-11-23T12:00:00.5+03:30"
    answer = await api.http.get(f"{MESSAGES}?{query}")
    assert answer.status_code == 200, answer.text
    [request] = messaging.requests
    assert request.since.ToJsonString() == "2026-11-23T10:00:00Z"
    assert request.until.ToJsonString() == "2026-11-23T08:30:00.500Z"


@pytest.mark.parametrize(
    ("path", "field"),
    [
        (f"{MESSAGES}?status=read&status=sent", "status"),
        (f"{MESSAGES}?limit=7&%6Cimit=7", "limit"),
        (f"{MESSAGES}?contact=&contact=1", "contact"),
        ("/api/calls?since=2026-05-01T09:30:00Z&since=2026-05-01T09:30:00Z", "since"),
        ("/api/whatsapp/stream?cursor=x&cursor=y", "cursor"),
        (f"{MESSAGES}?{'x' * 500}=&{'x' * 500}=", "x" * 100),
    ],
)
async def test_a_query_parameter_given_twice_is_refused(
    api: Api, messaging: PretendMessaging, path: str, field: str
) -> None:
    """Neither of the two is taken in silence."""
    document = problem(await api.http.get(path), 400, "INVALID_INPUT")
    assert document["errors"] == [{"field": field, "problem": "is given twice"}]
    assert messaging.requests == []


@pytest.mark.parametrize(
    ("body", "field"),
    [
        (b'{"to": "1", "to": "2", "body": "Hello"}', "to"),
        (b'{"to": "1", "t\\u006f": "2", "body": "Hello"}', "to"),
        (b'{"to": "1", "template": {"id": "HX0", "id": "HX1"}}', "template.id"),
        (
            b'{"to": "1", "template": {"id": "HX0", "variables": {"1": "a", "1": "b"}}}',
            "template.variables.1",
        ),
        (b'[0, {"to": "1", "to": "2"}]', "1.to"),
    ],
)
async def test_a_key_given_twice_is_refused(
    api: Api, messaging: PretendMessaging, body: bytes, field: str
) -> None:
    """A message to two numbers goes to neither, however the name is written."""
    headers = {"content-type": "application/json"}
    response = await api.http.post(SEND, content=body, headers=headers)
    document = problem(response, 400, "INVALID_INPUT")
    assert document["errors"] == [{"field": field, "problem": "is given twice"}]
    assert messaging.requests == []


@pytest.mark.parametrize("name", ["Idempotency-Key", "Last-Event-ID"])
async def test_a_header_given_twice_is_refused(
    api: Api, messaging: PretendMessaging, name: str
) -> None:
    """Nothing is sent under one of two keys, nor a stream begun at one of two places."""
    headers = [(name, "a"), (name, "b"), ("x-api-key", KEY)]
    async with httpx.AsyncClient(base_url=api.http.base_url, timeout=60) as http:
        response = await http.post(SEND, json=TEXT, headers=headers)
    document = problem(response, 400, "INVALID_INPUT")
    assert document["errors"] == [{"field": name, "problem": "is given twice"}]
    assert messaging.requests == []


@pytest.mark.parametrize("encoding", ["gzip", "br, gzip", "identity"])
async def test_a_compressed_body_is_refused(
    api: Api, messaging: PretendMessaging, encoding: str
) -> None:
    """The answer says what to do, not that the bytes are no JSON."""
    headers = {"content-encoding": encoding}
    response = await api.http.post(SEND, json=TEXT, headers=headers)
    if encoding == "identity":
        assert response.status_code == 202
    else:
        document = problem(response, 415, "UNSUPPORTED_MEDIA_TYPE")
        assert "send it uncompressed" in document["detail"]
        assert messaging.requests == []


async def test_filters_are_passed_on(api: Api, messaging: PretendMessaging) -> None:
    """Every filter reaches messaging, times in UTC; the page's cursor comes back."""
    query = {
        "limit": "7",
        "cursor": "abc",
        "status": "sent",
        "direction": "outbound",
        "since": "2026-05-01T12:30:00+03:00",
        "until": "2026-05-02t00:00:00.5z",
        "contact": "050-123 4567",
    }
    page = (await api.http.get(MESSAGES, params=query)).json()
    assert ([one["id"] for one in page["messages"]], page["next_cursor"]) == (["m-1"], "next")
    [request] = messaging.requests
    assert (request.page_size, request.page_token) == (7, "abc")
    assert request.status == message_pb2.MESSAGE_STATUS_SENT
    assert request.direction == message_pb2.DIRECTION_OUTBOUND
    assert request.since.ToDatetime() == datetime(2026, 5, 1, 9, 30)  # noqa: DTZ001 - As protobuf has it.
    assert request.until.nanos == 500_000_000
    assert request.contact_address == "050-123 4567"


async def test_nothing_is_kept_by_caches(api: Api) -> None:
    """Messages and errors alike are for the asker alone."""
    for path in (MESSAGES, "/api/whatsapp/nothing"):
        assert (await api.http.get(path)).headers["cache-control"] == "no-store"


async def test_a_conversation_is_found_by_any_spelling(
    api: Api, messaging: PretendMessaging
) -> None:
    """What stands in the path reaches messaging as it is, and its messages come along."""
    response = await api.http.get("/api/whatsapp/conversation/%2B972 50-123 4567?limit=3")
    assert response.status_code == 200
    found = response.json()
    assert (found["conversation"]["id"], found["next_cursor"]) == ("c-1", "next")
    find, page = messaging.requests
    assert find.contact_address == "+972 50-123 4567"
    assert (page.conversation_id, page.page_size) == ("c-1", 3)


@pytest.mark.parametrize(("body", "up_to"), [(b"", ""), (b"{}", ""), (b'{"up_to": "m-1"}', "m-1")])
async def test_reading_may_say_how_far(
    api: Api, messaging: PretendMessaging, body: bytes, up_to: str
) -> None:
    """Without a body, or with an empty one, all of it is read."""
    path = "/api/whatsapp/conversation/+972501234567/read"
    headers = {"content-type": "application/json"} if body else {}
    response = await api.http.post(path, content=body, headers=headers)
    assert response.status_code == 200
    assert messaging.requests[-1].up_to_message_id == up_to


@pytest.mark.parametrize(
    "path",
    [
        MESSAGES,
        f"{MESSAGES}/m-1",
        f"{MESSAGES}/none",
        f"{MESSAGES}?limit=0",
        STATUS,
        "/api/whatsapp/conversations",
        "/api/whatsapp/conversation/+972501234567",
        "/api/whatsapp/media/f-1",
        "/api/calls",
        "/api/openapi.json",
    ],
)
async def test_head_is_get_without_a_body(api: Api, path: str) -> None:
    """Load balancers and monitors ask by HEAD: the same status, type and length."""
    got, head = await api.http.get(path), await api.http.head(path)
    assert (head.status_code, head.content) == (got.status_code, b"")
    for name in ("content-type", "content-length", "etag"):
        assert head.headers.get(name) == got.headers.get(name)
    assert head.headers["x-request-id"] != got.headers["x-request-id"]
    assert (await api.http.get(STATUS)).status_code == 200


async def test_head_begins_nothing(api: Api) -> None:
    """A stream has no end, and what only takes POST takes no HEAD."""
    for path, allowed in (("/api/whatsapp/stream", "GET"), (SEND, "POST")):
        answer = await api.http.head(path)
        assert (answer.status_code, answer.headers["allow"]) == (405, allowed)
    async with httpx.AsyncClient(base_url=api.http.base_url) as http:
        assert (await http.head(MESSAGES)).status_code == 401


async def test_addresses_methods_types_and_sizes(api: Api) -> None:
    """What the framework refuses is a problem document too."""
    problem(await api.http.get("/api/whatsapp/nothing"), 404, "NOT_FOUND")
    problem(await api.http.get(f"{MESSAGES}/"), 404, "NOT_FOUND")
    response = await api.http.delete(MESSAGES)
    problem(response, 405, "METHOD_NOT_ALLOWED")
    assert response.headers["allow"] == "GET, HEAD"
    streamed = await api.http.delete("/api/whatsapp/stream")
    problem(streamed, 405, "METHOD_NOT_ALLOWED")
    assert streamed.headers["allow"] == "GET"
    problem(await api.http.post(SEND, data={"to": "1"}), 415, "UNSUPPORTED_MEDIA_TYPE")
    large = {**TEXT, "body": "x" * 70_000}
    problem(await api.http.post(SEND, json=large), 413, "TOO_LARGE")

    async def parts() -> AsyncIterator[bytes]:
        yield b"x" * 65_537

    problem(await api.http.post(SEND, content=parts()), 413, "TOO_LARGE")


async def test_messaging_away_is_unavailable() -> None:
    """503, and when to come again; the answer says nothing of our addresses."""
    async with running_api("127.0.0.1:9") as api:
        response = await api.http.get(MESSAGES)
    problem(response, 503, "UNAVAILABLE")
    assert int(response.headers["retry-after"]) > 0
    assert "127.0.0.1" not in response.text


async def test_a_messaging_that_is_stopping(api: Api, messaging: PretendMessaging) -> None:
    """A send under a key that it cancels is asked for again; one without a key might go twice."""
    messaging.leaving = 1
    sent = await api.http.post(SEND, json=TEXT, headers={"idempotency-key": "k"})
    assert sent.status_code == 202
    assert len(messaging.requests) == 2
    messaging.leaving = 1
    problem(await api.http.post(SEND, json=TEXT), 503, "UNAVAILABLE")
    assert len(messaging.requests) == 3


async def test_messaging_too_slow_is_a_timeout(address: str, messaging: PretendMessaging) -> None:
    """A call has its deadline, and so has the beginning of a stream."""
    messaging.busy_seconds = 3
    async with running_api(address, call_seconds=0.2) as api:
        for path in (MESSAGES, "/api/whatsapp/stream", "/api/whatsapp/media/f-1"):
            problem(await api.http.get(path), 504, "DEADLINE_EXCEEDED")


async def test_a_wrong_token_of_ours_is_not_the_callers_fault(address: str) -> None:
    """That messaging refuses the edge is a 503 that doesn't say why; the log does."""
    async with running_api(address, token="wrong") as api:
        for path in (MESSAGES, "/api/whatsapp/stream"):
            with capture_logs() as logs:
                response = await api.http.get(path)
            document = problem(response, 503, "UNAVAILABLE")
            assert "token" not in document["detail"].lower()
            assert int(response.headers["retry-after"]) > 0
            [refused] = [line["event"] for line in logs if line["log_level"] == "error"]
            assert "GRPC_TOKEN" in refused


async def test_our_own_failures_are_problems_too(api: Api, messaging: PretendMessaging) -> None:
    """An answer that can't be made is a 500 that says nothing of the inside; the log does."""
    # As a later release might answer; of more digits than a request's id can hold by chance.
    messaging.statuses = [1_234_567_890]  # type: ignore[list-item]  # no status of this release
    with capture_logs() as logs:
        response = await api.http.post(SEND, json=TEXT)
    problem(response, 500, "INTERNAL")
    assert "1234567890" not in response.text
    [failure] = [line for line in logs if line.get("exc_info")]
    assert failure["key"] == "crm"
    assert response.headers["ratelimit"]


async def test_only_listed_origins_may_use_it_from_a_browser(address: str) -> None:
    """A listed origin is let in, also by errors; any other isn't, and there are no cookies."""
    desk = "https://desk.example.com"
    async with running_api(address, cors_origins=[desk]) as api:
        asked = {"access-control-request-method": "POST", "origin": desk}
        preflight = await api.http.options(
            SEND, headers={**asked, "access-control-request-headers": "x-api-key,idempotency-key"}
        )
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == desk
        assert "access-control-allow-credentials" not in preflight.headers
        refused = await api.http.get(MESSAGES, headers={"origin": desk, "x-api-key": "no"})
        assert refused.headers["access-control-allow-origin"] == desk
        other = await api.http.get(MESSAGES, headers={"origin": "https://evil.example.com"})
        assert "access-control-allow-origin" not in other.headers
