"""Finding or creating contacts and conversations, by any number of transactions at once."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import uuid4

from sqlalchemy import BigInteger, and_, bindparam, insert, or_, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.contact import Identity
from services.messaging.store.bulk import insert_many, one_of
from services.messaging.store.models import (
    ContactRow,
    ConversationEventRow,
    ConversationRow,
    IdentityRow,
)


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
        return tuple(one for one in self.identities if one.proves) or self.identities


@dataclass(frozen=True, slots=True)
class ConversationKey:
    """A stored conversation and its contact."""

    id: int
    public_id: str
    contact_id: int


class SplitContactsError(Exception):
    """Contacts turn out to be one person: merge each of these groups, then try again."""

    def __init__(self, groups: Sequence[frozenset[int]]) -> None:
        super().__init__("several contacts are one person")
        self.groups = groups


@dataclass(slots=True, eq=False)
class _Person:
    """What is known of one person: parties that share an identity or a contact are one."""

    identities: set[Identity] = field(default_factory=set)
    contact_ids: set[int] = field(default_factory=set)
    public_id: str | None = None

    def names(self) -> Iterable[Identity | int]:
        yield from self.identities
        yield from self.contact_ids


def new_public_id() -> str:
    """An id for the outside: it tells nothing and can't be guessed."""
    return uuid4().hex


def received_id(provider: str, provider_message_id: str) -> str:
    """Likewise for a message that was received: the same whenever it is stored again.

    Whoever could guess it would have to know the provider's own id, which is random.
    """
    return hashlib.sha256(f"{provider}:{provider_message_id}".encode()).hexdigest()[:32]


async def resolve_conversations(
    connection: AsyncConnection, parties: Sequence[Party], now: datetime
) -> list[ConversationKey]:
    """The conversation of each party, in the same order, created where there is none.

    Must run in a writing transaction. Two transactions that meet the same new contact end up
    with one: the second waits until the first has ended. Until its end the contacts can't be
    merged into others.

    Raises:
        SplitContactsError: A party's identities belong to several contacts.
    """
    contacts, known = await _lock_contacts(connection, parties)
    people = _people(parties, contacts)
    await _add_contacts(connection, people, now)
    contact_ids = [next(iter(people[party.proof[0]].contact_ids)) for party in parties]
    await _add_identities(connection, set(people.values()), contacts)
    await _pass_user_names(connection, parties, contact_ids, now)
    return await _conversations(connection, parties, contact_ids, known, now)


async def resolve_contacts(
    connection: AsyncConnection, people: Iterable[Collection[Identity]], now: datetime
) -> None:
    """See to a contact for each of several people, with whom there may be no conversation.

    Must run in a writing transaction of its own.

    Args:
        people: The identities of each, all of them proof.

    Raises:
        SplitContactsError: Somebody's identities belong to several contacts.
    """
    parties = [Party(tuple(one), contact_address="", own_address="") for one in people]
    contacts, _ = await _lock_contacts(connection, parties)
    found = _people(parties, contacts)
    await _add_contacts(connection, found, now)
    await _add_identities(connection, set(found.values()), contacts)


async def _lock_contacts(
    connection: AsyncConnection, parties: Sequence[Party]
) -> tuple[dict[Identity, int], dict[tuple[int, str], ConversationKey]]:
    """The contacts of known identities, and their conversations, kept from being merged."""
    identities = {identity for party in parties for identity in party.proof}
    contacts = await _contacts_of(connection, identities)
    if unknown := identities - contacts.keys():
        await _lock_unknown(connection, unknown)
        contacts = await _contacts_of(connection, identities)
    while True:
        split = [p for p in set(_people(parties, contacts).values()) if len(p.contact_ids) > 1]
        if split:
            raise SplitContactsError([frozenset(person.contact_ids) for person in split])
        expected = set(contacts.values())
        found, known = await _known_conversations(connection, expected)
        if found == expected:
            return contacts, known
        # One was merged into another a moment ago, and its identities have moved there.
        contacts = await _contacts_of(connection, identities)


async def _contacts_of(
    connection: AsyncConnection, identities: Collection[Identity]
) -> dict[Identity, int]:
    wanted = {(one.kind.value, one.value): one for one in identities}
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


async def _lock_unknown(connection: AsyncConnection, unknown: Iterable[Identity]) -> None:
    """Keep other transactions from creating the same identities. SQLite has one writer anyway."""
    if connection.dialect.name != "postgresql":
        return
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


def _people(parties: Iterable[Party], contacts: Mapping[Identity, int]) -> dict[Identity, _Person]:
    """Who bears each of the parties' identities."""
    owners: dict[Identity | int, _Person] = {}
    for party in parties:
        person = _Person()
        person.public_id = party.contact_public_id
        person.identities.update(party.proof)
        person.contact_ids.update(contacts[one] for one in party.proof if one in contacts)
        for same in {owners[name] for name in person.names() if name in owners}:
            person.identities |= same.identities
            person.contact_ids |= same.contact_ids
            person.public_id = same.public_id or person.public_id
        owners.update((name, person) for name in person.names())
    return {name: person for name, person in owners.items() if isinstance(name, Identity)}


async def _add_contacts(
    connection: AsyncConnection, people: Mapping[Identity, _Person], now: datetime
) -> None:
    """Create a contact for everybody who has none."""
    strangers = [one for one in dict.fromkeys(people.values()) if not one.contact_ids]
    if not strangers:
        return
    inserted = await connection.execute(
        insert(ContactRow).returning(ContactRow.id, sort_by_parameter_order=True),
        [{"public_id": one.public_id or new_public_id(), "created_at": now} for one in strangers],
    )
    for person, contact_id in zip(strangers, inserted.scalars(), strict=True):
        person.contact_ids.add(contact_id)


async def _add_identities(
    connection: AsyncConnection, people: Iterable[_Person], contacts: Mapping[Identity, int]
) -> None:
    fresh = sorted(
        (identity.kind.value, identity.value, contact_id)
        for person in people
        for contact_id in person.contact_ids
        for identity in person.identities
        # User names have a way of their own.
        if identity not in contacts and identity.proves
    )
    if fresh:
        await connection.execute(
            insert(IdentityRow),
            [{"contact_id": owner, "kind": kind, "value": value} for kind, value, owner in fresh],
        )


async def _pass_user_names(
    connection: AsyncConnection,
    parties: Sequence[Party],
    contact_ids: Sequence[int],
    now: datetime,
) -> None:
    """Let user names belong to who bore them last, whichever message is stored first."""
    newest: dict[tuple[str, str], tuple[datetime, int]] = {}
    for party, contact_id in zip(parties, contact_ids, strict=True):
        for one in party.identities:
            if not one.proves:
                borne = (party.named_at or now, contact_id)
                key = (one.kind.value, one.value)
                newest[key] = max(borne, newest.get(key, borne))
    if not newest:
        return
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    statement = dialect.insert(IdentityRow)
    new = statement.excluded
    await connection.execute(
        statement.on_conflict_do_update(
            index_elements=[IdentityRow.kind, IdentityRow.value],
            set_={"contact_id": new.contact_id, "named_at": new.named_at},
            where=new.named_at > IdentityRow.named_at,
        ),
        [
            {"kind": kind, "value": value, "contact_id": contact_id, "named_at": named_at}
            for (kind, value), (named_at, contact_id) in sorted(newest.items())
        ],
    )


async def _conversations(
    connection: AsyncConnection,
    parties: Sequence[Party],
    contact_ids: Sequence[int],
    known: Mapping[tuple[int, str], ConversationKey],
    now: datetime,
) -> list[ConversationKey]:
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
        dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
        await connection.execute(
            dialect.insert(ConversationRow).on_conflict_do_nothing(), list(opened.values())
        )
        _, added = await _known_conversations(connection, {contact_id for contact_id, _ in missing})
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


async def _known_conversations(
    connection: AsyncConnection, contact_ids: Collection[int]
) -> tuple[set[int], dict[tuple[int, str], ConversationKey]]:
    """Which of the contacts exist, and their conversations; the contacts are locked."""
    if not contact_ids:
        return set(), {}
    rows = await connection.execute(
        select(
            ContactRow.id.label("contact_id"),
            ConversationRow.id,
            ConversationRow.public_id,
            ConversationRow.own_address,
        )
        .outerjoin(ConversationRow, ConversationRow.contact_id == ContactRow.id)
        .where(one_of(connection, ContactRow.id, contact_ids))
        .order_by(ContactRow.id)
        # Holds off nobody but who merges contacts.
        .with_for_update(read=True, key_share=True, of=ContactRow)
    )
    contacts: set[int] = set()
    conversations: dict[tuple[int, str], ConversationKey] = {}
    for row in rows:
        contacts.add(row.contact_id)
        if row.id is not None:
            key = ConversationKey(row.id, row.public_id, row.contact_id)
            conversations[row.contact_id, row.own_address] = key
    return contacts, conversations
