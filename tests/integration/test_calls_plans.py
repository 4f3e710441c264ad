"""Lists of calls and the sweeps over turns cost the same however many calls there were."""

from collections.abc import Mapping
from pathlib import Path

from sqlalchemy import insert, text

from services.messaging.domain.call import CallOutcome, TurnState
from services.messaging.ports.calls import CallFilter
from services.messaging.store.call_models import CallRow, CallTurnRow
from services.messaging.store.calls import SqlCallStore
from services.messaging.store.database import Database
from tests.support.calls import CALLED, CALLER, at
from tests.support.databases import PostgresServer
from tests.support.plans import Question, grown, rows_read
from tests.support.sending import now

SMALL, LARGE = 1_000, 10_000
PAGE = 20


async def fill(database: Database, calls: int) -> None:
    """Calls that have ended, each with a turn; the caller of the test among few others."""
    outcomes = [CallOutcome.ANSWERED, CallOutcome.MISSED]
    async with database.write() as connection:
        await connection.execute(
            insert(CallRow),
            [
                {
                    "provider": "twilio",
                    "provider_call_id": f"CA{number}",
                    "status": "completed",
                    "outcome": outcomes[number % 2].value,
                    "caller": CALLER if number % 50 == 0 else f"+9725{number:08d}",
                    "called": CALLED,
                    "started_at": at(number),
                }
                for number in range(calls)
            ],
        )
        await connection.execute(
            insert(CallTurnRow),
            [
                {
                    "call_id": number + 1,
                    "number": 1,
                    "state": TurnState.DONE.value,
                    "voicemail": False,
                    "recording_id": f"RE{number}",
                    "has_recording": number % 1000 == 0,
                    "heard_at": at(number),
                }
                for number in range(calls)
            ],
        )
        await connection.execute(text("ANALYZE"))


def questions(database: Database, calls: int) -> Mapping[str, Question]:
    store = SqlCallStore(database, now)

    def page(question: CallFilter, middle: bool = False) -> Question:
        after = (at(calls // 2), calls // 2) if middle else None
        return lambda: store.calls(question, limit=PAGE, after=after)

    return {
        "all": page(CallFilter()),
        "all, from the middle": page(CallFilter(), middle=True),
        "by caller": page(CallFilter(number=CALLER)),
        "by our number": page(CallFilter(number=CALLED), middle=True),
        "by outcome": page(CallFilter(outcome=CallOutcome.MISSED), middle=True),
        "since": page(CallFilter(since=at(calls // 2), until=at(calls // 2 + 100))),
        "one call": lambda: store.call(f"CA{calls // 2}"),
        "a turn": lambda: store.standing(f"CA{calls // 2}", 1),
        "unfinished": lambda: store.unfinished(limit=100),
        "unreported": lambda: store.unreported_transfers(
            since=at(0), ended_before=at(calls), limit=100
        ),
        "recordings": lambda: store.recordings_to_delete(limit=1),
    }


async def test_sqlite_takes_no_more_steps(tmp_path: Path) -> None:
    """Ten times the calls cost no question more steps."""
    assert await grown(tmp_path, fill, questions, small=SMALL, large=LARGE) == {}


async def test_postgresql_reads_no_more_rows(postgres: PostgresServer) -> None:
    """No question reads the calls beyond its page."""
    costs = await rows_read(postgres, fill, questions, size=LARGE)
    assert {name: cost for name, cost in costs.items() if cost > LARGE // 4} == {}
