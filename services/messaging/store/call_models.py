"""The tables of telephone calls; conventions as in `schema`.

Who locks a call and its turns locks the call first. A caller is linked to a contact by the number
alone, so that merging contacts needn't touch calls.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import ForeignKey, Index, String, Text, UniqueConstraint
from sqlalchemy.orm import Mapped, mapped_column, relationship

from services.messaging.store.base import Base, RowId


class CallRow(Base):
    """One telephone call."""

    __tablename__ = "calls"
    __table_args__ = (
        # In this order, because calls are asked for by their id alone.
        UniqueConstraint("provider_call_id", "provider"),
        # The order of the list, for each of the filters.
        Index("ix_calls_started_at_id", "started_at", "id"),
        Index("ix_calls_caller_started_at_id", "caller", "started_at", "id"),
        Index("ix_calls_called_started_at_id", "called", "started_at", "id"),
        Index("ix_calls_outcome_started_at_id", "outcome", "started_at", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    provider: Mapped[str] = mapped_column(String(16))
    provider_call_id: Mapped[str] = mapped_column(String(128))
    status: Mapped[str] = mapped_column(String(16))
    outcome: Mapped[str | None] = mapped_column(String(16))
    # Empty until an event names them.
    caller: Mapped[str] = mapped_column(String(255))
    called: Mapped[str] = mapped_column(String(255))
    # BCP 47, of the last turn that was understood.
    language: Mapped[str] = mapped_column(String(35), default="")
    # The earliest that any event tells, each of the three.
    started_at: Mapped[datetime]
    answered_at: Mapped[datetime | None]
    ended_at: Mapped[datetime | None]
    duration_ms: Mapped[int | None]
    # Natural key of the report that ended the call: delivered again, it says so again.
    ended_by: Mapped[str | None] = mapped_column(String(255))


class CallTurnRow(Base):
    """Once the caller spoke; while it is `working`, the work that is to be done."""

    __tablename__ = "call_turns"
    __table_args__ = (
        UniqueConstraint("call_id", "number"),
        # What the sweeps look for: turns without an owner, recordings to delete.
        Index("ix_call_turns_state_heard_at", "state", "heard_at"),
        Index("ix_call_turns_has_recording_id", "has_recording", "id"),
    )

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"))
    number: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    voicemail: Mapped[bool]
    # None while nothing but silence, or that parts were played, is known.
    recording_id: Mapped[str | None] = mapped_column(String(128))
    recording_url: Mapped[str] = mapped_column(Text, default="")
    # Whether the provider has it.
    has_recording: Mapped[bool]
    recording_duration_ms: Mapped[int | None]
    digits: Mapped[str] = mapped_column(String(255), default="")
    heard_at: Mapped[datetime | None]
    transcript: Mapped[str] = mapped_column(Text, default="")
    language: Mapped[str] = mapped_column(String(35), default="")
    # What follows the answer.
    action: Mapped[str] = mapped_column(String(16), default="listen")
    # Parts there are, and how many of them the caller has heard.
    parts: Mapped[int] = mapped_column(default=0)
    played: Mapped[int] = mapped_column(default=0)
    attempts: Mapped[int] = mapped_column(default=0)
    # While somebody works on it: when another process may take over.
    lease_until: Mapped[datetime | None]
    fetch_ms: Mapped[int | None]
    transcribe_ms: Mapped[int | None]
    first_sentence_ms: Mapped[int | None]
    first_audio_ms: Mapped[int | None]
    gap_ms: Mapped[int | None]
    problem: Mapped[str | None] = mapped_column(Text)
    # The request that brought the recording: the work on it goes on under its id.
    traceparent: Mapped[str | None] = mapped_column(String(55))

    call: Mapped[CallRow] = relationship(backref="turns")


class CallTurnPartRow(Base):
    """A sentence of an answer."""

    __tablename__ = "call_turn_parts"
    __table_args__ = (UniqueConstraint("turn_id", "number"),)

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    turn_id: Mapped[int] = mapped_column(ForeignKey("call_turns.id"))
    # From 0.
    number: Mapped[int]
    text: Mapped[str] = mapped_column(Text)
    # None when the provider speaks it.
    audio_id: Mapped[str | None] = mapped_column(String(64))

    turn: Mapped[CallTurnRow] = relationship(backref="sentences")


class CallEventRow(Base):
    """An event of a call as it came. Rows are only ever added."""

    __tablename__ = "call_events"

    id: Mapped[int] = mapped_column(RowId, primary_key=True)
    call_id: Mapped[int] = mapped_column(ForeignKey("calls.id"), index=True)
    # Natural key: the same event, delivered again, is not added again.
    event_key: Mapped[str] = mapped_column(String(255), unique=True)
    # call, status, recording or continuation
    kind: Mapped[str] = mapped_column(String(16))
    # When it reached us.
    occurred_at: Mapped[datetime]
    # What the provider said.
    payload: Mapped[dict[str, Any]]

    call: Mapped[CallRow] = relationship(backref="events")
