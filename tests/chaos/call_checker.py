"""What must hold of telephone calls, by what callers heard and by what the database holds."""

import asyncio
import contextlib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import aiohttp
from sqlalchemy import Engine, func, select
from sqlalchemy.exc import SQLAlchemyError

from services.messaging.domain.call import CallStatus, TurnState
from services.messaging.store.call_models import CallRow, CallTurnPartRow, CallTurnRow
from services.messaging.store.message_models import MessageRow
from tests.chaos.callers import Call, heard, is_over

LOST_END = "calls whose end was lost"

_LOOKS_SECONDS = 0.25
_WRITTEN_TO = ("missed", "voicemail")


class CallChecker:
    """Looks at the calls that the sandbox knows, and at their rows.

    Attributes:
        went_back: What was seen going back: calls, turns and answers.
    """

    def __init__(self, sandbox: str, engine: Engine) -> None:
        self._sandbox = sandbox
        self._engine = engine
        self._since = 0
        self._calls: dict[str, tuple[int, bool]] = {}
        self._turns: dict[tuple[str, int], tuple[bool, str, str, int]] = {}
        self._parts: dict[tuple[str, int, int], str] = {}
        self.went_back: list[str] = []

    async def watch(self) -> None:
        """See for ever whether a call goes back; those of this round."""
        while True:
            with contextlib.suppress(SQLAlchemyError):
                await asyncio.to_thread(self._look)
            await asyncio.sleep(_LOOKS_SECONDS)

    def begin(self) -> None:
        """From now on only calls that come now are looked at."""
        with self._engine.connect() as connection:
            self._since = connection.scalar(select(func.max(CallRow.id))) or 0
        self._calls, self._turns, self._parts, self.went_back = {}, {}, {}, []

    async def calls(self) -> Sequence[Call]:
        """Every call, as the sandbox tells it."""
        async with (
            aiohttp.ClientSession() as client,
            client.get(f"{self._sandbox}/sandbox/calls") as answer,
        ):
            found: Sequence[Call] = await answer.json()
            return found

    async def unfinished(self) -> str:
        """What is still to happen in calls; "" when all have ended."""
        if left := [call["sid"] for call in await self.calls() if not is_over(call)]:
            return f"{len(left)} calls at Twilio"
        return await asyncio.to_thread(self._unfinished)

    def _unfinished(self) -> str:
        working = CallTurnRow.state == TurnState.WORKING.value
        kept = CallTurnRow.has_recording & ~(
            CallTurnRow.voicemail & (CallTurnRow.state == TurnState.FAILED.value)
        )
        with self._engine.connect() as connection:
            for what, condition in (("turns worked on", working), ("recordings kept", kept)):
                query = select(func.count()).select_from(CallTurnRow).where(condition)
                if count := connection.scalar(query):
                    return f"{count} {what}"
            ended = CallRow.ended_at.is_not(None) & CallRow.outcome.is_(None)
            waiting = select(func.count()).select_from(CallRow).where(ended)
            if count := connection.scalar(waiting.where(CallRow.id > self._since)):
                return f"{count} calls without an outcome"
        return ""

    async def broken(self) -> Mapping[str, Sequence[str]]:
        """What doesn't hold, by what it is, once all has come to rest."""
        calls = await self.calls()
        return await asyncio.to_thread(self._broken, calls)

    def _broken(self, calls: Sequence[Call]) -> Mapping[str, Sequence[str]]:
        self._look()
        found: dict[str, list[str]] = defaultdict(list)
        found["calls that went back"] = list(self.went_back)
        rows = self._rows(calls)
        for call in calls:
            for error in errors_heard(call):
                found["callers heard an application error"].append(f"{call['sid']}: {error}")
            row, turns = rows.get(call["sid"], (None, []))
            if row is None:
                continue
            for what in (*_of_call(call, row), *of_turns(call, turns)):
                found[what].append(call["sid"])
        found |= self._written_to(rows)
        return found

    def _rows(self, calls: Sequence[Call]) -> dict[str, tuple[Any, list[tuple[Any, list[str]]]]]:
        """Of each call its row, and its turns with their sentences."""
        with self._engine.connect() as connection:
            known = {call["sid"] for call in calls}
            sentences: dict[int, list[str]] = defaultdict(list)
            of_turn = select(CallTurnPartRow.turn_id, CallTurnPartRow.text)
            for part in connection.execute(of_turn.order_by(CallTurnPartRow.number)):
                sentences[part.turn_id].append(part.text)
            turns: dict[int, list[tuple[Any, list[str]]]] = defaultdict(list)
            columns = select(*CallTurnRow.__table__.columns).order_by(CallTurnRow.number)
            for turn in connection.execute(columns.where(CallTurnRow.call_id > self._since)):
                turns[turn.call_id].append((turn, sentences[turn.id]))
            return {
                row.provider_call_id: (row, turns[row.id])
                for row in connection.execute(select(*CallRow.__table__.columns))
                if row.provider_call_id in known
            }

    def _written_to(self, rows: Mapping[str, Any]) -> dict[str, list[str]]:
        """Who didn't reach us gets one message for each call, and nobody else."""
        query = select(MessageRow.request_id).where(MessageRow.request_id.like("missed-call:%"))
        with self._engine.connect() as connection:
            written = {str(one).partition(":")[2] for one in connection.scalars(query)}
        missed = {sid for sid, (row, _) in rows.items() if row.outcome in _WRITTEN_TO}
        return {"missed calls without a message": sorted(missed - written)}

    def _look(self) -> None:
        with self._engine.connect() as connection:
            ids = {}
            columns = select(*CallRow.__table__.columns).where(CallRow.id > self._since)
            for row in connection.execute(columns):
                ids[row.id] = row.provider_call_id
                self._look_at_call(row)
            turn_ids = {}
            turns = select(*CallTurnRow.__table__.columns)
            for turn in connection.execute(turns.where(CallTurnRow.call_id.in_(ids))):
                key = turn_ids[turn.id] = (ids[turn.call_id], turn.number)
                self._look_at_turn(key, turn)
            parts = select(*CallTurnPartRow.__table__.columns)
            for part in connection.execute(parts.where(CallTurnPartRow.turn_id.in_(turn_ids))):
                text = self._parts.setdefault((*turn_ids[part.turn_id], part.number), part.text)
                if text != part.text:
                    self.went_back.append(f"{turn_ids[part.turn_id]} has another answer")

    def _look_at_call(self, row: Any) -> None:
        now = (CallStatus(row.status).rank, row.ended_at is not None)
        before = self._calls.get(row.provider_call_id, now)
        self._calls[row.provider_call_id] = now
        if now[0] < before[0] or now[1] < before[1]:
            self.went_back.append(f"{row.provider_call_id}: {before} to {now}")

    def _look_at_turn(self, key: tuple[str, int], turn: Any) -> None:
        is_final = TurnState(turn.state).is_final
        now = (is_final, turn.recording_id or "", turn.transcript, turn.parts)
        before = self._turns.get(key, (False, "", "", 0))
        self._turns[key] = now
        # A recording is stronger than a silence that was told of before.
        reopened = before[0] and not is_final and before[1]
        other = any(old and old != new for old, new in zip(before[1:3], now[1:3], strict=True))
        if reopened or other or now[3] < before[3]:
            self.went_back.append(f"{key}: {before} to {now}")


def errors_heard(call: Call) -> list[str]:
    """What Twilio apologized for to a caller, but for files that it couldn't fetch.

    It asks once for what it plays. An edge that dies then takes the call along.
    """
    errors = [entry["text"] for entry in call["timeline"] if entry["kind"] == "error"]
    return [error for error in errors if "/audio/" not in error]


def _of_call(call: Call, row: Any) -> list[str]:
    ended = CallStatus(row.status).has_ended and row.ended_at is not None
    told = [entry for entry in call["timeline"] if entry["kind"] == "status_callback"]
    acknowledged = any(200 <= (entry["status"] or 0) < 300 for entry in told)
    found = []
    if acknowledged and not ended:
        found.append(LOST_END)
    if not acknowledged:
        found.append("calls whose end nobody took")
    if ended and row.outcome is None:
        found.append("calls without an outcome")
    return found


def of_turns(call: Call, turns: Sequence[tuple[Any, list[str]]]) -> list[str]:
    """Each thing that was said is one turn, with one answer, which is what the caller heard."""
    found = []
    said = {
        entry["sid"]: entry["text"] for entry in call["timeline"] if entry["kind"] == "recorded"
    }
    recordings = Counter(turn.recording_id for turn, _ in turns if turn.recording_id)
    if any(times > 1 for times in recordings.values()):
        found.append("recordings stored twice")
    words = heard(call)
    stored = {sentence for _, sentences in turns for sentence in sentences}
    if any(word not in stored for word in words if _is_its_own(word)):
        found.append("answers heard that aren't stored")
    for turn, sentences in turns:
        if turn.recording_id not in said and turn.recording_id is not None:
            found.append("recordings that nobody made")
        if turn.transcript and turn.transcript != said.get(turn.recording_id):
            found.append("turns with somebody else's words")
        if len(sentences) != turn.parts or len(set(sentences)) != len(sentences):
            found.append("answers given twice")
        if any(words.count(sentence) > 1 for sentence in sentences if _is_its_own(sentence)):
            found.append("answers heard twice")
        if turn.state == TurnState.WORKING.value or turn.lease_until is not None:
            found.append("turns claimed for ever")
    return found


def _is_its_own(sentence: str) -> bool:
    """Whether it names what was asked: the names have numbers, and are asked about once."""
    return any(character.isdigit() for character in sentence)
