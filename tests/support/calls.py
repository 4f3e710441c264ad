"""What tests of calls share: what webhooks tell of them."""

from datetime import UTC, datetime, timedelta

from services.messaging.domain.call import CallReport, CallSeen, CallStatus, Recording

START = datetime(2026, 3, 1, 12, 0, 0, 123456, tzinfo=UTC)
CALLER = "+972501234567"
CALLED = "+14155238886"


def at(seconds: float) -> datetime:
    """A time after `START`."""
    return START + timedelta(seconds=seconds)


def seen(
    call_id: str = "CA1", *, seconds: float = 0, caller: str = CALLER, called: str = CALLED
) -> CallSeen:
    """A call as a webhook shows it, `seconds` after `START`."""
    return CallSeen("twilio", call_id, caller, called, at(seconds))


def report(
    status: CallStatus,
    call_id: str = "CA1",
    *,
    seconds: float = 0,
    provider_at: datetime | None = None,
    duration: float | None = None,
) -> CallReport:
    """A status callback."""
    return CallReport(
        call=seen(call_id, seconds=seconds),
        status=status,
        key=f"callstatus:{call_id}:{status.value}",
        provider_at=provider_at,
        duration=None if duration is None else timedelta(seconds=duration),
    )


def recording(
    turn: int = 1,
    call_id: str = "CA1",
    *,
    recording_id: str | None = None,
    seconds: float = 0,
    duration: float | None = None,
    digits: str = "",
    voicemail: bool = False,
    absent: bool = False,
    caller: str = CALLER,
) -> Recording:
    """What a caller said in a turn."""
    recording_id = recording_id or f"RE-{call_id}-{turn}"
    return Recording(
        call=seen(call_id, seconds=seconds, caller=caller, called=CALLED if caller else ""),
        turn=turn,
        recording_id=recording_id,
        url=f"https://api.twilio.com/recordings/{recording_id}",
        duration=None if duration is None else timedelta(seconds=duration),
        digits=digits,
        voicemail=voicemail,
        absent=absent,
        heard_at=at(seconds),
    )
