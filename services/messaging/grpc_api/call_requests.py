"""Requests about calls into what the use cases and the store take."""

from collections.abc import Collection, Mapping
from datetime import datetime, timedelta
from typing import Final

from switchboard.voice.v1 import call_pb2
from switchboard.voice.v1 import voice_service_pb2 as pb

from services.common.errors import InvalidInputError
from services.messaging.domain.call import CallOutcome, CallSeen
from services.messaging.domain.contact import IdentityKind
from services.messaging.domain.phone import ContactAddresses
from services.messaging.grpc_api.calls import OUTCOMES
from services.messaging.grpc_api.requests import named, time_of
from services.messaging.ports.calls import CallFilter
from services.messaging.usecases.calls.requests import (
    Dialed,
    Incoming,
    Played,
    Recorded,
    Silent,
    StepRequest,
)

_MAX_ID: Final = 128
_MAX_PARTY: Final = 255
_MAX_TURN: Final = 10_000
_MAX_PART: Final = 10_000
_OUTCOMES: Mapping[int, CallOutcome | None] = {
    call_pb2.CALL_OUTCOME_UNSPECIFIED: None,
    **{number: outcome for outcome, number in OUTCOMES.items()},
}


def step_request(
    request: pb.NextStepRequest, *, providers: Collection[str], now: datetime
) -> StepRequest:
    """What happened in a call.

    Args:
        providers: Names of those that may bring calls.

    Raises:
        InvalidInputError: A field is missing or malformed.
    """
    if request.provider not in providers:
        raise InvalidInputError("provider", "is none that brings calls here")
    call = CallSeen(
        provider=request.provider,
        call_id=_text(request.call_id, "call_id", _MAX_ID),
        caller=_text(request.caller, "caller", _MAX_PARTY, required=False),
        called=_text(request.called, "called", _MAX_PARTY, required=False),
        at=now,
    )
    if request.hold_ms < 0:
        raise InvalidInputError("hold_ms", "is negative")
    return StepRequest(call, _event(request), timedelta(milliseconds=request.hold_ms))


def call_filter(request: pb.ListCallsRequest, addresses: ContactAddresses) -> CallFilter:
    """What a list of calls is about.

    Raises:
        InvalidInputError: A filter is malformed.
    """
    number = None
    if request.number:
        identity = addresses.identity(request.number, field="number")
        if identity.kind is not IdentityKind.PHONE:
            raise InvalidInputError("number", "is no phone number; write it as +972501234567")
        number = identity.value
    since = time_of(request.since, "since") if request.HasField("since") else None
    until = time_of(request.until, "until") if request.HasField("until") else None
    if since is not None and until is not None and until <= since:
        raise InvalidInputError("until", "is not after since")
    return CallFilter(
        number=number,
        outcome=named(_OUTCOMES, request.outcome, "outcome"),
        since=since,
        until=until,
    )


def call_question(wanted: CallFilter) -> tuple[str, ...]:
    """What binds a page token to its filter."""
    return (
        "calls",
        wanted.number or "",
        wanted.outcome or "",
        wanted.since.isoformat() if wanted.since else "",
        wanted.until.isoformat() if wanted.until else "",
    )


def _event(request: pb.NextStepRequest) -> Incoming | Recorded | Silent | Played | Dialed:
    match request.WhichOneof("event"):
        case "incoming":
            return Incoming()
        case "recorded":
            recorded = request.recorded
            return Recorded(
                _number(recorded.turn, "recorded.turn", 1, _MAX_TURN),
                digits=_text(recorded.digits, "recorded.digits", _MAX_PARTY, required=False),
                voicemail=recorded.voicemail,
            )
        case "silent":
            return Silent(_number(request.silent.turn, "silent.turn", 1, _MAX_TURN))
        case "played":
            return Played(
                _number(request.played.turn, "played.turn", 1, _MAX_TURN),
                _number(request.played.part, "played.part", 0, _MAX_PART),
            )
        case "dialed":
            return Dialed(
                _number(request.dialed.turn, "dialed.turn", 1, _MAX_TURN),
                answered=request.dialed.answered,
            )
    raise InvalidInputError("event", "is missing: say what happened")


def _number(value: int, field: str, least: int, most: int) -> int:
    if not least <= value <= most:
        raise InvalidInputError(field, f"must be from {least} to {most}")
    return value


def _text(value: str, field: str, limit: int, *, required: bool = True) -> str:
    if required and not value:
        raise InvalidInputError(field, "is empty; it is required")
    if len(value) > limit:
        raise InvalidInputError(field, f"is longer than {limit} characters")
    if "\0" in value:
        raise InvalidInputError(field, "holds a NUL character")
    return value
