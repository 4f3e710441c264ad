"""What tests of receiving share: events, and the stored state in a form that can be compared."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.timestamp_pb2 import Timestamp
from sqlalchemy import delete, select, text
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from services.common.journal.events import EventKind, JournalEvent
from services.common.tracing import new_traceparent
from services.messaging.domain.contact import (
    InboundMessage,
    whatsapp_identity,
    whatsapp_username,
)
from services.messaging.domain.message import MessageStatus, Moment, StatusReport, TimeSource
from services.messaging.domain.opt_out import OptOutWords
from services.messaging.ports.clock import Clock
from services.messaging.ports.receiving import IngestStore
from services.messaging.store.database import Database
from services.messaging.store.schema import SCHEMA
from services.messaging.usecases.receive import Receive, ReplyPolicy

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
OWN = "whatsapp:+14155238886"
POLICY = ReplyPolicy(
    pause=timedelta(seconds=2), max_wait=timedelta(seconds=10), max_age=timedelta(hours=1)
)


def at(seconds: float) -> datetime:
    """A time after `START`."""
    return START + timedelta(seconds=seconds)


def phone(number: int) -> str:
    """The address of one of the test's contacts."""
    return f"+97250{number:07d}"


def inbound(
    sid: str,
    *,
    contact: int = 0,
    seconds: float = 0,
    body: str = "Hello",
    name: str = "",
    address: str | None = None,
    others: Sequence[str] = (),
    user_name: str = "",
) -> InboundMessage:
    """A message from a contact, `seconds` after `START`.

    Args:
        address: A WhatsApp user id, when the contact shows no number.
        others: Further identities.
    """
    address = f"whatsapp:{address or phone(contact)}"
    identities = [
        *(whatsapp_identity(one) for one in (address, *others)),
        whatsapp_username(user_name),
    ]
    return InboundMessage(
        event_key=f"message:{sid}",
        provider="twilio",
        provider_message_id=sid,
        identities=tuple(one for one in identities if one is not None),
        contact_address=address,
        own_address=OWN,
        body=body,
        received_at=at(seconds),
        profile_name=name,
        payload={"Body": body, "Repeated": ["1", "2"]},
    )


def report(
    sid: str,
    status: MessageStatus | None,
    *,
    seconds: float = 0,
    message_id: str | None = None,
    error_code: str | None = None,
    provider: str = "twilio",
) -> StatusReport:
    """A status report that arrived `seconds` after `START`."""
    return StatusReport(
        event_key=f"status:{sid}:{status}:{error_code}",
        provider=provider,
        provider_message_id=sid,
        status=status,
        moment=Moment(at(seconds), TimeSource.RECEIVED),
        message_id=message_id,
        error_code=error_code,
        payload={"MessageSid": sid},
    )


def receive(store: IngestStore, *, clock: Clock, replies: ReplyPolicy | None = POLICY) -> Receive:
    """The use case as messaging wires it."""
    return Receive(store, OptOutWords(), replies=replies, clock=clock, on_stored=lambda: None)


def webhook_event(
    kind: EventKind,
    key: str,
    parameters: Mapping[str, str],
    *,
    query: Mapping[str, str] | None = None,
    provider: str = "twilio",
    received_at: datetime = START,
) -> JournalEvent:
    """An event as the edge journals it."""
    stamp = Timestamp()
    stamp.FromDatetime(received_at)
    webhook = WebhookReceived(
        provider=provider,
        parameters=[Parameter(name=name, value=text) for name, text in parameters.items()],
        query_parameters=[Parameter(name=name, value=text) for name, text in (query or {}).items()],
        received_at=stamp,
    )
    return JournalEvent(
        kind=kind,
        key=key,
        source="/webhook/test",
        time=received_at,
        data=webhook.SerializeToString(),
        traceparent=new_traceparent(),
    )


def message_event(number: int, *, contact: int = 0, body: str = "Hello") -> JournalEvent:
    """A journaled message of Twilio's, its number in MessageSid and time."""
    return webhook_event(
        EventKind.WHATSAPP_MESSAGE,
        f"message:SM{number:08d}",
        {
            "MessageSid": f"SM{number:08d}",
            "From": f"whatsapp:{phone(contact)}",
            "To": OWN,
            "Body": body,
            "ProfileName": f"Contact {contact}",
        },
        received_at=at(number / 1000),
    )


def status_event(sid: str, status: str, *, message_id: str | None = None) -> JournalEvent:
    """A journaled status callback of Twilio's."""
    return webhook_event(
        EventKind.WHATSAPP_STATUS,
        f"status:{sid}:{status}",
        {"MessageSid": sid, "MessageStatus": status},
        query={"message": message_id} if message_id else None,
    )


async def rows(database: Database, table: str) -> list[dict[str, Any]]:
    """Every row of a table."""
    source = SCHEMA.tables[table]
    async with database.read() as connection:
        found = await connection.execute(select(source).order_by(*source.primary_key))
        return [dict(row._mapping) for row in found]


async def clear(database: Database) -> None:
    """Empty every table."""
    tables = list(reversed(SCHEMA.sorted_tables))
    async with database.write() as connection:
        if database.dialect == "postgresql":
            # Row by row it would look for replies to each message.
            names = ", ".join(table.name for table in tables)
            await connection.execute(text(f"TRUNCATE {names}"))
            return
        for table in tables:
            await connection.execute(delete(table))


async def state(database: Database) -> dict[str, Any]:
    """Everything stored, by natural keys: equal for databases that say the same.

    Left out is what depends on chance or the wall clock: surrogate ids, public ids, the time at
    which a contact or conversation first appeared, and at which the assistant was asked.
    """
    names: dict[int, list[tuple[str, str]]] = {}
    for row in await rows(database, "contact_identities"):
        names.setdefault(row["contact_id"], []).append((row["kind"], row["value"]))
    contacts = {key: tuple(sorted(value)) for key, value in names.items()}
    conversations = {
        row["id"]: (contacts[row["contact_id"]], row["own_address"])
        for row in await rows(database, "conversations")
    }
    messages = {
        row["id"]: row["provider_message_id"] or f"unsent: {row['body']}"
        for row in await rows(database, "messages")
    }
    ids = {row["id"]: row["public_id"] for row in await rows(database, "messages")}
    return {
        "identities": sorted(
            (row["kind"], row["value"], str(row["named_at"]), contacts[row["contact_id"]])
            for row in await rows(database, "contact_identities")
        ),
        "contacts": {
            contacts[row["id"]]: _without(row, "id", "public_id", "created_at")
            for row in await rows(database, "contacts")
        },
        "conversations": {
            conversations[row["id"]]: _without(row, "id", "public_id", "contact_id", "created_at")
            for row in await rows(database, "conversations")
        },
        "messages": {
            messages[row["id"]]: {
                **_without(row, "id", "public_id", "asked_at"),
                "conversation_id": conversations[row["conversation_id"]],
            }
            for row in await rows(database, "messages")
        },
        "events": sorted(
            (
                messages[row["message_id"]],
                row["event_key"].replace(ids[row["message_id"]], "own id"),
                row["kind"],
                str(row["status"]),
                row["occurred_at"],
                str(row["payload"]),
            )
            for row in await rows(database, "message_events")
        ),
        "parked": sorted(
            (row["event_key"], str(row["status"]))
            for row in await rows(database, "parked_statuses")
        ),
        "outbox": sorted(
            (messages[row["message_id"]], row["state"]) for row in await rows(database, "outbox")
        ),
        "replies": {
            conversations[row["conversation_id"]]: (row["due_at"], row["latest_at"])
            for row in await rows(database, "pending_replies")
        },
    }


def _without(row: dict[str, Any], *names: str) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in names}


class Inbox:
    """Handles messages by remembering them."""

    def __init__(self) -> None:
        self.ids: list[str] = []

    async def __call__(
        self, messages: Sequence[InboundMessage], reports: Sequence[StatusReport]
    ) -> None:
        self.ids += [message.provider_message_id for message in messages]
