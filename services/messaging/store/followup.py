"""What new messages change besides being there: the contact, the conversation, the reply due."""

import functools
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import Executable, Row, Select, case, delete, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.conversation import PausedBy
from services.messaging.ports.receiving import ReceivedMessage
from services.messaging.store.bulk import among, execute_many, insertion, update_many
from services.messaging.store.contact_models import ContactRow, ConversationRow
from services.messaging.store.opening import ConversationKey
from services.messaging.store.pausing import pause
from services.messaging.store.work_models import PendingReplyRow

AnyRow = Row[*tuple[Any, ...]]


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """An inbound message that was new, with its row id and conversation."""

    id: int
    conversation: ConversationKey
    received: ReceivedMessage

    @property
    def at(self) -> datetime:
        """The message's own time: it decides between messages, whatever order they came in."""
        return self.received.message.received_at


async def follow_up(connection: AsyncConnection, stored: Sequence[StoredMessage]) -> frozenset[int]:
    """Write down what follows from new messages; returns the contacts that opted out with them."""
    by_contact: dict[int, list[StoredMessage]] = defaultdict(list)
    by_conversation: dict[int, list[StoredMessage]] = defaultdict(list)
    for one in stored:
        by_contact[one.conversation.contact_id].append(one)
        by_conversation[one.conversation.id].append(one)
    rows = await _lock(connection, by_conversation)
    contacts = {row.contact_id: _contact(row, by_contact[row.contact_id]) for row in rows}
    unchanged = {
        row.contact_id
        for row in rows
        if all(getattr(row, name) == value for name, value in contacts[row.contact_id].items())
    }
    await update_many(
        connection, ContactRow, {key: contacts[key] for key in sorted(contacts.keys() - unchanged)}
    )
    await update_many(
        connection,
        ConversationRow,
        {
            row.conversation_id: _conversation(row, by_conversation[row.conversation_id])
            for row in rows
        },
    )
    paused = {row.conversation_id for row in rows if row.assistant_paused_at is not None}
    for conversation_id, messages in sorted(by_conversation.items()):
        by_person = [one.at for one in messages if one.received.message.from_us]
        if by_person:
            await pause(connection, conversation_id, PausedBy.PERSON, min(by_person))
            paused.add(conversation_id)
    await _request_replies(
        connection,
        {key: value for key, value in by_conversation.items() if key not in paused},
        contacts,
    )
    opted_out = frozenset(
        contact_id
        for contact_id, messages in by_contact.items()
        if contacts[contact_id]["opted_out_at"] and any(one.received.opted_out for one in messages)
    )
    if opted_out:
        await connection.execute(
            delete(PendingReplyRow).where(
                PendingReplyRow.conversation_id.in_(_conversations_of(opted_out))
            )
        )
    return opted_out


def _conversations_of(contact_ids: Collection[int]) -> Select[int]:
    return select(ConversationRow.id).where(ConversationRow.contact_id.in_(contact_ids))


async def _lock(connection: AsyncConnection, conversation_ids: Iterable[int]) -> Sequence[AnyRow]:
    rows = await connection.execute(
        _locking(connection.dialect.name), {"conversation_ids": list(conversation_ids)}
    )
    return rows.all()


@functools.cache
def _locking(dialect: str) -> Select[*tuple[Any, ...]]:
    return (
        select(
            ConversationRow.id.label("conversation_id"),
            ConversationRow.contact_address,
            ConversationRow.created_at,
            ConversationRow.last_message_at,
            ConversationRow.last_inbound_at,
            ConversationRow.unread_count,
            ConversationRow.assistant_paused_at,
            ContactRow.id.label("contact_id"),
            ContactRow.display_name,
            ContactRow.named_at,
            ContactRow.opted_out_at,
            ContactRow.last_opt_out_at,
            ContactRow.last_opt_in_at,
        )
        .join(ContactRow, ContactRow.id == ConversationRow.contact_id)
        .where(among(dialect, ConversationRow.id, "conversation_ids"))
        .order_by(ContactRow.id, ConversationRow.id)
        # Not "for update": that would also wait for whoever adds a message to the conversation.
        .with_for_update(key_share=True)
    )


def _contact(row: AnyRow, messages: Sequence[StoredMessage]) -> dict[str, Any]:
    named_at, name = row.named_at, row.display_name
    out_at, in_at = row.last_opt_out_at, row.last_opt_in_at
    for one in messages:
        given = one.received.message.profile_name
        if given and (named_at is None or (named_at, name) < (one.at, given)):
            named_at, name = one.at, given
        if one.received.opted_out:
            out_at = _later(out_at, one.at)
        elif one.received.opted_out is False:
            in_at = _later(in_at, one.at)
    return {
        "display_name": name,
        "named_at": named_at,
        "opted_out_at": opted_out_since(out_at, in_at),
        "last_opt_out_at": out_at,
        "last_opt_in_at": in_at,
    }


def opted_out_since(out_at: datetime | None, in_at: datetime | None) -> datetime | None:
    """What the last opt-out and the last opt-in together mean; None when messages are welcome."""
    return out_at if out_at is not None and (in_at is None or out_at >= in_at) else None


def _conversation(row: AnyRow, messages: Sequence[StoredMessage]) -> dict[str, Any]:
    newest, address = max((one.at, one.received.message.contact_address) for one in messages)
    inbound = [one.at for one in messages if not one.received.message.from_us]
    return {
        "contact_address": address if newest >= row.last_message_at else row.contact_address,
        # A message that was on its way for longer came first all the same.
        "created_at": min(row.created_at, *(one.at for one in messages)),
        "last_message_at": max(row.last_message_at, newest),
        "last_inbound_at": _later(row.last_inbound_at, *inbound),
        "unread_count": row.unread_count + len(inbound),
    }


def _later(known: datetime | None, *times: datetime) -> datetime | None:
    return max((known, *times)) if known else max(times, default=None)


async def _request_replies(
    connection: AsyncConnection,
    by_conversation: Mapping[int, Sequence[StoredMessage]],
    contacts: Mapping[int, dict[str, Any]],
) -> None:
    """Ask for one answer to each conversation; more messages put it off, to a limit."""
    requests = []
    for conversation_id, messages in sorted(by_conversation.items()):
        contact = contacts[messages[0].conversation.contact_id]
        silenced_at = contact["last_opt_out_at"]
        # Whoever opted out and in again doesn't want what came before answered.
        wanted = [
            (one.id, one.received.reply)
            for one in messages
            if one.received.reply and (silenced_at is None or one.at > silenced_at)
        ]
        if not wanted or contact["opted_out_at"]:
            continue
        latest_at = min(reply.latest_at for _, reply in wanted)
        requests.append(
            {
                "conversation_id": conversation_id,
                "up_to_id": max(row_id for row_id, _ in wanted),
                "due_at": min(max(reply.due_at for _, reply in wanted), latest_at),
                "latest_at": latest_at,
                "attempts": 0,
            }
        )
    if requests:
        statement = _requesting(connection.dialect.name, tuple(requests[0]))
        await execute_many(connection, statement, requests)


@functools.cache
def _requesting(dialect: str, names: Sequence[str]) -> Executable:
    statement = insertion(dialect, PendingReplyRow, names)
    new = statement.excluded
    latest_at = _lesser(PendingReplyRow.latest_at, new.latest_at)
    due_at = _greater(PendingReplyRow.due_at, new.due_at)
    return statement.on_conflict_do_update(
        index_elements=[PendingReplyRow.conversation_id],
        set_={
            "up_to_id": _greater(PendingReplyRow.up_to_id, new.up_to_id),
            "due_at": _lesser(due_at, latest_at),
            "latest_at": latest_at,
            "attempts": 0,
            # The lease stays: an answer being written is thrown away and made anew.
        },
    )


def _greater(one: Any, other: Any) -> Any:
    return case((one < other, other), else_=one)


def _lesser(one: Any, other: Any) -> Any:
    return case((one < other, one), else_=other)
