"""Making one contact of several that turn out to be one person.

Runs in a transaction of its own, so that it can lock in the order that `store.schema` gives. While
it lasts nobody else can add to these contacts and their conversations. Whoever waits for it finds
the contact gone and looks again; whoever is sending or answering goes on: a send knows its message
and not its conversation, and an answer to a conversation that is gone is made anew.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import Row, case, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.orm import QueryableAttribute

from services.messaging.store.contact_models import (
    ContactRow,
    ConversationAliasRow,
    ConversationRow,
    IdentityRow,
)
from services.messaging.store.event_models import ConversationEventRow
from services.messaging.store.followup import opted_out_since
from services.messaging.store.forbidding import cancel_automatic
from services.messaging.store.message_models import MessageRow
from services.messaging.store.pausing import fold_pauses
from services.messaging.store.unsettled import DUE, WAITING
from services.messaging.store.work_models import OutboxRow, PendingReplyRow

log = structlog.get_logger(__name__)

AnyRow = Row[*tuple[Any, ...]]


async def merge_contacts(connection: AsyncConnection, contact_ids: Collection[int]) -> None:
    """Merge contacts into the one that was stored first, with all that belongs to them.

    Of the conversations with one address of ours that contact's goes on, and the others' ids lead
    to it. Contacts that don't exist any more are passed over: somebody else has merged them.
    """
    contacts = (
        await connection.execute(
            select(*ContactRow.__table__.columns)
            .where(ContactRow.id.in_(contact_ids))
            .order_by(ContactRow.id)
            .with_for_update()
        )
    ).all()
    if len(contacts) < 2:
        return
    survivor, losers = contacts[0].id, [row.id for row in contacts[1:]]
    await _lock_identities(connection, losers)
    pending, conversations = await _lock_conversations(connection, [survivor, *losers])
    successors = {row.id: same[0].id for same in _by_address(conversations) for row in same[1:]}
    if successors:
        await _move_messages(connection, successors)
        await _keep_ids(connection, conversations, successors)
        await connection.execute(
            update(ConversationEventRow)
            .where(ConversationEventRow.conversation_id.in_(successors))
            .values(conversation_id=_successor(ConversationEventRow.conversation_id, successors))
        )
        await _join_pending(connection, pending, successors)
        await connection.execute(delete(ConversationRow).where(ConversationRow.id.in_(successors)))
    for same in _by_address(conversations):
        await connection.execute(
            update(ConversationRow)
            .where(ConversationRow.id == same[0].id)
            .values(
                contact_id=survivor,
                read_up_to_id=await _newest(connection, [row.read_up_to_id for row in same]),
                **_conversation(same),
            )
        )
    await fold_pauses(connection, [same[0].id for same in _by_address(conversations)])
    await connection.execute(
        update(IdentityRow).where(IdentityRow.contact_id.in_(losers)).values(contact_id=survivor)
    )
    await connection.execute(delete(ContactRow).where(ContactRow.id.in_(losers)))
    contact = _contact(contacts)
    await connection.execute(update(ContactRow).where(ContactRow.id == survivor).values(**contact))
    await _silence(connection, survivor, contact["opted_out_at"])
    log.info("contacts are one person", contacts=len(contacts), conversations=len(successors))


def _by_address(conversations: Iterable[AnyRow]) -> list[list[AnyRow]]:
    """Conversations by our own address, in each list the one that goes on first.

    A contact that goes on keeps its conversations: whoever waits for it may know them already.
    """
    found: dict[str, list[AnyRow]] = defaultdict(list)
    for row in sorted(conversations, key=lambda row: (row.contact_id, row.id)):
        found[row.own_address].append(row)
    return list(found.values())


async def _lock_identities(connection: AsyncConnection, contact_ids: Collection[int]) -> None:
    """Before the messages: who passes a user name on holds it, and may want a message next."""
    await connection.execute(
        select(IdentityRow.id)
        .where(IdentityRow.contact_id.in_(contact_ids))
        .order_by(IdentityRow.kind, IdentityRow.value)
        .with_for_update()
    )


async def _lock_conversations(
    connection: AsyncConnection, contact_ids: Collection[int]
) -> tuple[Sequence[AnyRow], Sequence[AnyRow]]:
    """The contacts' pending replies and conversations, these locked first."""
    of_them = ConversationRow.contact_id.in_(contact_ids)
    conversations = (
        await connection.execute(
            select(*ConversationRow.__table__.columns)
            .where(of_them)
            .order_by(ConversationRow.id)
            .with_for_update()
        )
    ).all()
    pending = await connection.execute(
        select(*PendingReplyRow.__table__.columns)
        .where(PendingReplyRow.conversation_id.in_([row.id for row in conversations]))
        .order_by(PendingReplyRow.conversation_id)
        .with_for_update()
    )
    return pending.all(), conversations


async def _move_messages(connection: AsyncConnection, successors: Mapping[int, int]) -> None:
    unsettled = await connection.execute(
        select(OutboxRow.message_id, OutboxRow.conversation_id, OutboxRow.state)
        .where(OutboxRow.conversation_id.in_({*successors, *successors.values()}))
        .order_by(OutboxRow.message_id)
        .with_for_update()
    )
    oldest: dict[int, int] = {}
    behind: list[int] = []
    for row in unsettled:
        conversation_id = successors.get(row.conversation_id, row.conversation_id)
        first = oldest.setdefault(conversation_id, row.message_id)
        if row.state == DUE and row.message_id != first:
            behind.append(row.message_id)
    # Each conversation had one message that could go next, and now there is one conversation.
    await connection.execute(
        update(OutboxRow).where(OutboxRow.message_id.in_(behind)).values(state=WAITING)
    )
    await connection.execute(
        update(OutboxRow)
        .where(OutboxRow.conversation_id.in_(successors))
        .values(conversation_id=_successor(OutboxRow.conversation_id, successors))
    )
    moved = MessageRow.conversation_id.in_(successors)
    in_order = select(MessageRow.id).where(moved).order_by(MessageRow.id)
    locked = in_order.with_for_update(key_share=True).subquery()
    await connection.execute(select(func.count()).select_from(locked))
    await connection.execute(
        update(MessageRow)
        .where(moved)
        .values(conversation_id=_successor(MessageRow.conversation_id, successors))
    )


def _successor(column: QueryableAttribute[int], successors: Mapping[int, int]) -> Any:
    return case(dict(successors), value=column)


async def _keep_ids(
    connection: AsyncConnection, conversations: Iterable[AnyRow], successors: Mapping[int, int]
) -> None:
    """Let the ids that go lead to the conversations that stay."""
    await connection.execute(
        update(ConversationAliasRow)
        .where(ConversationAliasRow.conversation_id.in_(successors))
        .values(conversation_id=_successor(ConversationAliasRow.conversation_id, successors))
    )
    await connection.execute(
        insert(ConversationAliasRow),
        [
            {"public_id": row.public_id, "conversation_id": successors[row.id]}
            for row in conversations
            if row.id in successors
        ],
    )


async def _join_pending(
    connection: AsyncConnection, pending: Iterable[AnyRow], successors: Mapping[int, int]
) -> None:
    """One answer for what waits in conversations that become one, as for a burst."""
    joined: dict[int, list[AnyRow]] = defaultdict(list)
    for row in pending:
        joined[successors.get(row.conversation_id, row.conversation_id)].append(row)
    changed = {
        key: rows for key, rows in joined.items() if any(r.conversation_id != key for r in rows)
    }
    await connection.execute(
        delete(PendingReplyRow).where(
            PendingReplyRow.conversation_id.in_(
                [row.conversation_id for rows in changed.values() for row in rows]
            )
        )
    )
    for conversation_id, rows in changed.items():
        latest_at = min(row.latest_at for row in rows)
        await connection.execute(
            insert(PendingReplyRow).values(
                conversation_id=conversation_id,
                up_to_id=max(row.up_to_id for row in rows),
                due_at=min(max(row.due_at for row in rows), latest_at),
                latest_at=latest_at,
                attempts=0,
            )
        )


async def _silence(
    connection: AsyncConnection, contact_id: int, opted_out_at: datetime | None
) -> None:
    """What one of them asked for holds for all: no automatic messages, or none here."""
    silent = select(ConversationRow.id).where(ConversationRow.contact_id == contact_id)
    if opted_out_at is None:
        silent = silent.where(ConversationRow.assistant_paused_at.is_not(None))
    else:
        await cancel_automatic(connection, [contact_id], opted_out_at)
    await connection.execute(
        delete(PendingReplyRow).where(PendingReplyRow.conversation_id.in_(silent))
    )


async def _newest(connection: AsyncConnection, message_ids: Sequence[int | None]) -> int | None:
    """The newest of some messages, in the order in which they are read."""
    return await connection.scalar(
        select(MessageRow.id)
        .where(MessageRow.id.in_([one for one in message_ids if one is not None]))
        .order_by(MessageRow.created_at.desc(), MessageRow.id.desc())
        .limit(1)
    )


def _contact(rows: Sequence[AnyRow]) -> dict[str, Any]:
    named_at, name = max(
        ((row.named_at, row.display_name) for row in rows if row.named_at), default=(None, "")
    )
    out_at = _latest(row.last_opt_out_at for row in rows)
    in_at = _latest(row.last_opt_in_at for row in rows)
    return {
        "display_name": name,
        "named_at": named_at,
        "opted_out_at": opted_out_since(out_at, in_at),
        "last_opt_out_at": out_at,
        "last_opt_in_at": in_at,
        "created_at": min(row.created_at for row in rows),
    }


def _conversation(rows: Sequence[AnyRow]) -> dict[str, Any]:
    newest = max(rows, key=lambda row: (row.last_message_at, row.contact_address))
    return {
        "contact_address": newest.contact_address,
        "created_at": min(row.created_at for row in rows),
        "last_message_at": newest.last_message_at,
        "last_inbound_at": _latest(row.last_inbound_at for row in rows),
        "unread_count": sum(row.unread_count for row in rows),
        "paced_until": _latest(row.paced_until for row in rows),
    }


def _latest(times: Iterable[datetime | None]) -> datetime | None:
    return max((time for time in times if time), default=None)
