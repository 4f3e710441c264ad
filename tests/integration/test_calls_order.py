"""Whatever order a call's events come in, and however often, the same is stored in the end."""

import asyncio
from collections.abc import Sequence
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.messaging.domain.call import Call, CallOutcome, CallReport, CallSeen, CallStatus
from services.messaging.domain.call import Recording as Heard
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from tests.support.calls import at, recording, report, seen
from tests.support.receiving import clear
from tests.support.sending import ManualClock, open_database

Event = CallSeen | CallReport | Heard | CallOutcome | tuple[str, int, int]

SECONDS = st.integers(0, 60)


@st.composite
def histories(draw: st.DrawFn) -> list[Event]:
    """What happened in a call, in no order and some of it twice."""
    turns = draw(st.integers(0, 3))
    events: list[Event] = [seen(seconds=draw(SECONDS))]
    for status in draw(st.lists(st.sampled_from(CallStatus), max_size=4, unique=True)):
        seconds = draw(SECONDS)
        events.append(
            report(
                status,
                seconds=seconds,
                provider_at=draw(st.sampled_from([None, at(seconds - 1)])),
                duration=draw(st.sampled_from([None, 0, 5, 70])),
            )
        )
    for turn in range(1, turns + 1):
        digits, duration = draw(st.sampled_from(["", "1"])), draw(st.sampled_from([0, 2]))
        told = draw(st.lists(st.sampled_from(["action", "stored", "absent", "silent", "played"])))
        for kind in told:
            match kind:
                case "silent":
                    events.append(("silent", turn, draw(SECONDS)))
                case "played":
                    events.append(("played", turn, draw(st.integers(0, 3))))
                case _:
                    events.append(
                        recording(
                            turn,
                            seconds=draw(SECONDS),
                            duration=duration if kind != "absent" else None,
                            digits=digits if kind == "action" else "",
                            absent=kind == "absent",
                            caller="" if kind == "stored" else "+972501234567",
                        )
                    )
    events += draw(st.lists(st.sampled_from(CallOutcome), max_size=2))
    events += draw(st.lists(st.sampled_from(events), max_size=4))
    return events


async def _tell(store: SqlCallStore, event: Event) -> None:
    match event:
        case CallSeen():
            await store.seen(event)
        case CallReport():
            await store.report(event)
        case Heard():
            await store.recorded(event)
        case CallOutcome():
            await store.set_outcome("CA1", event)
        case ("silent", turn, seconds):
            await store.silent(seen(seconds=seconds), turn)
        case (_, turn, parts):
            await store.played("CA1", turn, parts)


async def _stored(database: Database, events: Sequence[Event], *, together: bool) -> Call:
    await clear(database)
    store = SqlCallStore(database, ManualClock())
    # What merely adds to a call needs it, as it does where it comes from.
    await store.seen(seen(seconds=90))
    if together:
        await asyncio.gather(*(_tell(store, event) for event in events))
    else:
        for event in events:
            await _tell(store, event)
    return await store.call("CA1")


def test_any_order_any_repetition(database_url: str) -> None:
    """Orders, repetitions and simultaneity of a call's events end in the same call and turns."""

    @settings(
        max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(st.data())
    def holds(data: Any) -> None:
        events = data.draw(histories())
        other = data.draw(st.permutations(events))
        together = data.draw(st.booleans())

        async def check() -> None:
            async with open_database(database_url) as database:
                once = await _stored(database, events, together=False)
                again = await _stored(database, other, together=together)
                assert once == again

        asyncio.run(check())

    holds()
