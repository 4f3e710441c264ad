"""Finding or creating contacts and conversations, by any number of transactions at once."""

import functools
import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from sqlalchemy import BigInteger, Insert, Select, TextClause, bindparam, insert, select, text
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.dml import ReturningInsert

from services.messaging.domain.contact import Identity
from services.messaging.store.bulk import among
from services.messaging.store.contact_models import ContactRow, IdentityRow
from services.messaging.store.opening import (
    ConversationKey,
    Known,
    Party,
    known_conversations,
    open_conversations,
)
from services.messaging.store.public_ids import new_public_id


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
    contacts, known = await _resolve(connection, parties, now)
    contact_ids = [contacts[party.proof[0]] for party in parties]
    await _pass_user_names(connection, parties, contact_ids, now)
    return await open_conversations(connection, parties, contact_ids, known, now)


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
    await _resolve(connection, parties, now)


async def _resolve(
    connection: AsyncConnection, parties: Sequence[Party], now: datetime
) -> tuple[Mapping[Identity, int], Known]:
    """The contacts of all identities, created where there are none, and known conversations."""
    contacts, people, known = await _lock_contacts(connection, parties)
    await _add_contacts(connection, people, now)
    fresh = {
        identity: contact_id
        for person in people
        for contact_id in person.contact_ids
        for identity in person.identities - contacts.keys()
    }
    await _add_identities(connection, fresh)
    return contacts | fresh, known


async def _lock_contacts(
    connection: AsyncConnection, parties: Sequence[Party]
) -> tuple[dict[Identity, int], list[_Person], Known]:
    """The contacts of known identities, whoever isn't known by all of theirs, and conversations.

    The contacts are kept from being merged.
    """
    identities = {identity for party in parties for identity in party.proof}
    contacts = await _contacts_of(connection, identities)
    if unknown := identities - contacts.keys():
        await _lock_unknown(connection, unknown)
        contacts = await _contacts_of(connection, identities)
    while True:
        people = _people(_unsettled(parties, contacts), contacts)
        split = [person for person in people if len(person.contact_ids) > 1]
        if split:
            raise SplitContactsError([frozenset(person.contact_ids) for person in split])
        expected = set(contacts.values())
        found, known = await known_conversations(connection, expected)
        if found == expected:
            return contacts, people, known
        # One was merged into another a moment ago, and its identities have moved there.
        contacts = await _contacts_of(connection, identities)


async def _contacts_of(
    connection: AsyncConnection, identities: Collection[Identity]
) -> dict[Identity, int]:
    wanted = {(one.kind.value, one.value): one for one in identities}
    rows = await connection.execute(
        _identities(connection.dialect.name),
        {
            "kinds": sorted({kind for kind, _ in wanted}),
            "values": [value for _, value in wanted],
        },
    )
    return {
        wanted[kind, value]: contact_id
        for kind, value, contact_id in rows
        if (kind, value) in wanted
    }


@functools.cache
def _identities(dialect: str) -> Select[str, str, int]:
    return select(IdentityRow.kind, IdentityRow.value, IdentityRow.contact_id).where(
        among(dialect, IdentityRow.kind, "kinds"), among(dialect, IdentityRow.value, "values")
    )


async def _lock_unknown(connection: AsyncConnection, unknown: Iterable[Identity]) -> None:
    """Keep other transactions from creating the same identities. SQLite has one writer anyway."""
    if connection.dialect.name != "postgresql":
        return
    # In one order everywhere, so that two transactions can't wait for each other.
    keys = sorted({_lock_key(identity) for identity in unknown})
    await connection.execute(_locking(), {"keys": keys})


@functools.cache
def _locking() -> TextClause:
    return text("SELECT pg_advisory_xact_lock(key) FROM unnest(:keys) AS key").bindparams(
        bindparam("keys", type_=postgresql.ARRAY(BigInteger))
    )


def _lock_key(identity: Identity) -> int:
    digest = hashlib.sha256(f"{identity.kind}:{identity.value}".encode()).digest()
    return int.from_bytes(digest[:8], "big", signed=True)


def _unsettled(parties: Iterable[Party], contacts: Mapping[Identity, int]) -> list[Party]:
    """Parties that aren't known by all their identities as one contact's: nearly always none."""
    found = []
    for party in parties:
        owners = {contacts.get(identity) for identity in party.proof}
        if len(owners) > 1 or None in owners:
            found.append(party)
    return found


def _people(parties: Iterable[Party], contacts: Mapping[Identity, int]) -> list[_Person]:
    """Who bears the parties' identities."""
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
    return list(dict.fromkeys(owners.values()))


async def _add_contacts(
    connection: AsyncConnection, people: Iterable[_Person], now: datetime
) -> None:
    """Create a contact for everybody who has none."""
    strangers = [one for one in people if not one.contact_ids]
    if not strangers:
        return
    inserted = await connection.execute(
        _new_contacts(),
        [{"public_id": one.public_id or new_public_id(), "created_at": now} for one in strangers],
    )
    for person, contact_id in zip(strangers, inserted.scalars(), strict=True):
        person.contact_ids.add(contact_id)


async def _add_identities(connection: AsyncConnection, fresh: Mapping[Identity, int]) -> None:
    """Write down whose the identities are; user names have a way of their own."""
    rows = sorted(
        (identity.kind.value, identity.value, contact_id)
        for identity, contact_id in fresh.items()
        if identity.proves
    )
    if rows:
        await connection.execute(
            _new_identities(),
            [{"contact_id": owner, "kind": kind, "value": value} for kind, value, owner in rows],
        )


@functools.cache
def _new_contacts() -> ReturningInsert[int]:
    return insert(ContactRow).returning(ContactRow.id, sort_by_parameter_order=True)


@functools.cache
def _new_identities() -> Insert:
    return insert(IdentityRow)


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
