"""What somebody did to a message: how it is kept, and of which messages it is believed.

Whoever learns the id of a message can name it. So a reaction, an edit or a deletion counts only in
the conversation with the contact in whose chat it came. While that contact is known by other names
alone it waits, as if its message weren't there: two contacts may turn out to be one.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from services.messaging.domain.message import EventKind, StatusReport
from services.messaging.store.bulk import one_of
from services.messaging.store.contact_models import ConversationRow, IdentityRow
from services.messaging.store.event_models import ParkedStatusRow
from services.messaging.store.message_models import MessageRow

DONE: Final = "done_to_message"
_CONTACT: Final = "contact"
_MOST_NAMES: Final = 2
"""A chat's two addresses."""


def payload_of(report: StatusReport) -> dict[str, Any]:
    """As it came; of what somebody did to a message also our own words for it."""
    if report.kind is EventKind.STATUS:
        return dict(report.payload)
    done = {
        "kind": report.kind.value,
        "text": report.text,
        "by_us": report.by_us,
        _CONTACT: list(report.contact),
    }
    return {DONE: done, "text": report.text, "document": dict(report.payload)}


def from_payload(payload: dict[str, Any]) -> dict[str, Any]:
    """The attributes of a report that `payload_of` has put together."""
    done = payload.get(DONE)
    if not isinstance(done, dict):
        return {"payload": payload}
    return {
        "kind": EventKind(done["kind"]),
        "text": done["text"],
        "by_us": done["by_us"],
        _CONTACT: tuple(done.get(_CONTACT, ())),
        "payload": payload["document"],
    }


async def names_of_contacts(
    connection: AsyncConnection, conversation_ids: Collection[int]
) -> Mapping[int, set[str]]:
    """What the contacts of conversations are called."""
    rows = await connection.execute(
        select(ConversationRow.id, IdentityRow.value)
        .join(IdentityRow, IdentityRow.contact_id == ConversationRow.contact_id)
        .where(one_of(connection, ConversationRow.id, conversation_ids))
    )
    names: dict[int, set[str]] = defaultdict(set)
    for conversation_id, name in rows:
        names[conversation_id].add(name)
    return names


def parked_by_the_contact() -> ColumnElement[bool]:
    """Whether a parked report is about a message of the contact's, or names no contact."""
    names: Sequence[ColumnElement[Any]] = [
        ParkedStatusRow.payload[(DONE, _CONTACT, place)].as_string() for place in range(_MOST_NAMES)
    ]
    known = (
        select(IdentityRow.id)
        .join(ConversationRow, ConversationRow.contact_id == IdentityRow.contact_id)
        .where(ConversationRow.id == MessageRow.conversation_id, IdentityRow.value.in_(names))
    )
    return or_(names[0].is_(None), known.correlate(MessageRow, ParkedStatusRow).exists())
