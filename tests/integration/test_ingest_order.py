"""Whatever order events come in, and however often, the same is stored in the end."""

import asyncio
import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import MessageStatus, StatusReport
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from tests.support.receiving import at, clear, inbound, phone, receive, report, state
from tests.support.sending import ANY_TIME, ManualClock, new_message, open_database

SENDS = 3
USER_IDS = ["US.13491208655400", "US.13491208655401", "IL.ENT.13491208655402"]
REPORTED = [status for status in MessageStatus if status is not MessageStatus.RECEIVED]


@dataclass(frozen=True)
class Settled:
    """The end of one of our own sends; `accepted` when the provider answered the call."""

    send: int
    accepted: bool


@dataclass(frozen=True)
class Reported:
    """A status report; hinted when it hands back our own message id."""

    send: int
    status: MessageStatus | None
    seconds: int
    hinted: bool
    error_code: str | None


Event = InboundMessage | Reported | Settled


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What happened, in no order: contacts wrote, sends ended, reports came."""
    messages = [
        inbound(
            f"IN{number}",
            contact=contact,
            # Each its own moment.
            seconds=number * 7 % 31,
            body=body,
            name=name,
            user_name=user_name,
            # The number alone, the user id alone, or both: then they are one person's.
            address=USER_IDS[contact] if shown == "user id" else None,
            others=[USER_IDS[contact]] if shown == "both" else [],
        )
        for number, (contact, body, name, user_name, shown) in enumerate(
            draw(
                st.lists(
                    st.tuples(
                        st.integers(0, 2),
                        st.sampled_from(["Hello", "STOP", "START", "", "How much?"]),
                        st.sampled_from(["", "Dana", "Noa"]),
                        st.sampled_from(["", "", "dana", "noa"]),
                        st.sampled_from(["number", "user id", "both"]),
                    ),
                    max_size=8,
                )
            )
        )
    ]
    reports = draw(
        st.lists(
            st.builds(
                Reported,
                # One more than there are: nobody here sent it.
                send=st.integers(0, SENDS),
                status=st.sampled_from([*REPORTED, None]),
                seconds=st.integers(1, 50),
                hinted=st.booleans(),
                error_code=st.sampled_from([None, "63016", "30008"]),
            ),
            max_size=8,
            # The same event always has the same content.
            unique_by=lambda one: (one.send, one.status, one.error_code),
        )
    )
    sends = [Settled(number, draw(st.booleans())) for number in range(SENDS)]
    return [*messages, *reports, *sends]


@settings(
    max_examples=25,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(history=histories(), seed=st.integers(0, 2**32), batch_size=st.integers(1, 6))
def test_order_and_repetition_do_not_matter(
    database_url: str, history: list[Event], seed: int, batch_size: int
) -> None:
    """Any order, any repetition and any division into batches end in the same state."""
    chance = random.Random(seed)
    repeatable = [one for one in history if not isinstance(one, Settled)]
    shuffled = history + chance.choices(repeatable, k=len(history) // 2 if repeatable else 0)
    chance.shuffle(shuffled)

    async def compare() -> None:
        async with open_database(database_url) as database:
            expected = await _outcome(database, history, batch_size=len(history))
            assert await _outcome(database, shuffled, batch_size=batch_size) == expected

    asyncio.run(compare())


async def _outcome(
    database: Database, history: Sequence[Event], *, batch_size: int
) -> dict[str, Any]:
    await clear(database)
    clock = ManualClock(at(0))
    outbox, ingest = SqlOutboxStore(database, clock, ANY_TIME), SqlIngestStore(database)
    # To contacts that don't write, so that every send can be claimed at once.
    for number in range(SENDS):
        await outbox.enqueue(new_message(f"send {number}", to=phone(10 + number)))
    claimed = await outbox.claim(limit=SENDS, lease=timedelta(minutes=5))
    sends = {int(one.body.split()[1]): one for one in claimed}
    clock.time = at(60)
    take = receive(ingest, clock=clock)
    groups = itertools.groupby(history, key=lambda one: isinstance(one, Settled))
    for settled, group in groups:
        events = list(group)
        if settled:
            for one in events:
                assert isinstance(one, Settled)
                await _settle(outbox, ingest, sends, one)
            continue
        for start in range(0, len(events), batch_size):
            batch = events[start : start + batch_size]
            await take(
                [one for one in batch if isinstance(one, InboundMessage)],
                [_report(one, sends) for one in batch if isinstance(one, Reported)],
            )
    result = await state(database)
    silenced = {key for key, row in result["contacts"].items() if row["last_opt_out_at"]}
    # A late STOP removes a reply that an early one would only have shortened.
    result["replies"] = {
        key: times for key, times in result["replies"].items() if key[0] not in silenced
    }
    return result


async def _settle(
    outbox: SqlOutboxStore, ingest: SqlIngestStore, sends: dict[int, ClaimedSend], one: Settled
) -> None:
    outcome = (
        SendOutcome(
            OutcomeKind.ACCEPTED,
            provider_message_id=f"SM{one.send}",
            status=MessageStatus.QUEUED,
        )
        if one.accepted
        else SendOutcome(OutcomeKind.UNKNOWN)
    )
    await outbox.settle(sends[one.send], outcome, at(90))
    await ingest.apply_parked()


def _report(one: Reported, sends: dict[int, ClaimedSend]) -> StatusReport:
    send = sends.get(one.send)
    return report(
        f"SM{one.send}",
        one.status,
        seconds=one.seconds,
        message_id=send.message_id if send and one.hinted else None,
        error_code=one.error_code,
    )
