"""What contacts write and models answer is text, wherever it goes."""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from structlog.testing import capture_logs
from switchboard.events.v1.events_pb2 import WebhookReceived
from switchboard.voice.v1 import script_pb2

from sandbox.openai_response import ResponseAnswer
from sandbox.server import running_sandbox
from services.common.journal.events import EventKind, JournalEvent
from services.common.journal.publisher import JournalPublisher
from services.messaging.assistant.openai_assistant import OpenAIAssistant
from services.messaging.consumers.journaling import WebhookJournal
from services.messaging.ports.answering import Assistant
from services.messaging.ports.recovering import ListedEvent
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.replies import SqlReplyStore
from services.messaging.usecases.reply import Replies
from services.webhook.twiml import TwimlRenderer
from tests.support.attacks import Attacks
from tests.support.edge import stored
from tests.support.hostile import Answer, Hostile, head, hostile
from tests.support.injections import ELSEWHERE, INJECTIONS, MARK
from tests.support.journal import journal
from tests.support.nats import NatsServer
from tests.support.receiving import START, inbound, phone, receive, rows
from tests.support.sandbox import sandbox_settings
from tests.support.sending import ManualClock, running, until

SECRET = "The other contact's secret"
PROMPT = "You answer for Example Estates."


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(START)


@asynccontextmanager
async def assistant(base_url: str) -> AsyncIterator[OpenAIAssistant]:
    one = OpenAIAssistant(
        api_key="openai-key",
        base_url=f"{base_url}/openai/v1",
        model="gpt-6-luna",
        prompt=PROMPT,
        timeout_seconds=5,
    )
    try:
        yield one
    finally:
        await one.close()


class Repeating:
    """An assistant that says the same again and again, and counts how often it is asked."""

    def __init__(self, text: str) -> None:
        self._text = text
        self.asked = 0

    async def answer(self, turns: object) -> str:
        self.asked += 1
        return self._text


async def write(database: Database, clock: ManualClock, *bodies: str, contact: int = 0) -> None:
    """A contact writes all of it at once, and is called the same."""
    messages = [
        inbound(f"SM{contact}-{number}", contact=contact, seconds=number, body=body, name=body)
        for number, body in enumerate(bodies)
    ]
    await receive(SqlIngestStore(database), clock=clock)(messages, [])


def replies(database: Database, clock: ManualClock, one: Assistant, **limits: Any) -> Replies:
    return Replies(
        SqlReplyStore(database, clock),
        one,
        provider="twilio",
        clock=clock,
        on_queued=lambda: None,
        context_messages=50,
        lease=timedelta(seconds=60),
        poll_seconds=0.02,
        **limits,
    )


async def outbound(database: Database) -> list[dict[str, object]]:
    return [row for row in await rows(database, "messages") if row["direction"] == "outbound"]


async def test_what_contacts_write_is_only_ever_said_by_them(
    database: Database, clock: ManualClock, attacks: Attacks
) -> None:
    """The model hears it word for word as the user's, of this conversation, beside fixed rules."""
    async with (
        running_sandbox(sandbox_settings()) as sandbox,
        assistant(sandbox.base_url) as one,
    ):
        await write(database, clock, SECRET, contact=1)
        await write(database, clock, *INJECTIONS.values())
        clock.forward(60)
        async with running(replies(database, clock, one).run()):
            await until(lambda: _is_empty(database, "pending_replies"))
        asked = {len(one.body["input"]): one.body for one in sandbox.state.openai_requests}
    said = [(one["role"], one["content"]) for one in asked[len(INJECTIONS)]["input"]]
    for kind, text in INJECTIONS.items():
        attacks.count(f"prompt injection: {kind}", through=("user", text) not in said)
    assert {role for role, _ in said} == {"user"}
    told = json.dumps([asked[len(INJECTIONS)]["instructions"], asked[1]])
    for _ in INJECTIONS:
        attacks.count("prompt injection: into rules and others' talks", through=MARK in told)
    assert SECRET not in str(asked[len(INJECTIONS)])
    sent = [(row["contact_address"], row["author"]) for row in await outbound(database)]
    assert sorted(sent) == [(f"whatsapp:{phone(number)}", "assistant") for number in (0, 1)]
    stored_texts = [row["body"] for row in await rows(database, "messages")]
    assert set(INJECTIONS.values()) <= set(stored_texts)


async def _is_empty(database: Database, table: str) -> bool:
    return not await rows(database, table)


# What a contact may talk a model into writing, and what is then sent; None: nothing.
ANSWERS: dict[str, str | None] = {
    "a\0b": "ab",
    "\0": None,
    "half \ud83d": "half ?",
    "\ude42\ud83d": "??",
    "x" * 100_000: "x" * 1599 + "\u2026",
    " \r\n\t ": None,
    "": None,
    **{text: text.strip() for text in [*INJECTIONS.values()][::5]},
}


def answering(texts: list[str]) -> Answer:
    """OpenAI that writes these, one for each request."""

    async def answer(host: Hostile, writer: asyncio.StreamWriter) -> None:
        made = ResponseAnswer({"model": "gpt-6-luna"}, texts[len(host.requests) - 1], 0).whole()
        body = json.dumps(made).encode()
        headers = ("Content-Type: application/json", f"Content-Length: {len(body)}")
        writer.write(head("200 OK", *headers, "Connection: close") + body)

    return answer


async def test_whatever_a_model_was_talked_into_is_text_for_its_contact(
    database: Database, clock: ManualClock, attacks: Attacks
) -> None:
    """NUL, broken Unicode, endless or empty answers and markup: sent as text, or nothing is."""
    for number in range(len(ANSWERS)):
        await write(database, clock, "Say something wicked", contact=number)
    clock.forward(60)
    async with (
        hostile(answering(list(ANSWERS))) as openai,
        assistant(openai.base_url) as one,
        running(replies(database, clock, one).run()),
    ):
        await until(lambda: _is_empty(database, "pending_replies"))
        # None of them is tried again.
        assert len(openai.requests) == len(ANSWERS)
    sent = await outbound(database)
    expected = [text for text in ANSWERS.values() if text is not None]
    assert sorted(str(row["body"]) for row in sent) == sorted(expected)
    assert len({row["contact_address"] for row in sent}) == len(sent)
    for row in sent:
        attacks.count(
            "answers of a talked-over model", through=ELSEWHERE in str(row["contact_address"])
        )


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_an_answer_that_cannot_be_stored_is_given_up(
    database: Database, clock: ManualClock, attacks: Attacks
) -> None:
    """The model isn't asked for ever, at the cost of whoever pays it."""
    wicked = Repeating("\ud800")
    await write(database, clock, "Say something wicked")
    # Rendering a traceback takes longer than all of this.
    with capture_logs():
        async with running(replies(database, clock, wicked, max_attempts=3).run()):
            while wicked.asked < 10 and (left := await rows(database, "pending_replies")):
                # Not during a try: who is late loses the work to whoever claims it anew.
                if left[0]["lease_until"] is None and left[0]["due_at"] > clock():
                    clock.forward(400)
                await asyncio.sleep(0.02)
    attacks.count("answers that can't be stored", through=wicked.asked > 3, evidence=wicked.asked)
    assert await outbound(database) == []


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
async def test_a_robot_is_not_answered_for_ever(
    database: Database, clock: ManualClock, attacks: Attacks
) -> None:
    """Who answers whatever it is sent gets so many answers an hour; so much is the model asked."""
    polite = Repeating("Thank you! Is there anything else?")

    async def says(number: int) -> None:
        said = inbound(f"SM{number}", seconds=(clock() - START).total_seconds(), body="Thank you!")
        await receive(SqlIngestStore(database), clock=clock)([said], [])
        clock.forward(30)
        await until(lambda: _is_empty(database, "pending_replies"))

    async with running(replies(database, clock, polite, max_answers=3).run()):
        for number in range(10):
            await says(number)
            attacks.count("talking to itself", through=polite.asked > 3, evidence=polite.asked)
        assert polite.asked == 3
        clock.forward(3600)
        await says(10)
        assert polite.asked == 4


async def test_a_lost_webhook_holds_what_can_be_stored(
    nats_server: NatsServer, attacks: Attacks
) -> None:
    """Broken text in the provider's list keeps no lost webhook from being made up for."""
    bodies = ["a\0b", "half \ud83d", "\udfff", *INJECTIONS.values()]
    async with journal(nats_server) as client:
        publisher = JournalPublisher(client)
        try:
            for number, body in enumerate(bodies):
                event = ListedEvent(
                    kind=EventKind.WHATSAPP_MESSAGE,
                    key=f"message:SM{number}",
                    provider_message_id=f"SM{number}",
                    status=None,
                    at=START,
                    parameters=(("Body", body),),
                    has_media=False,
                )
                lost = WebhookJournal(client, publisher, clock=lambda: START)
                await lost.add("twilio", event, event.parameters, START)
        finally:
            await publisher.close()
    found = [
        WebhookReceived.FromString(JournalEvent.parse(one.headers, one.data).data)
        for one in await stored(nats_server.url)
    ]
    for body, one in zip(bodies, found, strict=True):
        [parameter] = one.parameters
        cleaned = body.replace("\0", "").encode("utf-8", "replace").decode()
        attacks.count("broken text in the provider's list", through=parameter.value != cleaned)


@pytest.mark.parametrize("field", ["text", "language", "voice", "number", "audio_id"])
def test_what_is_spoken_is_never_markup(field: str, attacks: Attacks) -> None:
    """Of a script whose every word is a stranger's there is nothing but words in the TwiML."""
    for text in (*INJECTIONS.values(), "\0" + MARK, "]]>" * 2000 + MARK):
        step = script_pb2.Step()
        if field == "number":
            step.dial.number = text
        elif field == "audio_id":
            step.play.audio_id = text
        else:
            step.say.text = "Hello"
            setattr(step.say, field, text)
        twiml = TwimlRenderer("https://example.com").render(script_pb2.Script(steps=[step]))
        verbs = list(ET.fromstring(twiml))
        tags = {verb.tag for verb in verbs} - {"Say", "Hangup"}
        # Nobody to call is as if nobody had answered.
        through = bool(tags - ({"Redirect"} if field == "number" else set()))
        values = [value for verb in verbs for value in verb.attrib.values()]
        through |= any(len(verb) for verb in verbs) or any(MARK in one for one in values)
        attacks.count(f"TwiML injection: {field}", through=through, evidence=twiml)
        if field == "text":
            spoken = "".join(verb.text or "" for verb in verbs)
            assert MARK in spoken
