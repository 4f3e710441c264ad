"""Finding or creating contacts and conversations, by any number of transactions at once."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import uuid4

from sqlalchemy import BigInteger, and_, bindparam, insert, or_, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.contact import Identity
from services.messaging.store.bulk import one_of
from services.messaging.store.models import ContactRow, ConversationRow, IdentityRow


@dataclass(frozen=True, slots=True)
class Party:
    """Who talks with which of our addresses.

    Attributes:
        identities: Every known name of the contact, at least one; the first decides when they
            belong to several contacts.
    """

    identities: tuple[Identity, ...]
    contact_address: str
    own_address: str
    display_name: str = ""


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """A stored conversation and its contact."""

    id: int
    public_id: str
    contact_id: int


def new_public_id() -> str:
    """An id for the outside: it tells nothing and can't be guessed."""
    return uuid4().hex


async def resolve_conversations(
    connection: AsyncConnection, parties: Sequence[Party], now: datetime
) -> list[ConversationKey]:
    """The conversation of each party, in the same order, created where there is none.

    Must run in a writing transaction. Two transactions that meet the same new contact end up
    with one: the second waits until the first has ended.
    """
    contacts = await _known_contacts(connection, parties)
    if any(identity not in contacts for party in parties for identity in party.identities):
        await _lock_unknown(connection, parties, contacts)
        contacts = await _known_contacts(connection, parties)
        await _add_unknown(connection, parties, contacts, now)
    contact_ids = [
        next(contacts[identity] for identity in party.identities if identity in contacts)
        for party in parties
    ]
    return await _conversations(connection, parties, contact_ids, now)


async def _known_contacts(
    connection: AsyncConnection, parties: Iterable[Party]
) -> dict[Identity, int]:
    wanted = {(i.kind.value, i.value): i for party in parties for i in party.identities}
    by_kind: dict[str, list[str]] = {}
    for kind, value in wanted:
        by_kind.setdefault(kind, []).append(value)
    rows = await connection.execute(
        select(IdentityRow.kind, IdentityRow.value, IdentityRow.contact_id).where(
            or_(
                *(
                    and_(IdentityRow.kind == kind, one_of(connection, IdentityRow.value, values))
                    for kind, values in sorted(by_kind.items())
                )
            )
        )
    )
    return {wanted[row.kind, row.value]: row.contact_id for row in rows}


async def _lock_unknown(
    connection: AsyncConnection, parties: Iterable[Party], known: dict[Identity, int]
) -> None:
    """Keep other transactions from creating the same identities. SQLite has one writer anyway."""
    if connection.dialect.name != "postgresql":
        return
    unknown = {i for party in parties for i in party.identities if i not in known}
    # In one order everywhere, so that two transactions can't wait for each other.
    keys = sorted({_lock_key(identity) for identity in unknown})
    await connection.execute(
        text("SELECT pg_advisory_xact_lock(key) FROM unnest(:keys) AS key").bindparams(
            bindparam("keys", keys, type_=postgresql.ARRAY(BigInteger))
        )
    )


def _lock_key(identity: Identity) -> int:
    digest = hashlib.sha256(f"{identity.kind}:{identity.value}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


async def _add_unknown(
    connection: AsyncConnection,
    parties: Iterable[Party],
    contacts: dict[Identity, int],
    now: datetime,
) -> None:
    """Create what is missing and enter it into `contacts`."""
    groups: list[Party] = []
    claimed: set[Identity] = set()
    for party in parties:
        if not any(i in contacts or i in claimed for i in party.identities):
            groups.append(party)
            claimed.update(party.identities)
    if groups:
        inserted = await connection.execute(
            insert(ContactRow).returning(ContactRow.id, sort_by_parameter_order=True),
            [
                {
                    "public_id": new_public_id(),
                    "display_name": party.display_name,
                    "created_at": now,
                }
                for party in groups
            ],
        )
        for party, contact_id in zip(groups, inserted.scalars(), strict=True):
            contacts[party.identities[0]] = contact_id
    fresh = {party.identities[0] for party in groups}
    for party in parties:
        owner = next(contacts[i] for i in party.identities if i in contacts)
        for identity in party.identities:
            if identity not in contacts:
                contacts[identity] = owner
                fresh.add(identity)
    if fresh:
        await connection.execute(
            insert(IdentityRow),
            [
                {"contact_id": contacts[i], "kind": i.kind.value, "value": i.value}
                for i in sorted(fresh, key=lambda i: (i.kind.value, i.value))
            ],
        )


async def _conversations(
    connection: AsyncConnection,
    parties: Sequence[Party],
    contact_ids: Sequence[int],
    now: datetime,
) -> list[ConversationKey]:
    pairs = [
        (contact_id, party.own_address)
        for contact_id, party in zip(contact_ids, parties, strict=True)
    ]
    found = await _known_conversations(connection, pairs)
    missing = {pair: party for pair, party in zip(pairs, parties, strict=True) if pair not in found}
    if missing:
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        await connection.execute(
            dialect.insert(ConversationRow).on_conflict_do_nothing(),
            [
                {
                    "public_id": new_public_id(),
                    "contact_id": contact_id,
                    "own_address": own_address,
                    "contact_address": missing[contact_id, own_address].contact_address,
                    "created_at": now,
                    "last_message_at": now,
                }
                for contact_id, own_address in sorted(missing)
            ],
        )
        found |= await _known_conversations(connection, list(missing))
    return [found[pair] for pair in pairs]


async def _known_conversations(
    connection: AsyncConnection, pairs: Sequence[tuple[int, str]]
) -> dict[tuple[int, str], ConversationKey]:
    rows = await connection.execute(
        select(
            ConversationRow.id,
            ConversationRow.public_id,
            ConversationRow.contact_id,
            ConversationRow.own_address,
        ).where(
            one_of(connection, ConversationRow.contact_id, {contact_id for contact_id, _ in pairs})
        )
    )
    return {
        (row.contact_id, row.own_address): ConversationKey(row.id, row.public_id, row.contact_id)
        for row in rows
    }
