"""A database with a long history, and the questions that lists ask of it."""

from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import text

from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.message import Direction, MessageStatus
from services.messaging.ports.reading import MessageFilter
from services.messaging.store.conversations import SqlConversationStore
from services.messaging.store.database import Database
from services.messaging.store.queries import SqlMessageReader
from tests.support.sending import now

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
MESSAGES_A_CONTACT = 10
RARE = 5
"""Messages that were not delivered, however long the history is."""

# Each dialect's words for: numbers from 1, an id, a time so many seconds after BEGIN, a document.
_WORDS: Mapping[str, Mapping[str, str]] = {
    "postgresql": {
        "numbers": "SELECT n FROM generate_series(1, :count) AS n",
        "id": "lpad(to_hex({0}), 32, '0')",
        "time": "timestamptz '2026-01-01 00:00:00+00' + ({0}) * interval '1 second'",
        "empty": "'[]'::jsonb",
        "phone": "'+97250' || lpad(({0})::text, 7, '0')",
    },
    "sqlite": {
        "numbers": "WITH RECURSIVE s(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM s"
        " WHERE n < :count) SELECT n FROM s",
        "id": "printf('%032x', {0})",
        "time": "strftime('%Y-%m-%d %H:%M:%f000', '2026-01-01', ({0}) || ' seconds')",
        "empty": "'[]'",
        "phone": "'+97250' || printf('%07d', {0})",
    },
}


async def fill(database: Database, messages: int) -> None:
    """Messages of every kind, a second apart: half in, half out, a tenth with one contact."""
    words = _WORDS[database.dialect]
    contacts = messages // MESSAGES_A_CONTACT

    def time(number: str) -> str:
        return words["time"].format(number)

    newest = f"CASE WHEN n = 1 THEN {messages} ELSE {messages} - {contacts} + n END"
    phone = words["phone"].format("n")
    conversation = f"CASE WHEN n % 10 = 0 THEN 1 ELSE 1 + n % {contacts} END"
    status = (
        f"CASE WHEN n % 2 = 0 THEN 'received' WHEN n % ({messages} / {RARE}) = 1"
        " THEN 'undelivered' WHEN n % 4 = 1 THEN 'delivered' ELSE 'read' END"
    )
    # The numbers' count, the columns and their values.
    statements = [
        (
            contacts,
            "contacts (id, public_id, display_name, created_at)",
            f"n, {words['id'].format('n')}, 'Contact', {time('0')}",
        ),
        (contacts, "contact_identities (contact_id, kind, value)", f"n, 'phone', {phone}"),
        (
            contacts,
            """conversations (id, public_id, contact_id, own_address, contact_address,
            created_at, last_message_at, last_inbound_at)""",
            f"""n, {words["id"].format("n")}, n, 'whatsapp:+14155238886', 'whatsapp:' || {phone},
            {time("0")}, {time(newest)}, {time(newest)}""",
        ),
        (
            messages,
            """messages (id, public_id, conversation_id, direction, author, contact_address,
            own_address, body, media, provider, status, created_at)""",
            f"""n, {words["id"].format("n")}, {conversation},
            CASE WHEN n % 2 = 0 THEN 'inbound' ELSE 'outbound' END,
            CASE WHEN n % 2 = 0 THEN 'contact' ELSE 'api' END,
            'whatsapp:+972500000001', 'whatsapp:+14155238886', 'Good day to you',
            {words["empty"]}, 'twilio', {status}, {time("n")}""",
        ),
    ]
    async with database.write() as connection:
        for count, columns, values in statements:
            await connection.execute(
                text(f"INSERT INTO {columns} SELECT {values} FROM ({words['numbers']}) AS numbers"),
                {"count": count},
            )
    if database.dialect == "postgresql":
        async with database.write() as connection:
            # What autovacuum does by itself, sooner or later.
            await connection.execute(text("ANALYZE"))


Question = Callable[[], Awaitable[Any]]


def questions(database: Database, messages: int) -> dict[str, Question]:
    """What lists ask, at the newest end and in the middle of the history."""
    reader = SqlMessageReader(database)
    store = SqlConversationStore(database, now)
    middle = (BEGIN + timedelta(seconds=messages // 2), messages // 2)
    contacts = messages // MESSAGES_A_CONTACT
    of_all = (BEGIN + timedelta(seconds=messages - contacts // 2), contacts // 2)

    def listed(wanted: MessageFilter, after: tuple[datetime, int] | None = None) -> Question:
        return lambda: reader.messages(wanted, limit=50, after=after)

    busiest = MessageFilter(contact=Identity(IdentityKind.PHONE, "+972500000001"))
    hour = MessageFilter(since=middle[0], until=middle[0] + timedelta(hours=1))
    return {
        "conversations": lambda: store.conversations(limit=50, after=None),
        "conversations, middle": lambda: store.conversations(limit=50, after=of_all),
        "messages": listed(MessageFilter()),
        "messages, middle": listed(MessageFilter(), middle),
        "one contact's": listed(busiest),
        "one contact's, middle": listed(busiest, middle),
        "inbound": listed(MessageFilter(direction=Direction.INBOUND)),
        "outbound": listed(MessageFilter(direction=Direction.OUTBOUND)),
        "outbound, middle": listed(MessageFilter(direction=Direction.OUTBOUND), middle),
        "a common status": listed(MessageFilter(status=MessageStatus.READ)),
        "a rare status": listed(MessageFilter(status=MessageStatus.UNDELIVERED)),
        "a status nothing has": listed(MessageFilter(status=MessageStatus.QUEUED)),
        "an hour long ago": listed(hour),
        "a contact's hour long ago": listed(
            MessageFilter(contact=busiest.contact, since=hour.since, until=hour.until)
        ),
    }
