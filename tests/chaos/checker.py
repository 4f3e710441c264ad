"""Compares what was answered, what the database holds, and what Twilio received."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import nats.errors
from sqlalchemy import create_engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from services.common.journal.client import NatsClient
from services.common.journal.streams import (
    ACTS_STREAM,
    DEAD_STREAM,
    INGEST_STREAM,
    INTAKE_STREAM,
)
from services.messaging.domain.message import MessageStatus
from services.messaging.store.call_models import CallEventRow
from services.messaging.store.database import database_url
from services.messaging.store.event_models import (
    ConversationEventRow,
    MessageEventRow,
    ParkedStatusRow,
)
from services.messaging.store.message_models import MessageRow
from services.messaging.store.work_models import OutboxRow, PendingReplyRow
from tests.chaos.call_checker import LOST_END, CallChecker
from tests.chaos.callers import note_acknowledged
from tests.chaos.load import Ledger
from tests.chaos.stack import ChaosStack
from tests.chaos.watcher import Watcher

_DONE = ("read", "failed", "undelivered")
_LISTED = 5

_LOST = "acknowledged and lost"
_BEHIND = "behind what was reported"


@dataclass(frozen=True)
class Broken:
    """A promise that was broken.

    Attributes:
        what: How.
        by: What shows it, each by its name.
    """

    what: str
    by: Sequence[str]

    @property
    def lost(self) -> bool:
        """Whether something acknowledged is gone."""
        return self.what in (_LOST, _BEHIND, LOST_END)

    @property
    def doubled(self) -> bool:
        """Whether something is there more than once."""
        return self.what.endswith(("twice", "again after it was settled"))

    def __str__(self) -> str:
        more = f" and {len(self.by) - _LISTED} more" if len(self.by) > _LISTED else ""
        return f"{self.what}: {len(self.by)} ({', '.join(self.by[:_LISTED])}{more})"


@dataclass
class Stored:
    """What the database holds."""

    event_keys: Counter[str] = field(default_factory=Counter)
    messages: Sequence[Any] = ()
    positions: int = 0
    twice_answered: int = 0


class Checker:
    """Looks at the three sides of a running system, past all proxies.

    Attributes:
        calls: What there is to be seen of calls.
        last: What `settle` waited for to the last.
    """

    def __init__(self, stack: ChaosStack, watcher: Watcher) -> None:
        self._stack = stack
        self._watcher = watcher
        url = database_url(stack.database_url, asynchronous=False)
        self._engine = create_engine(url, pool_pre_ping=True)
        self.calls = CallChecker(stack.sandbox, self._engine)
        self.last = ""
        self._bodies: set[str] = set()
        """Of sends that earlier rounds saw at the provider."""

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    async def stored(self, sid: str) -> bool:
        """Whether the database has a message by its provider's id."""
        query = select(MessageRow.id).where(MessageRow.provider_message_id == sid)

        def look() -> bool:
            with self._engine.connect() as connection:
                return connection.scalar(query) is not None

        with contextlib.suppress(SQLAlchemyError):
            return await asyncio.to_thread(look)
        return False

    async def received(self, contact: str, body: str) -> bool:
        """Whether Twilio was asked to send this to a contact."""
        with contextlib.suppress(aiohttp.ClientError):
            return any(one["body"] == body for one in await self._twilio(contact))
        return False

    async def unsettled(self) -> str:
        """What is still on its way; "" when all has come to its end."""
        # Twice, and in the order in which things travel: what went on from one place to the next
        # while we looked at another is met the second time.
        places = (
            *(self._undelivered, self._spilled, self._unread),
            *(self.calls.unfinished, self._unsent, self._unwatched),
        )
        for look in (*places, *places):
            try:
                left = await look()
            except (SQLAlchemyError, nats.errors.Error, OSError, aiohttp.ClientError) as error:
                left = f"{look.__name__.strip('_')} can't be known: {type(error).__name__}"
            if left:
                return left
        return ""

    async def _spilled(self) -> str:
        async with aiohttp.ClientSession() as client:
            for edge in self._stack.edges:
                url = f"{self._stack.internal(edge)}/internal/health"
                async with client.get(url) as answer:
                    health = await answer.json()
                if not health["journal_connected"]:
                    return f"{edge} has no journal"
                if health["spill_events"]:
                    return f"{health['spill_events']} events in the spill of {edge}"
        return ""

    async def _unread(self) -> str:
        client = NatsClient()
        await client.connect(self._stack.nats_url, allow_reconnect=False, error_cb=_ignore)
        try:
            js = client.jetstream()
            for info in await js.consumers_info(INGEST_STREAM):
                if left := (info.num_pending or 0) + (info.num_ack_pending or 0):
                    return f"{left} events before {info.name}"
            if bundles := (await js.stream_info(INTAKE_STREAM)).state.messages:
                return f"{bundles} bundles in {INTAKE_STREAM}"
            dead = (await js.stream_info(DEAD_STREAM)).state.messages
            await js.stream_info(ACTS_STREAM)
            return f"{dead} events in {DEAD_STREAM}" if dead else ""
        finally:
            await client.close()

    async def _unsent(self) -> str:
        def look() -> str:
            with self._engine.connect() as connection:
                for table in (OutboxRow, PendingReplyRow):
                    if count := connection.scalar(select(func.count()).select_from(table)):
                        return f"{count} rows in {table.__tablename__}"
                for acts in (MessageEventRow, ConversationEventRow):
                    query = select(func.count()).select_from(acts).where(~acts.journaled)
                    if count := connection.scalar(query):
                        return f"{count} acts not in the journal"
            return ""

        return await asyncio.to_thread(look)

    async def _undelivered(self) -> str:
        left = 0
        for message in await self._twilio():
            if message["direction"] == "inbound":
                continue
            # One that has just come has no status of its own yet, and is on its way all the same.
            if message["status"] not in _DONE or any(map(_is_open, _callbacks(message))):
                left += 1
        return f"{left} messages at Twilio" if left else ""

    async def _unwatched(self) -> str:
        missing = (await asyncio.to_thread(self._read)).positions - len(self._watcher.seen)
        return f"{missing} events not seen by the watcher" if missing > 0 else ""

    async def settle(self, seconds: float) -> tuple[float, str]:
        """Wait until nothing is on its way; how long it took, and what is left if too long."""
        began, self.last = time.monotonic(), ""
        while left := await self.unsettled():
            self.last = left
            if time.monotonic() - began > seconds:
                return time.monotonic() - began, left
            await asyncio.sleep(0.3)
        return time.monotonic() - began, ""

    async def violations(self, ledger: Ledger) -> list[Broken]:
        """Every promise that was broken, once all has settled."""
        twilio = [one for one in await self._twilio() if one["direction"] != "inbound"]
        note_acknowledged(ledger, await self.calls.calls())
        stored = await asyncio.to_thread(self._read)
        found = [
            *self._events(ledger, twilio, stored),
            *self._sends(ledger, twilio, stored),
            *self._statuses(twilio, stored),
            *self._watched(stored),
            *(
                broken
                for what, by in (await self.calls.broken()).items()
                for broken in _listed(what, by)
            ),
        ]
        self._bodies |= {one["body"] for one in twilio if one["body"].startswith("Send ")}
        return found

    def _events(
        self, ledger: Ledger, twilio: Sequence[dict[str, Any]], stored: Stored
    ) -> list[Broken]:
        wanted = {event.key for event in ledger.acknowledged}
        for message in twilio:
            for change in message["statuses"]:
                error = f":{change['error_code']}" if change["error_code"] else ""
                if any(one["acknowledged"] for one in change["callbacks"]):
                    wanted.add(f"status:{message['sid']}:{change['status']}{error}")
        return [
            *_listed(_LOST, wanted - set(stored.event_keys)),
            *_listed("stored twice", [k for k, n in stored.event_keys.items() if n > 1]),
        ]

    def _sends(
        self, ledger: Ledger, twilio: Sequence[dict[str, Any]], stored: Stored
    ) -> list[Broken]:
        at_twilio = Counter(one["body"] for one in twilio if one["body"].startswith("Send "))
        by_id = {row.public_id: row for row in stored.messages}
        rows = Counter(row.body for row in stored.messages if row.body.startswith("Send "))
        known = {row.provider_message_id for row in stored.messages}
        unkept, twice, unseen, astray = [], [], [], []
        for send in ledger.sends.values():
            if send.refusal:
                unkept.append(f"{send.body} was refused: {send.refusal}")
                continue
            count = at_twilio[send.body]
            if count > 1:
                twice.append(send.body)
            if send.id is None:
                continue
            row = by_id.get(send.id)
            if row is None or row.body != send.body:
                unkept.append(f"{send.body} isn't in the database")
                continue
            settled = MessageStatus(row.status).rank >= MessageStatus.SENT.rank
            refused = row.status == "failed" and row.provider_message_id is None
            if settled and not refused and not count:
                unseen.append(f"{send.body} is {row.status}")
            if refused and count:
                astray.append(f"{send.body} failed, and Twilio has it")
            # Twilio may have it, and never have come through with its reports.
            if row.status in ("queued", "sending") and not count:
                unkept.append(f"{send.body} is still {row.status}")
        return [
            *_listed("not kept", unkept),
            *_listed("stored under one key twice", [body for body, n in rows.items() if n > 1]),
            *_listed("sent twice", twice),
            *_listed("sent again after it was settled", self._bodies & set(at_twilio)),
            *_listed("settled without being sent", unseen),
            *_listed("failed but sent", astray),
            # Answers of the assistant have no text of their own: every one has its row.
            *_listed(
                "at Twilio, and not ours", [o["sid"] for o in twilio if o["sid"] not in known]
            ),
            *_listed("inbound messages answered twice", ["?"] * stored.twice_answered),
        ]

    def _statuses(self, twilio: Sequence[dict[str, Any]], stored: Stored) -> list[Broken]:
        """Every message stands where the highest report that was acknowledged put it."""
        status = {row.provider_message_id: row.status for row in stored.messages}
        behind = []
        for message in twilio:
            told = [
                MessageStatus(change["status"])
                for change in message["statuses"]
                if any(one["acknowledged"] for one in change["callbacks"])
            ]
            is_now = status.get(message["sid"])
            if told and is_now is not None:
                highest = max(told, key=lambda one: one.rank)
                if MessageStatus(is_now).rank < highest.rank:
                    behind.append(f"{message['sid']} is {is_now}, not {highest}")
        return _listed(_BEHIND, behind)

    def _watched(self, stored: Stored) -> list[Broken]:
        went_back, self._watcher.went_back = self._watcher.went_back, []
        missed = stored.positions - len(self._watcher.seen)
        return [
            *_listed("shown going back", went_back),
            *_listed("not seen by the watcher", ["?"] * max(missed, 0)),
        ]

    def _read(self) -> Stored:
        stored = Stored()
        with self._engine.connect() as connection:
            for table in (MessageEventRow, ParkedStatusRow, CallEventRow):
                stored.event_keys.update(connection.scalars(select(table.event_key)))
            row = MessageRow
            stored.messages = connection.execute(
                select(row.public_id, row.body, row.status, row.provider_message_id)
            ).all()
            stored.positions = (
                connection.scalar(select(func.count()).select_from(MessageEventRow)) or 0
            )
            answered = select(row.answers_id).where(row.answers_id.is_not(None))
            twice = answered.group_by(row.answers_id).having(func.count() > 1)
            stored.twice_answered = len(connection.execute(twice).all())
        return stored

    async def _twilio(self, contact: str | None = None) -> list[dict[str, Any]]:
        parameters = {"contact": contact} if contact else {}
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{self._stack.sandbox}/sandbox/messages", params=parameters) as answer,
        ):
            found: list[dict[str, Any]] = await answer.json()
            return found


def _callbacks(message: dict[str, Any]) -> list[dict[str, Any]]:
    return [one for change in message["statuses"] for one in change["callbacks"]]


def _is_open(callback: dict[str, Any]) -> bool:
    return callback["response_status"] is None and callback["error"] is None


def _listed(what: str, found: Any) -> list[Broken]:
    some = sorted(map(str, found))
    return [Broken(what, some)] if some else []


async def _ignore(_: Exception) -> None:
    """The broker is made to fail on purpose."""
