"""What is told of a call into its row: the result is the same in any order, told once or often."""

from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import Row

from services.common.tracing import current
from services.messaging.domain.call import (
    CallReport,
    CallSeen,
    CallStatus,
    Recording,
    TurnState,
)

Columns = dict[str, Any]


def fold_call(row: Row[*tuple[Any, ...]], call: CallSeen, *, talking: bool) -> Columns:
    """What changes in a call's row by one more sight of it.

    Args:
        talking: It shows that the call was answered.
    """
    wanted: Columns = {
        "caller": row.caller or call.caller,
        "called": row.called or call.called,
        "started_at": min(row.started_at, call.at),
    }
    if talking:
        wanted["status"] = _further(row.status, CallStatus.IN_PROGRESS)
        wanted["answered_at"] = _earlier(row.answered_at, call.at)
    return _changes(row, wanted)


def fold_report(row: Row[*tuple[Any, ...]], report: CallReport) -> Columns:
    """What changes in a call's row by a report."""
    at = report.provider_at or report.call.at
    wanted: Columns = {"status": _further(row.status, report.status)}
    if report.status is CallStatus.IN_PROGRESS:
        wanted["answered_at"] = _earlier(row.answered_at, at)
    if report.status.has_ended:
        wanted["ended_at"] = _earlier(row.ended_at, at)
        wanted["ended_by"] = row.ended_by or report.key
    if report.duration is not None:
        wanted["duration_ms"] = max(_milliseconds(report.duration), row.duration_ms or 0)
    return _changes(row, wanted)


def fold_recording(row: Row[*tuple[Any, ...]] | None, recording: Recording) -> Columns:
    """What a turn's row says once a recording of it is known."""
    duration = recording.duration
    known_ms = row.recording_duration_ms if row else None
    wanted: Columns = {
        "recording_id": recording.recording_id,
        "recording_url": (row.recording_url if row else "") or recording.url,
        "recording_duration_ms": known_ms if duration is None else _milliseconds(duration),
        "digits": (row.digits if row else "") or recording.digits,
        "voicemail": recording.voicemail or bool(row and row.voicemail),
        "heard_at": _earlier(row.heard_at if row else None, recording.heard_at),
    }
    if row is None or row.recording_id is None:
        return {
            **wanted,
            "state": TurnState.WORKING.value,
            "has_recording": True,
            # The request that brought it is going on now.
            "traceparent": current() or None,
        }
    return wanted if row.recording_id == recording.recording_id else {}


def fold_absent(row: Row[*tuple[Any, ...]] | None, recording: Recording) -> Columns:
    """What a turn's row says once the provider says that there is no recording after all."""
    wanted = fold_recording(row, recording)
    if not wanted:
        return {}
    # A message that failed for want of its recording, or in a replay, is none after all.
    failed = row is not None and row.voicemail and row.state == TurnState.FAILED.value
    if row is None or failed or row.state == TurnState.WORKING.value:
        wanted["state"] = TurnState.SILENT.value
    else:
        wanted["state"] = row.state
    return {**wanted, "has_recording": False}


def fold_silence(row: Row[*tuple[Any, ...]] | None, at: datetime) -> Columns:
    """What a turn's row says once the caller let it pass; a recording of it outranks that."""
    wanted: Columns = {"heard_at": _earlier(row.heard_at if row else None, at)}
    if row is None or row.recording_id is None:
        wanted["state"] = TurnState.SILENT.value
    return wanted


def _changes(row: Row[*tuple[Any, ...]], wanted: Columns) -> Columns:
    return {name: value for name, value in wanted.items() if getattr(row, name) != value}


def _further(known: str, told: CallStatus) -> str:
    return max(CallStatus(known), told, key=lambda status: status.rank).value


def _earlier(known: datetime | None, told: datetime) -> datetime:
    return told if known is None else min(known, told)


def _milliseconds(span: timedelta) -> int:
    return span // timedelta(milliseconds=1)
