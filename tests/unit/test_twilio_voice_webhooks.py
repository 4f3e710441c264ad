"""What Twilio's webhooks about calls are read as, however odd they are."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.common.errors import InvalidInputError
from services.common.journal.events import EventKind
from services.messaging.domain.call import CallReport, CallStatus, Recording
from services.messaging.providers.twilio.voice_webhooks import KINDS, voice_event
from services.messaging.usecases.calls.requests import Dialed, Incoming, Played, Silent
from services.messaging.usecases.calls.take_in import VoiceEvent
from tests.support.calls import CALLED, CALLER, at, webhook

CALL = {"CallSid": "CA1", "From": CALLER, "To": CALLED}
HEARD = {**CALL, "RecordingSid": "RE1", "RecordingUrl": "https://api.twilio.com/RE1"}


def read(
    kind: EventKind, form: Mapping[str, str], query: Mapping[str, str] | None = None
) -> VoiceEvent:
    return voice_event("key", kind, webhook(form, query), at(0))


def content(
    kind: EventKind, form: Mapping[str, str], query: Mapping[str, str] | None = None
) -> Any:
    return read(kind, form, query).content


def test_a_call() -> None:
    """A new call is kept with its parties and all parameters as they came."""
    event = read(EventKind.VOICE_CALL, {**CALL, "CallerCity": "HAIFA"})
    assert event.content == Incoming()
    call = event.kept.call
    assert (call.provider, call.call_id, call.caller, call.called) == (
        "twilio",
        "CA1",
        CALLER,
        CALLED,
    )
    assert (event.kept.key, event.kept.kind, call.at) == ("key", "call", at(0))
    assert event.kept.payload["CallerCity"] == "HAIFA"


def test_a_caller_without_a_number() -> None:
    """Whatever the provider says of such a caller is kept, and a missing one is no error."""
    assert read(EventKind.VOICE_CALL, {**CALL, "From": "anonymous"}).kept.call.caller == "anonymous"
    assert read(EventKind.VOICE_CALL, {"CallSid": "CA1"}).kept.call.caller == ""


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("queued", CallStatus.QUEUED),
        ("ringing", CallStatus.RINGING),
        ("in-progress", CallStatus.IN_PROGRESS),
        ("completed", CallStatus.COMPLETED),
        ("Completed", CallStatus.COMPLETED),
        ("busy", CallStatus.BUSY),
        ("failed", CallStatus.FAILED),
        ("no-answer", CallStatus.NO_ANSWER),
        ("canceled", CallStatus.CANCELED),
    ],
)
def test_statuses(word: str, status: CallStatus) -> None:
    """Every status of Twilio's has its place among ours."""
    report = content(EventKind.VOICE_STATUS, {**CALL, "CallStatus": word, "CallDuration": "7"})
    assert isinstance(report, CallReport)
    assert (report.status, report.key) == (status, "key")
    assert report.duration == (timedelta(seconds=7) if status.has_ended else None)


def test_an_unknown_status_has_no_effect() -> None:
    """A word of a later version of Twilio's is kept, and changes nothing."""
    assert content(EventKind.VOICE_STATUS, {**CALL, "CallStatus": "on-hold"}) == Incoming()
    with pytest.raises(InvalidInputError):
        read(EventKind.VOICE_STATUS, CALL)


@pytest.mark.parametrize(
    ("text", "time"),
    [
        ("Sun, 01 Mar 2026 11:59:58 +0000", datetime(2026, 3, 1, 11, 59, 58, tzinfo=UTC)),
        ("Sun, 01 Mar 2026 13:59:58 +0200", datetime(2026, 3, 1, 11, 59, 58, tzinfo=UTC)),
        ("Sun, 01 Mar 2026 11:59:58 -0000", datetime(2026, 3, 1, 11, 59, 58, tzinfo=UTC)),
        ("Thu, 01 Jan 1970 00:00:00 +0000", None),
        ("Fri, 31 Dec 9999 23:59:59 -2359", None),
        ("yesterday", None),
        ("", None),
    ],
)
def test_the_provider_s_time(text: str, time: datetime | None) -> None:
    """The provider's clock is believed where it can be right."""
    form = {**CALL, "CallStatus": "completed", "Timestamp": text}
    assert content(EventKind.VOICE_STATUS, form).provider_at == time


def test_a_recording_from_the_caller_s_request() -> None:
    """What was recorded comes with its turn, length and keys."""
    form = {**HEARD, "RecordingDuration": "4", "Digits": "hangup"}
    heard = content(EventKind.VOICE_RECORDING, form, {"turn": "2"})
    assert isinstance(heard, Recording)
    assert (heard.turn, heard.recording_id, heard.digits) == (2, "RE1", "hangup")
    assert (heard.duration, heard.voicemail, heard.absent) == (timedelta(seconds=4), False, False)
    assert (heard.url, heard.heard_at) == ("https://api.twilio.com/RE1", at(0))
    assert content(EventKind.VOICE_RECORDING, form, {"turn": "1", "voicemail": "1"}).voicemail


def test_a_recording_from_its_own_callback() -> None:
    """The same recording by its own callback: complete, absent, or not yet anything."""
    query = {"turn": "1"}
    assert not content(
        EventKind.VOICE_RECORDING, {**HEARD, "RecordingStatus": "completed"}, query
    ).absent
    for status in ("absent", "failed"):
        form = {"CallSid": "CA1", "RecordingSid": "RE1", "RecordingStatus": status}
        assert content(EventKind.VOICE_RECORDING, form, query).absent
    nothing = {"CallSid": "CA1", "RecordingStatus": "absent"}
    assert content(EventKind.VOICE_RECORDING, nothing, query) == Silent(1)
    assert (
        content(EventKind.VOICE_RECORDING, {**HEARD, "RecordingStatus": "in-progress"}, query)
        == Incoming()
    )


@pytest.mark.parametrize("duration", ["", "-1", "1e9", "99999999", "x", "٣"])
def test_a_length_that_is_none(duration: str) -> None:
    """A recording without a sensible length is a recording all the same."""
    form = {**HEARD, "RecordingDuration": duration}
    assert content(EventKind.VOICE_RECORDING, form, {"turn": "1"}).duration is None


@pytest.mark.parametrize(
    ("query", "event"),
    [
        ({"turn": "3", "after": "part", "part": "2"}, Played(3, 2)),
        ({"turn": "3", "after": "silence"}, Silent(3)),
        ({"turn": "3", "after": "dial"}, Dialed(3, answered=False)),
    ],
)
def test_continuations(query: Mapping[str, str], event: object) -> None:
    """What a call goes on after."""
    assert content(EventKind.VOICE_CONTINUATION, CALL, query) == event


@pytest.mark.parametrize(
    ("status", "answered"),
    [("completed", True), ("no-answer", False), ("busy", False), ("", False)],
)
def test_a_person_was_called(status: str, answered: bool) -> None:
    """A person answered when the provider says so."""
    form = {**CALL, "DialCallStatus": status}
    query = {"turn": "1", "after": "dial"}
    assert content(EventKind.VOICE_CONTINUATION, form, query) == Dialed(1, answered=answered)


@pytest.mark.parametrize(
    ("kind", "form", "query", "field"),
    [
        (EventKind.VOICE_CALL, {}, {}, "CallSid"),
        (EventKind.VOICE_CALL, {"CallSid": "C" * 129}, {}, "CallSid"),
        (EventKind.VOICE_RECORDING, HEARD, {}, "turn"),
        (EventKind.VOICE_RECORDING, HEARD, {"turn": "abc"}, "turn"),
        (EventKind.VOICE_RECORDING, HEARD, {"turn": "0"}, "turn"),
        (EventKind.VOICE_RECORDING, HEARD, {"turn": "-1"}, "turn"),
        (EventKind.VOICE_RECORDING, HEARD, {"turn": "9" * 5000}, "turn"),
        (EventKind.VOICE_RECORDING, HEARD, {"turn": "\u0661"}, "turn"),
        (EventKind.VOICE_RECORDING, CALL, {"turn": "1"}, "RecordingSid"),
        (EventKind.VOICE_RECORDING, {**CALL, "RecordingSid": "RE1"}, {"turn": "1"}, "RecordingUrl"),
        (EventKind.VOICE_CONTINUATION, CALL, {"turn": "1"}, "after"),
        (EventKind.VOICE_CONTINUATION, CALL, {"turn": "1", "after": "part"}, "part"),
        (EventKind.VOICE_CONTINUATION, CALL, {"turn": "1", "after": "part", "part": "x"}, "part"),
        (EventKind.VOICE_CONTINUATION, CALL, {"after": "silence"}, "turn"),
    ],
)
def test_what_can_t_be_understood(
    kind: EventKind, form: Mapping[str, str], query: Mapping[str, str], field: str
) -> None:
    """An event that can't be placed is refused, by the parameter's name and without its value."""
    with pytest.raises(InvalidInputError) as refused:
        read(kind, form, query)
    assert refused.value.field == field
    assert "abc" not in str(refused.value)


@given(
    st.sampled_from(sorted(KINDS, key=lambda kind: kind.subject)),
    st.dictionaries(
        st.sampled_from(["CallSid", "From", "CallStatus", "Timestamp", "RecordingSid", "Digits"]),
        st.text(max_size=40),
    ),
    st.dictionaries(st.sampled_from(["turn", "after", "part", "voicemail"]), st.text(max_size=12)),
)
def test_nothing_but_a_refusal(
    kind: EventKind, form: Mapping[str, str], query: Mapping[str, str]
) -> None:
    """Whatever a webhook holds, it is read or refused, and what is read can be stored."""
    form = {name: value.encode("utf-8", "replace").decode() for name, value in form.items()}
    query = {name: value.encode("utf-8", "replace").decode() for name, value in query.items()}
    try:
        event = read(kind, form, query)
    except InvalidInputError:
        return
    assert "\0" not in f"{event.kept}{event.content}"
