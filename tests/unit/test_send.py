"""What SendMessage refuses before anything is stored, and what it stores."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from services.common.errors import IdempotencyConflictError, InvalidInputError
from services.messaging.domain.message import Author, Media, Template
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.usecases.send import SendMessage
from tests.support.databases import migrated
from tests.support.files import KnownFiles
from tests.support.sandbox import OUR_NUMBER
from tests.support.sending import ANY_TIME, now, open_database

MEDIA = "https://files.example.com/plan.pdf"
OUR_OTHER_NUMBER = "whatsapp:+14155238887"
TEMPLATE = Template("HX" + "0" * 32, {"1": "Dana"})


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self.rung = 0

    def __call__(self) -> None:
        self.rung += 1


@pytest.fixture
def bell() -> Bell:
    return Bell()


@pytest.fixture
async def send(tmp_path: Path, bell: Bell) -> AsyncIterator[SendMessage]:
    async with open_database(migrated(f"sqlite:///{tmp_path}/switchboard.db")) as database:
        yield SendMessage(
            SqlOutboxStore(database, now, ANY_TIME),
            own_address=OUR_NUMBER,
            own_addresses=[OUR_OTHER_NUMBER],
            provider="twilio",
            on_queued=bell,
            files=KnownFiles(),
        )


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("to", {"to": ""}),
        ("to", {"to": "0501234567"}),
        ("to", {"to": "sms:+972501234567"}),
        ("to", {"to": "whatsapp:+972501234567\0"}),
        ("to", {"to": "1-800-FLOWERS"}),
        ("to", {"to": OUR_NUMBER, "body": "", "template": TEMPLATE}),
        ("to", {"to": OUR_NUMBER.removeprefix("whatsapp:")}),
        ("to", {"to": "+1 (415) 523-8887"}),
        ("body", {"body": ""}),
        ("body", {"body": " \n\t"}),
        ("body", {"body": "x" * 1601}),
        ("body", {"body": "a\0b"}),
        ("body", {"body": "a\ud800b"}),
        ("body", {"media_url": MEDIA, "body": " "}),
        ("body", {"template": TEMPLATE}),
        ("media_url", {"media_url": MEDIA, "body": "", "template": TEMPLATE}),
        ("media_url", {"media_url": "http://files.example.com/plan.pdf"}),
        ("media_url", {"media_url": "https://10.0.0.1/plan.pdf"}),
        ("media_url", {"media_url": "http://127.0.0.1/plan.pdf"}),
        ("template.id", {"body": "", "template": Template("")}),
        ("template.id", {"body": "", "template": Template("x'; DROP TABLE")}),
        ("template.variables", {"body": "", "template": Template("HX1", {"a b": "x"})}),
        ("template.variables.1", {"body": "", "template": Template("HX1", {"1": "a\0b"})}),
        ("reply_to_message_id", {"reply_to_message_id": "nobody's"}),
        ("reply_to_message_id", {"reply_to_message_id": "a\0b"}),
        ("request_id", {"request_id": ""}),
        ("request_id", {"request_id": "x" * 256}),
        ("request_id", {"request_id": "a\0b"}),
        ("request_id", {"request_id": "a\nb"}),
        ("request_id", {"request_id": "é"}),
        ("request_id", {"request_id": "\ud800"}),
    ],
)
async def test_bad_input_is_refused(
    send: SendMessage, bell: Bell, field: str, values: dict[str, Any]
) -> None:
    """Bad input is refused with the name of its field, and nothing is stored."""
    with pytest.raises(InvalidInputError) as refused:
        await send(**{"to": "+972501234567", "body": "Hello", **values})
    assert refused.value.field == field
    assert bell.rung == 0


@pytest.mark.parametrize(
    "body", ["x", "x" * 1600, "👋" * 1600, "'; DROP TABLE messages; --", " a "]
)
async def test_body_is_stored_unchanged(send: SendMessage, bell: Bell, body: str) -> None:
    """Any text of up to 1600 characters is stored as it is, and sending is woken."""
    message = await send(to="+972501234567", body=body)
    assert message.body == body
    assert message.author is Author.API
    assert message.contact_address == "whatsapp:+972501234567"
    assert bell.rung == 1


async def test_request_id_holds_for_ever(send: SendMessage, bell: Bell) -> None:
    """One key means one message: other spellings of `to` are the same, another text is not."""
    first = await send(to="whatsapp:+972501234567", body="Hello", request_id="key")
    again = await send(to="+972501234567", body="Hello", request_id="key")
    assert again == first
    assert bell.rung == 1
    others: list[dict[str, Any]] = [
        {"body": "Hello!"},
        {"to": "+972501234568"},
        {"media_url": MEDIA},
        {"template": TEMPLATE, "body": ""},
        {"reply_to_message_id": first.id},
        {"from_person": True},
    ]
    for values in others:
        with pytest.raises(IdempotencyConflictError):
            await send(**{"to": "+972501234567", "body": "Hello", "request_id": "key", **values})
    without_key = await send(to="+972501234567", body="Hello")
    assert without_key.id != first.id


async def test_template_variables_have_no_order(send: SendMessage) -> None:
    """The same template with the same variables is the same request, in whatever order."""
    first = await send(
        to="+972501234567", template=Template("HX1", {"1": "a", "2": "b"}), request_id="key"
    )
    again = await send(
        to="+972501234567", template=Template("HX1", {"2": "b", "1": "a"}), request_id="key"
    )
    assert again == first
    assert first.template == Template("HX1", {"1": "a", "2": "b"})
    assert first.body == ""


async def test_media_goes_with_or_without_a_caption(send: SendMessage) -> None:
    """A file's address and the type that its host tells are kept, beside its caption."""
    plain = await send(to="+972501234567", media_url=MEDIA)
    captioned = await send(to="+972501234567", media_url=MEDIA, body="The plan")
    assert plain.media == captioned.media == (Media(MEDIA, "application/pdf"),)
    assert (plain.body, captioned.body) == ("", "The plan")


async def test_a_reply_belongs_to_its_conversation(send: SendMessage) -> None:
    """A reply names a message of the same conversation; one of another is refused."""
    first = await send(to="+972501234567", body="Hello")
    reply = await send(to="+972501234567", body="Well?", reply_to_message_id=first.id)
    assert reply.reply_to_message_id == first.id
    with pytest.raises(InvalidInputError):
        await send(to="+15550001111", body="Well?", reply_to_message_id=first.id)


async def test_user_without_a_number(send: SendMessage) -> None:
    """A contact known only by a WhatsApp user id can be written to."""
    message = await send(to="US.13491208655302", body="Hello")
    assert message.contact_address == "whatsapp:US.13491208655302"


async def test_caller_that_gives_up(send: SendMessage) -> None:
    """A call that is cancelled at any moment leaves the message whole or absent, and no lock."""
    for number in range(50):
        call = asyncio.create_task(send(to=f"+9725000{number:05}", body="Hello", request_id="key"))
        await asyncio.sleep(number / 10_000)
        call.cancel()
        with contextlib.suppress(asyncio.CancelledError, IdempotencyConflictError):
            await call
    async with asyncio.timeout(60):
        await send(to="+972501234567", body="Hello")
