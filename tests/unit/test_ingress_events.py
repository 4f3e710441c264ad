"""From a verified webhook's parameters to an event."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from switchboard.events.v1 import events_pb2

from services.common.journal.events import JournalEvent
from services.common.tracing import new_traceparent
from services.webhook.routes import WHATSAPP_ROUTES, to_event
from services.webhook.signature import parse_form

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
MESSAGES, STATUSES = WHATSAPP_ROUTES
TRACE = new_traceparent()


@given(body=st.binary(max_size=300), token=st.binary(max_size=300))
def test_any_bytes_become_an_event_that_can_be_stored(body: bytes, token: bytes) -> None:
    """Whatever a form holds, the event serializes, parses again, and holds no NUL."""
    form = [("MessageSid", "SM1"), *parse_form(body, max_parameters=1000)]
    query = parse_form(body, max_parameters=1000)
    event = to_event(
        MESSAGES, form, query, received_at=NOW, traceparent=TRACE, idempotency_token=token
    )
    received = events_pb2.WebhookReceived.FromString(event.data)
    assert len(received.parameters) == len(form)
    assert not any("\0" in p.name + p.value for p in received.parameters)
    assert JournalEvent.parse(event.entry().named_headers(), event.data) == event
    assert received.received_at.ToDatetime(tzinfo=UTC) == NOW


def test_undecodable_bytes_become_replacement_characters() -> None:
    """A lone surrogate or a stray byte doesn't cost the rest of the text."""
    form = parse_form(b"MessageSid=SM1&Body=a%ED%A0%80b%FFc%00d%F0%9F%99%82", max_parameters=10)
    event = to_event(MESSAGES, form, [], received_at=NOW, traceparent=TRACE)
    received = events_pb2.WebhookReceived.FromString(event.data)
    assert received.parameters[1].value == "a\ufffd\ufffd\ufffdb\ufffdcd🙂"


def test_the_first_of_a_repeated_id_counts() -> None:
    """A repeated MessageSid gives the same key each time."""
    form = [("MessageSid", "SM1"), ("MessageSid", "SM2")]
    assert to_event(MESSAGES, form, [], received_at=NOW, traceparent=TRACE).key == "message:SM1"


@given(sid=st.text(min_size=1), status=st.text(min_size=1), code=st.text())
def test_keys_are_short_and_plain(sid: str, status: str, code: str) -> None:
    """A key is always one header value of bounded length."""
    form = [("MessageSid", sid), ("MessageStatus", status), ("ErrorCode", code)]
    safe = [(name, value.replace("\0", "0")) for name, value in form]
    key = to_event(STATUSES, safe, [], received_at=NOW, traceparent=TRACE).key
    assert key.isascii()
    assert key.isprintable()
    assert 0 < len(key) <= 200


@given(
    lengths=st.lists(
        st.tuples(st.integers(0, 300), st.integers(0, 300), st.sampled_from("aé\x7f🙂"))
    )
)
def test_parameters_of_any_length_are_read_as_they_were(
    lengths: list[tuple[int, int, str]],
) -> None:
    """Short ones are serialized otherwise than long ones."""
    form = [("MessageSid", "SM1"), *((letter * m, letter * n) for m, n, letter in lengths)]
    event = to_event(MESSAGES, form, form, received_at=NOW, traceparent=TRACE)
    received = events_pb2.WebhookReceived.FromString(event.data)
    assert [(one.name, one.value) for one in received.parameters] == form
    assert [(one.name, one.value) for one in received.query_parameters] == form
    assert received.provider == "twilio"


@pytest.mark.parametrize("size", range(120, 132))
def test_parameters_about_as_long_as_a_length_of_one_byte(size: int) -> None:
    """Of one byte a length is up to 127."""
    form = [("MessageSid", "SM1"), ("Body", "x" * (size - 4)), ("x" * size, ""), ("", "x" * size)]
    event = to_event(MESSAGES, form, [], received_at=NOW, traceparent=TRACE)
    received = events_pb2.WebhookReceived.FromString(event.data)
    assert [(one.name, one.value) for one in received.parameters] == form
