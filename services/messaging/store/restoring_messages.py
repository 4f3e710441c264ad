"""Messages of ours that come back from the journal, within the caller's transaction."""

from collections.abc import Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import Direction, EventKind, MessageStatus, TimeSource
from services.messaging.ports.acts import Queued
from services.messaging.store.bulk import insert_many, one_of, update_many
from services.messaging.store.contact_models import ConversationRow
from services.messaging.store.event_models import MessageEventRow
from services.messaging.store.message_models import MessageRow
from services.messaging.store.opening import ConversationKey
from services.messaging.store.unsettled import UNKNOWN
from services.messaging.store.work_models import OutboxRow

HELD: Final = timedelta(hours=1)
"""So long the outcome of a restored message isn't looked up, unless the restoring ends before: its
end is likely to come from the journal, too."""


async def restore_messages(
    connection: AsyncConnection,
    queued: Sequence[Queued],
    conversations: Mapping[str, ConversationKey],
    now: datetime,
) -> int:
    """Store messages of ours that aren't there, in the caller's transaction; returns how many.

    Args:
        conversations: Of each act, by its key.
    """
    acts = {act.message_id: act for act in queued}
    if not acts:
        return 0
    known = set(
        await connection.scalars(
            select(MessageRow.public_id).where(
                one_of(connection, MessageRow.public_id, acts.keys())
            )
        )
    )
    acts = {key: act for key, act in acts.items() if key not in known}
    if not acts:
        return 0
    # Before the outbox and the messages, as sending does.
    rows = await connection.execute(
        select(
            ConversationRow.id,
            ConversationRow.contact_address,
            ConversationRow.created_at,
            ConversationRow.last_message_at,
        )
        .where(
            one_of(
                connection, ConversationRow.id, {conversations[act.key].id for act in acts.values()}
            )
        )
        .order_by(ConversationRow.id)
        .with_for_update(key_share=True)
    )
    before = {row.id: row for row in rows}
    referred = await _referred(connection, acts.values())
    taken = await _taken(connection, acts.values(), referred)
    inserted = await insert_many(
        connection,
        MessageRow,
        [_message(act, conversations[act.key].id, referred, taken) for act in acts.values()],
        MessageRow.id,
        MessageRow.public_id,
        MessageRow.conversation_id,
    )
    ids = {row.public_id: row for row in inserted}
    # One of this batch may reply to another of it.
    await update_many(
        connection,
        MessageRow,
        {
            row.id: {"reply_to_id": ids[target].id}
            for key, row in ids.items()
            if (target := acts[key].reply_to_message_id) in ids
        },
    )
    acts = {key: act for key, act in acts.items() if key in ids}
    await insert_many(
        connection,
        MessageEventRow,
        [
            {
                "message_id": ids[key].id,
                "event_key": act.key,
                "kind": EventKind.QUEUED.value,
                "status": MessageStatus.QUEUED.value,
                "provider": act.provider,
                "occurred_at": act.at,
                "source": TimeSource.RECEIVED.value,
                "payload": {},
                "journaled": True,
            }
            for key, act in acts.items()
        ],
    )
    changes: dict[int, dict[str, Any]] = {}
    for key, act in acts.items():
        row = before[ids[key].conversation_id]
        change = changes.setdefault(
            row.id,
            {
                "contact_address": row.contact_address,
                "created_at": row.created_at,
                "last_message_at": row.last_message_at,
            },
        )
        if act.at >= change["last_message_at"]:
            change |= {"contact_address": act.contact_address, "last_message_at": act.at}
        change["created_at"] = min(change["created_at"], act.at)
    await update_many(connection, ConversationRow, changes)
    await insert_many(
        connection,
        OutboxRow,
        [
            {
                "message_id": ids[key].id,
                "conversation_id": ids[key].conversation_id,
                "state": UNKNOWN,
                "pinned": True,
                "restored": True,
                "attempts": 0,
                "due_at": now + HELD,
                "first_attempt_at": act.at,
                "last_attempt_at": now,
            }
            for key, act in acts.items()
        ],
    )
    return len(acts)


async def _referred(connection: AsyncConnection, acts: Collection[Queued]) -> dict[str, int]:
    """The messages that are answered or replied to, by our id, as far as they are there."""
    ids = {one for act in acts for one in (act.reply_to_message_id, act.answers_message_id) if one}
    if not ids:
        return {}
    rows = await connection.execute(
        select(MessageRow.public_id, MessageRow.id).where(
            one_of(connection, MessageRow.public_id, ids)
        )
    )
    return {row.public_id: row.id for row in rows}


async def _taken(
    connection: AsyncConnection, acts: Collection[Queued], referred: Mapping[str, int]
) -> tuple[set[str], set[int]]:
    """Idempotency keys and answered messages that other messages have already.

    A client may have repeated a request before the message of the first came back.
    """
    request_ids = {act.request_id for act in acts if act.request_id}
    answered = {
        referred[act.answers_message_id or ""] for act in acts if act.answers_message_id in referred
    }
    keys: set[str] = set()
    answers: set[int] = set()
    if request_ids:
        rows = await connection.scalars(
            select(MessageRow.request_id).where(
                one_of(connection, MessageRow.request_id, request_ids)
            )
        )
        keys = {one for one in rows if one is not None}
    if answered:
        found = await connection.scalars(
            select(MessageRow.answers_id).where(one_of(connection, MessageRow.answers_id, answered))
        )
        answers = {one for one in found if one is not None}
    return keys, answers


def _message(
    act: Queued,
    conversation_id: int,
    referred: Mapping[str, int],
    taken: tuple[set[str], set[int]],
) -> dict[str, Any]:
    keys, answers = taken
    template = act.template
    answers_id = referred.get(act.answers_message_id or "")
    request_id = act.request_id if act.request_id not in keys else None
    return {
        "public_id": act.message_id,
        "conversation_id": conversation_id,
        "direction": Direction.OUTBOUND.value,
        "author": act.author.value,
        "contact_address": act.contact_address,
        "own_address": act.conversation.own_address,
        "body": act.body,
        "media": [{"url": one.url, "content_type": one.content_type} for one in act.media],
        "template": template and {"id": template.id, "variables": dict(template.variables)},
        "reply_to_id": referred.get(act.reply_to_message_id or ""),
        "provider": act.provider,
        "status": MessageStatus.QUEUED.value,
        "request_id": request_id,
        "request_hash": act.request_hash if request_id else None,
        "answers_id": None if answers_id in answers else answers_id,
        "created_at": act.at,
    }
