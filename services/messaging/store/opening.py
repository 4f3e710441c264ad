"""Finding and beginning conversations of known contacts, within the caller's transaction."""

import functools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Select, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.contact import Identity
from services.messaging.store.bulk import among, insert_many
from services.messaging.store.contact_models import ContactRow, ConversationRow
from services.messaging.store.event_models import ConversationEventRow
from services.messaging.store.public_ids import new_public_id


@dataclass(frozen=True, slots=True)
class Party:
    """Who talks with which of our addresses.

    Attributes:
        identities: Every known name of the contact, at least one.
        named_at: When the contact bore these names and wrote, if not now.
        contact_public_id: Of a contact that comes from the journal: the id it had.
        conversation_public_id: Likewise.
    """

    identities: tuple[Identity, ...]
    contact_address: str
    own_address: str
    named_at: datetime | None = None
    contact_public_id: str | None = None
    conversation_public_id: str | None = None

    @property
    def proof(self) -> tuple[Identity, ...]:
        """The identities that tell who it is; a user name only when there is nothing else."""
        return tuple([one for one in self.identities if one.proves]) or self.identities


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """A stored conversation and its contact."""

    id: int
    public_id: str
    contact_id: int


Known = Mapping[tuple[int, str], ConversationKey]
"""Conversations by contact and our address."""


async def known_conversations(
    connection: AsyncConnection, contact_ids: Collection[int]
) -> tuple[set[int], Known]:
    """Which of the contacts exist, and their conversations; the contacts are locked."""
    if not contact_ids:
        return set(), {}
    rows = await connection.execute(
        _of_contacts(connection.dialect.name), {"contact_ids": list(contact_ids)}
    )
    contacts: set[int] = set()
    conversations: dict[tuple[int, str], ConversationKey] = {}
    for contact_id, row_id, public_id, own_address in rows:
        contacts.add(contact_id)
        if row_id is not None:
            key = ConversationKey(row_id, public_id, contact_id)
            conversations[contact_id, own_address] = key
    return contacts, conversations


@functools.cache
def _of_contacts(dialect: str) -> Select[int, int, str, str]:
    return (
        select(
            ContactRow.id,
            ConversationRow.id,
            ConversationRow.public_id,
            ConversationRow.own_address,
        )
        .outerjoin(ConversationRow, ConversationRow.contact_id == ContactRow.id)
        .where(among(dialect, ContactRow.id, "contact_ids"))
        .order_by(ContactRow.id)
        # Holds off nobody but who merges contacts.
        .with_for_update(read=True, key_share=True, of=ContactRow)
    )


async def open_conversations(
    connection: AsyncConnection,
    parties: Sequence[Party],
    contact_ids: Sequence[int],
    known: Known,
    now: datetime,
) -> list[ConversationKey]:
    """The conversation of each party, in the same order, begun where it isn't known."""
    pairs = [
        (contact_id, party.own_address)
        for contact_id, party in zip(contact_ids, parties, strict=True)
    ]
    found = dict(known)
    missing: dict[tuple[int, str], Party] = {}
    for pair, party in zip(pairs, parties, strict=True):
        if pair not in found:
            missing.setdefault(pair, party)
    if missing:
        opened = {
            pair: {
                "public_id": party.conversation_public_id or new_public_id(),
                "contact_id": pair[0],
                "own_address": pair[1],
                "contact_address": party.contact_address,
                "created_at": party.named_at or now,
                "last_message_at": party.named_at or now,
            }
            for pair, party in sorted(missing.items())
        }
        inserted = await insert_many(
            connection,
            ConversationRow,
            list(opened.values()),
            ConversationRow.id,
            ConversationRow.public_id,
            ConversationRow.contact_id,
            ConversationRow.own_address,
        )
        for row_id, public_id, contact_id, own_address in inserted:
            key = ConversationKey(row_id, public_id, contact_id)
            found[contact_id, own_address] = key
        if others := {contact_id for contact_id, own in missing if (contact_id, own) not in found}:
            _, added = await known_conversations(connection, others)
            found |= added
        # Others may have been faster, and have written it down.
        await _note_opened(
            connection,
            [
                (found[pair], party)
                for pair, party in sorted(missing.items())
                if found[pair].public_id == opened[pair]["public_id"]
            ],
            now,
        )
    return [found[pair] for pair in pairs]


async def _note_opened(
    connection: AsyncConnection, opened: Sequence[tuple[ConversationKey, Party]], now: datetime
) -> None:
    """Write down which ids new conversations got; the journal learns of it from there."""
    await insert_many(
        connection,
        ConversationEventRow,
        [
            {
                "conversation_id": conversation.id,
                "event_key": f"opened:{conversation.public_id}",
                "kind": "opened",
                "public_id": conversation.public_id,
                "occurred_at": party.named_at or now,
                "journaled": party.conversation_public_id is not None,
            }
            for conversation, party in opened
        ],
    )
