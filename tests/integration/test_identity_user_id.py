"""A contact who shows no number, only WhatsApp's user id and a user name."""

from datetime import timedelta

import httpx
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.conversation import WINDOW
from services.messaging.providers.twilio.webhooks import inbound_message
from services.messaging.store.conversations import SqlConversationStore
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.usecases.policy import SendPolicy
from services.messaging.usecases.send import SendMessage
from tests.support.files import KnownFiles
from tests.support.receiving import receive, rows
from tests.support.sandbox import OUR_NUMBER, Receiver, running_receiver
from tests.support.sending import (
    ingesting,
    now,
    open_database,
    open_sandbox,
    running,
    sender,
    stored,
    twilio,
    until,
)

USER_ID = "US.13491208655302"


async def test_a_contact_without_a_number_is_read_and_answered(database_url: str) -> None:
    """Their message opens a conversation and the window, and our answer reaches them."""
    async with (
        running_receiver() as receiver,
        open_sandbox(webhook_url=receiver.base_url, public_host=receiver.base_url) as sandbox,
        open_database(database_url) as database,
        twilio(sandbox.base_url, public_host=receiver.base_url) as provider,
        httpx.AsyncClient(base_url=sandbox.base_url, timeout=60) as http,
    ):
        written = {"body": "No number here", "parameters": {"ProfileUsername": "@Dana.L"}}
        await http.post(f"/sandbox/contacts/{USER_ID}/messages", json=written)
        await receive(SqlIngestStore(database), clock=now)([_message(receiver)], [])
        receiver.received.clear()

        identities = await rows(database, "contact_identities")
        assert {(row["kind"], row["value"]) for row in identities} == {
            ("whatsapp_bsuid", USER_ID),
            ("whatsapp_username", "dana.l"),
        }
        [conversation] = await rows(database, "conversations")
        assert conversation["contact_address"] == f"whatsapp:{USER_ID}"

        outbox = SqlOutboxStore(database, now, SendPolicy(window=WINDOW))
        send = SendMessage(
            outbox,
            own_address=OUR_NUMBER,
            provider=provider.name,
            on_queued=lambda: None,
            files=KnownFiles(),
        )
        answer = await send(to=conversation["contact_address"], body="Hello you")
        assert answer.conversation_id == conversation["public_id"]

        async def was_read() -> bool:
            return bool((await stored(database))[-1].status == "read")

        async with (
            ingesting(receiver, database),
            running(sender(outbox, provider).dispatcher.run()),
        ):
            await until(was_read)
        [sent] = [one for one in sandbox.state.messages.values() if one.direction != "inbound"]
        assert (sent.recipient, sent.body) == (f"whatsapp:{USER_ID}", "Hello you")
        found = await SqlConversationStore(database, now).conversation(conversation["public_id"])
        assert found is not None
        assert found.window_closes_at is not None
        assert found.window_closes_at > now() + timedelta(hours=23)


def _message(receiver: Receiver) -> InboundMessage:
    form = receiver.received[-1].form
    webhook = WebhookReceived(
        parameters=[Parameter(name=name, value=value) for name, value in form.multi_items()]
    )
    return inbound_message(f"message:{form['MessageSid']}", webhook, now())
