"""The sandbox's telephone works through TwiML as Twilio does."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from sandbox.faults import DuplicateCallbacks, Faults
from sandbox.phone.mp3 import silent_mp3
from sandbox.phone.scenario import HangUp, Turn
from tests.support.edge import until
from tests.support.phone import INCOMING, STATUS, Answer, Telephone, entries, telephone
from tests.support.sandbox import ACCOUNT_SID, AUTH_TOKEN, PUBLIC_HOST

MP3 = silent_mp3(3, "Good day.")
RECORD = '<Record action="/recorded?turn=1" timeout="2" playBeep="false" trim="do-not-trim"/>'


@pytest.fixture
async def phone() -> AsyncIterator[Telephone]:
    async with telephone() as phone:
        yield phone


def mp3(**headers: str) -> Answer:
    return Answer(MP3, content_type="audio/mpeg", headers=headers)


async def test_a_call(phone: Telephone) -> None:
    """A greeting is fetched and played, the caller is recorded, the answer follows the action,
    and the end is reported; each request is signed and says what Twilio says."""
    phone.app.answers["/hello.mp3"] = mp3()
    phone.app.on(INCOMING, f"<Play>{PUBLIC_HOST}/hello.mp3</Play>", RECORD)
    phone.app.on("/recorded", "<Say>Thank you.</Say><Hangup/>")

    call = await phone.call("Is the flat free?", forwarded_from="+97231234567")

    assert phone.app.paths() == [INCOMING, "/hello.mp3", "/recorded", STATUS]
    webhooks = [webhook for webhook in phone.app.received if webhook.path != "/hello.mp3"]
    assert all(webhook.signed_by(AUTH_TOKEN) for webhook in webhooks)
    first, recorded, status = (dict(webhook.form) for webhook in webhooks)
    assert first == {
        "AccountSid": ACCOUNT_SID,
        "ApiVersion": "2010-04-01",
        "CallSid": call.sid,
        "CallStatus": "ringing",
        "Called": "+14155238886",
        "Caller": "+972501234567",
        "Direction": "inbound",
        "ForwardedFrom": "+97231234567",
        "From": "+972501234567",
        "To": "+14155238886",
    }
    assert webhooks[1].query == "turn=1"
    assert recorded["CallStatus"] == "in-progress"
    assert recorded["RecordingUrl"].endswith(
        f"/2010-04-01/Accounts/{ACCOUNT_SID}/Recordings/{recorded['RecordingSid']}"
    )
    assert recorded["RecordingDuration"] == "4"
    assert "Digits" not in recorded
    assert (status["CallStatus"], status["SequenceNumber"]) == ("completed", "2")
    # Greeting, words with a pause before and after, thanks: all in their full length.
    assert int(status["CallDuration"]) == pytest.approx(3 + 3.5 + 0.9, abs=1)
    heard = entries(call, "playing", "speaking", "saying")
    assert [entry.text for entry in heard] == ["Good day.", "Is the flat free?", "Thank you."]
    assert heard[0].gap_ms is None
    assert 0 <= (heard[2].gap_ms or -1) < 1000
    assert [entry.text for entry in entries(call, "hung_up")] == ["application"]


async def test_silence_falls_through(phone: Telephone) -> None:
    """An empty recording asks no action: the verb after it follows."""
    phone.app.on(INCOMING, RECORD, '<Redirect method="POST">/silent?turn=1&amp;after=s</Redirect>')
    phone.app.on("/silent", "<Say>Goodbye.</Say>")
    call = await phone.call(stays=True)
    assert phone.app.paths() == [INCOMING, "/silent", STATUS]
    assert phone.app.asked("/silent")[0].signed_by(AUTH_TOKEN)
    # The document's end is the call's.
    assert entries(call, "hung_up") == []
    assert call.status == "completed"


async def test_without_an_action_the_same_address_is_asked(phone: Telephone) -> None:
    """Record without action loops, as Twilio warns."""
    phone.app.on(INCOMING, '<Record playBeep="false"/>')
    await phone.call("One.", "Two.")
    assert phone.app.paths() == [INCOMING] * 3 + [STATUS]
    assert "RecordingSid" in phone.app.received[2].form


@pytest.mark.parametrize(
    ("turn", "digits", "seconds"),
    [
        (Turn(text="Is it free?", digits="#"), "#", 2),
        (Turn(digits="5"), "5", 1),
        (Turn(text="Is it free?", hang_up=True), "hangup", 1),
        (Turn(text="word " * 100), None, 10),
    ],
    ids=["finished by a key", "a key alone", "hung up", "cut at maxLength"],
)
async def test_ends_of_a_recording(
    phone: Telephone, turn: Turn, digits: str | None, seconds: int
) -> None:
    """A recording ends by a key, by hanging up or at its maximum, and says by which."""
    phone.app.on(INCOMING, '<Record action="/recorded" timeout="2" maxLength="10"/>')
    call = await phone.call(turn)
    (recorded,) = phone.app.asked("/recorded")
    assert recorded.form.get("Digits") == digits
    assert recorded.form["RecordingDuration"] == str(seconds)
    status = "completed" if digits == "hangup" else "in-progress"
    assert recorded.form["CallStatus"] == status
    assert call.status == "completed"


async def test_the_beep(phone: Telephone) -> None:
    """Twilio beeps before a recording unless told not to."""
    phone.app.on(INCOMING, '<Record action="/recorded"/>')
    assert entries(await phone.call("Hello"), "beep")
    phone.app.on(INCOMING, '<Record action="/recorded" playBeep="false"/>')
    assert not entries(await phone.call("Hello"), "beep")


async def test_audio_is_cached(phone: Telephone) -> None:
    """A file is fetched once while it is fresh; later its ETag is asked about; else again."""

    def serve(cache_control: str) -> None:
        phone.app.received.clear()
        phone.app.answers["/a.mp3"] = lambda webhook: (
            Answer(status=304, content_type=None, headers={"content-length": ""})
            if webhook.headers.get("if-none-match") == '"a"'
            else mp3(ETag='"a"', **{"Cache-Control": cache_control})
        )

    phone.app.on(INCOMING, f"<Play>{PUBLIC_HOST}/a.mp3</Play>", '<Play loop="2">/a.mp3</Play>')
    serve("public, max-age=31536000, immutable")
    statuses = [entry.status for entry in entries(await phone.call(), "playing")]
    assert statuses == [200, None, None]
    phone.app.on(INCOMING, '<Play loop="2">/b.mp3</Play>')
    phone.app.answers["/b.mp3"] = mp3(**{"Cache-Control": "no-store"})
    assert [entry.status for entry in entries(await phone.call(), "playing")] == [200, 200]
    phone.app.on(INCOMING, '<Play loop="2">/c.mp3</Play>')
    phone.app.answers["/c.mp3"] = lambda webhook: (
        Answer(status=304, content_type=None, headers={"content-length": ""})
        if webhook.headers.get("if-none-match") == '"c"'
        else mp3(ETag='"c"')
    )
    assert [entry.status for entry in entries(await phone.call(), "playing")] == [200, 304]


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        (Answer("not XML", content_type="text/xml"), 12100),
        (Answer(" <?xml version='1.0'?><Response/>"), 12100),
        (Answer("<Reply/>"), 12100),
        (Answer(""), 12100),
        (Answer("<Response/>", content_type="application/json"), 12300),
        (Answer("<Response/>", content_type=None), 12300),
        (Answer("<Response><Sing>La</Sing></Response>"), 12200),
        (Answer("<Response><say>Hello</say></Response>"), 12200),
        (Answer("<Response><Say speed='2'>Hello</Say></Response>"), 12200),
        (Answer("<Response><Record maxLength='0'/></Response>"), 12200),
        (Answer("<Response><Record><Say>Hello</Say></Record></Response>"), 12200),
        (Answer("<Response>Hello</Response>"), 12200),
        (Answer("<Response><Dial/></Response>"), 12200),
        (Answer("<Response><Dial callerId='052'>+972501234567</Dial></Response>"), 12200),
        (Answer("<Response><Say/></Response>"), 13520),
        (Answer("<Response><Say language='he-IL'>שלום</Say></Response>"), 13520),
        (Answer("<Response><Play>/missing.mp3</Play></Response>"), 11200),
        (Answer("<Response><Play>/page.mp3</Play></Response>"), 13420),
        (Answer("<Response><Play>/broken.mp3</Play></Response>"), 13420),
        (Answer("<Response/>", status=500), 11200),
        (Answer("<Response/>", status=404), 11200),
        (Answer("<Response/>", after=1), 11200),
        (Answer("", status=302, headers={"Location": INCOMING}), 11215),
        (Answer(f"<Response><Redirect>{INCOMING}</Redirect></Response>"), 11215),
    ],
)
async def test_application_errors(answer: Answer, code: int) -> None:
    """Whatever Twilio can't use ends the call with its apology and is on the timeline."""
    # Few seconds only where no answer is to come in time: a busy machine is slow with the others.
    async with telephone(webhook_timeout=0.4 if answer.after else 30) as phone:
        phone.app.answers[INCOMING] = answer
        phone.app.answers["/missing.mp3"] = Answer(status=404)
        phone.app.answers["/page.mp3"] = Answer("<html/>", content_type="text/html")
        phone.app.answers["/broken.mp3"] = Answer(b"ID3", content_type="audio/mpeg")
        call = await phone.call("Hello")
    assert call.error_code == code, call.timeline
    (error,) = entries(call, "error")
    assert error.code == code
    assert "application error" in (entries(call, "saying")[-1].text or "")
    assert call.status == "completed"


async def test_http_redirects_lose_the_parameters(phone: Telephone) -> None:
    """A 302 is followed by GET with a signed address; a 307 keeps the form."""
    phone.app.answers[INCOMING] = Answer(status=303, headers={"Location": "/elsewhere?turn=1"})
    phone.app.answers["/elsewhere"] = Answer(status=307, headers={"Location": "/there"})
    phone.app.on("/there", "<Say>Hello</Say>")
    call = await phone.call()
    assert call.error_code is None
    _, elsewhere, there, _ = phone.app.received
    assert (elsewhere.query, len(elsewhere.form), len(there.form)) == ("turn=1", 0, 0)
    assert elsewhere.signed_by(AUTH_TOKEN)


async def test_get_puts_parameters_into_the_address(phone: Telephone) -> None:
    """method=GET: the address is signed with its query, and there is no form."""
    phone.app.on(INCOMING, '<Redirect method="GET">/next?turn=1</Redirect>')
    await phone.call()
    (asked,) = phone.app.asked("/next")
    assert asked.query.startswith("turn=1&AccountSid=")
    assert asked.signed_by(AUTH_TOKEN)


@pytest.mark.parametrize(
    ("hang_up", "asked"),
    [
        (HangUp(after_seconds=1), [INCOMING, "/hello.mp3", STATUS]),
        (HangUp(after_seconds=4.5), [INCOMING, "/hello.mp3", "/recorded", STATUS]),
        (HangUp(playing=0), [INCOMING, "/hello.mp3", STATUS]),
        (HangUp(playing=1), [INCOMING, "/hello.mp3", "/recorded", STATUS]),
        (HangUp(waiting=1), [INCOMING, "/hello.mp3", "/recorded", STATUS]),
    ],
)
async def test_hanging_up(phone: Telephone, hang_up: HangUp, asked: list[str]) -> None:
    """The caller hangs up at any moment, and nothing more is played to them."""
    phone.app.answers["/hello.mp3"] = mp3()
    phone.app.on(INCOMING, "<Play>/hello.mp3</Play>", RECORD)
    phone.app.answers["/recorded"] = Answer(
        "<Response><Say>Thank you for asking.</Say><Say>It is free.</Say></Response>", after=0.3
    )
    call = await phone.call("Is the flat free?", hang_up=hang_up)
    assert sorted(phone.app.paths()) == sorted(asked)
    assert call.status == "completed"
    assert "It is free." not in [entry.text for entry in entries(call, "saying")]
    assert [entry.text for entry in entries(call, "hung_up")] == ["caller"]


async def test_hanging_up_from_outside(phone: Telephone) -> None:
    """A call that goes on in real time ends when it is told to."""
    phone.app.on(INCOMING, '<Pause length="600"/>')
    task = asyncio.create_task(phone.call(speed=10))
    await until(lambda: any(entries(call, "pausing") for call in phone.sandbox.calls))
    (call,) = phone.sandbox.calls
    phone.sandbox.hang_up(call)
    assert (await task).status == "completed"


async def test_gather(phone: Telephone) -> None:
    """Keys are gathered up to the one that finishes, and words where they are wanted."""
    inside = "<Say>Press a key.</Say>"
    phone.app.on(INCOMING, f'<Gather action="/keys" numDigits="2">{inside}</Gather>')
    await phone.call(Turn(digits="123"))
    assert phone.app.asked("/keys")[0].form["Digits"] == "12"
    phone.app.on(INCOMING, '<Gather action="/words" input="dtmf speech"/>')
    await phone.call("Hello")
    assert phone.app.asked("/words")[0].form["SpeechResult"] == "Hello"
    phone.app.on(INCOMING, '<Gather action="/none"/><Say>Goodbye.</Say>')
    call = await phone.call("")
    assert not phone.app.asked("/none")
    assert [entry.text for entry in entries(call, "saying")] == ["Goodbye."]


@pytest.mark.parametrize(
    ("person", "status"), [("answers", "completed"), ("no-answer", "no-answer"), ("busy", "busy")]
)
async def test_dial(phone: Telephone, person: str, status: str) -> None:
    """Whoever is dialled answers or not, and the action is told."""
    phone.app.on(INCOMING, '<Dial action="/dialled" timeout="20">+97231234567</Dial>')
    await phone.call(person=person)
    (dialled,) = phone.app.asked("/dialled")
    assert dialled.form["DialCallStatus"] == status
    assert ("DialCallDuration" in dialled.form) == (person == "answers")


@pytest.mark.parametrize(
    ("caller", "shown", "code"),
    [
        ("+972501234567", "", None),
        ("+972501234567", "callerId='+972501234567'", None),
        ("+972501234567", "callerId='+14155550123'", 13214),
        ("anonymous", "", 13214),
        ("+266696687", "", 13214),
        ("+266696687", "callerId='+266696687'", 13214),
        ("+266696687", "callerId='+14155238886'", None),
    ],
)
async def test_whose_number_is_shown(
    phone: Telephone, caller: str, shown: str, code: int | None
) -> None:
    """The caller's or ours, and only a number."""
    phone.app.on(INCOMING, f'<Dial action="/dialled" {shown}>+97231234567</Dial>')
    call = await phone.call(caller=caller)
    assert call.error_code == code
    assert len(phone.app.asked("/dialled")) == (code is None)


@pytest.mark.parametrize(("reason", "status"), [("rejected", "no-answer"), ("busy", "busy")])
async def test_reject(phone: Telephone, reason: str, status: str) -> None:
    """A rejected call is never in progress."""
    phone.app.on(INCOMING, f'<Reject reason="{reason}"/>')
    call = await phone.call("Hello")
    assert call.status == status
    assert phone.app.asked(STATUS)[0].form["CallStatus"] == status


async def test_duplicate_webhooks(phone: Telephone) -> None:
    """Each webhook of a call may come several times at once, the same in every byte."""
    phone.app.on(INCOMING, RECORD)
    phone.sandbox.set_faults(Faults(duplicate_call_webhooks=DuplicateCallbacks()))
    await phone.call("Hello")
    assert phone.app.paths() == [INCOMING] * 2 + ["/recorded"] * 2 + [STATUS]
    one, other = phone.app.asked("/recorded")
    assert one.form == other.form
    assert one.headers["X-Twilio-Signature"] == other.headers["X-Twilio-Signature"]
