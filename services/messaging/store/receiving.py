"""Adding messages that were received, within the caller's transaction."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import Author, Direction, Media, MessageStatus, TimeSource
from services.messaging.ports.receiving import ReceivedMessage
from services.messaging.store.bulk import insert_many, update_many
from services.messaging.store.contacts import resolve_conversations
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.followup import StoredMessage, follow_up
from services.messaging.store.forbidding import cancel_automatic
from services.messaging.store.message_models import MessageRow
from services.messaging.store.opening import Party
from services.messaging.store.public_ids import received_id
from services.messaging.store.work_models import MediaFetchRow

# Reading an enumeration's value takes long for what is done with every message.
_FROM_CONTACT: Final[Mapping[str, Any]] = {
    "direction": Direction.INBOUND.value,
    "author": Author.CONTACT.value,
    "status": MessageStatus.RECEIVED.value,
    "sent_at": None,
    "sent_source": None,
}
_FROM_US: Final[Mapping[str, Any]] = {
    "direction": Direction.OUTBOUND.value,
    "author": Author.PERSON.value,
    "status": MessageStatus.SENT.value,
    "sent_source": TimeSource.PROVIDER.value,
}
_OUR_CLOCK: Final = TimeSource.RECEIVED.value


async def store_messages(connection: AsyncConnection, received: Iterable[ReceivedMessage]) -> int:
    """Add messages that aren't there yet, and what follows from them; returns how many."""
    # Each once, and in the same order in every transaction: two of them with the same messages
    # then wait for each other instead of both.
    distinct = {(one.message.provider, one.message.provider_message_id): one for one in received}
    ordered = sorted(distinct.items())
    if not ordered:
        return 0
    messages = [one.message for _, one in ordered]
    conversations = await resolve_conversations(
        connection,
        [
            Party(one.identities, one.contact_address, one.own_address, one.received_at)
            for one in messages
        ],
        min(one.received_at for one in messages),
    )
    inserted = await insert_many(
        connection,
        MessageRow,
        [
            {
                "public_id": received_id(message.provider, message.provider_message_id),
                "conversation_id": conversation.id,
                **_from(message),
                "contact_address": message.contact_address,
                "own_address": message.own_address,
                "body": message.body,
                "media": [_file(one) for one in message.media],
                "provider": message.provider,
                "provider_message_id": message.provider_message_id,
                "created_at": message.received_at,
                "traceparent": message.traceparent or None,
            }
            for message, conversation in zip(messages, conversations, strict=True)
        ],
        MessageRow.id,
        MessageRow.provider,
        MessageRow.provider_message_id,
    )
    row_ids = {(row.provider, row.provider_message_id): row.id for row in inserted}
    new = [
        StoredMessage(row_ids[key], conversation, one)
        for (key, one), conversation in zip(ordered, conversations, strict=True)
        if key in row_ids
    ]
    if new:
        await _add_events(connection, new)
        await _note_replies(connection, new)
        await _queue_media(connection, new)
        opted_out = await follow_up(connection, new)
        if opted_out:
            await cancel_automatic(connection, opted_out, max(one.at for one in new))
    return len(new)


async def _add_events(connection: AsyncConnection, new: Sequence[StoredMessage]) -> None:
    await insert_many(
        connection,
        MessageEventRow,
        [
            {
                "message_id": one.id,
                "event_key": one.received.message.event_key,
                "kind": "received",
                "status": _from(one.received.message)["status"],
                "provider": one.received.message.provider,
                "origin": one.received.message.origin or None,
                "occurred_at": one.at,
                "source": _OUR_CLOCK,
                "payload": dict(one.received.message.payload),
            }
            for one in new
        ],
    )


async def _queue_media(connection: AsyncConnection, new: Sequence[StoredMessage]) -> None:
    await insert_many(
        connection,
        MediaFetchRow,
        [
            {"message_id": one.id, "attempts": 0, "due_at": one.at}
            for one in new
            if any(file.problem is None for file in one.received.message.media)
        ],
    )


def _from(message: InboundMessage) -> Mapping[str, Any]:
    """What the columns say of who wrote a message, all of them for every message."""
    return {**_FROM_US, "sent_at": message.received_at} if message.from_us else _FROM_CONTACT


def _file(media: Media) -> dict[str, str]:
    file = {"url": media.url, "content_type": media.content_type}
    return file if media.problem is None else {**file, "problem": media.problem}


async def _note_replies(connection: AsyncConnection, new: Sequence[StoredMessage]) -> None:
    """Link messages to those that they reply to, as far as these are in the conversation."""
    replies = {
        (message.provider, message.reply_to, one.conversation.id): one.id
        for one in new
        if (message := one.received.message).reply_to is not None
    }
    if not replies:
        return
    rows = await connection.execute(
        select(
            MessageRow.id,
            MessageRow.provider,
            MessageRow.provider_message_id,
            MessageRow.conversation_id,
        ).where(
            or_(
                *(
                    and_(MessageRow.provider == provider, MessageRow.provider_message_id == id_)
                    for provider, id_, _ in replies
                )
            )
        )
    )
    known = {(row.provider, row.provider_message_id, row.conversation_id): row.id for row in rows}
    await update_many(
        connection,
        MessageRow,
        {row_id: {"reply_to_id": known[key]} for key, row_id in replies.items() if key in known},
    )
