"""A pretend VoiceService that speaks real gRPC, and the webhooks of calls."""

import asyncio
from typing import Any

from google.protobuf.duration_pb2 import Duration
from switchboard.voice.v1 import call_pb2, script_pb2
from switchboard.voice.v1 import voice_service_pb2 as pb
from switchboard.voice.v1 import voice_service_pb2_grpc as rpc

from services.common.errors import NotFoundError, SwitchboardError

CALL_SID = "CA0123456789abcdef0123456789abcdef"
RECORDING_SID = "RE0123456789abcdef0123456789abcdef"
AUDIO_ID = "0123456789abcdef" * 4
CALLER = "+972501234567"
CALLED = "+14155238886"


def call_webhook(**more: str) -> dict[str, str]:
    """Parameters of a webhook of a call."""
    return {
        "CallSid": CALL_SID,
        "AccountSid": "AC00000000000000000000000000000000",
        "From": CALLER,
        "To": CALLED,
        "CallStatus": "in-progress",
        "Direction": "inbound",
        **more,
    }


def recording_webhook(**more: str) -> dict[str, str]:
    """Parameters of a webhook of something the caller said."""
    return call_webhook(
        RecordingSid=RECORDING_SID,
        RecordingUrl=f"https://api.twilio.com/2010-04-01/Accounts/AC/Recordings/{RECORDING_SID}",
        RecordingDuration="4",
        Digits="",
    ) | dict(more)


def script(*steps: script_pb2.Step) -> script_pb2.Script:
    """A script of `steps`; without any, a greeting and the first turn."""
    return script_pb2.Script(
        steps=steps
        or (
            script_pb2.Step(play=script_pb2.Play(audio_id=AUDIO_ID)),
            script_pb2.Step(
                record=script_pb2.Record(turn=1, max_seconds=60, silence_seconds=2, beep=False)
            ),
            script_pb2.Step(redirect=script_pb2.Redirect(turn=1, silence=True)),
        )
    )


def call(id_: str = CALL_SID, **more: Any) -> call_pb2.Call:
    """A call that was answered once."""
    members: dict[str, Any] = {
        "id": id_,
        "provider": "twilio",
        "status": call_pb2.CALL_STATUS_COMPLETED,
        "outcome": call_pb2.CALL_OUTCOME_ANSWERED,
        "caller": CALLER,
        "called": CALLED,
        "language": "en-US",
        "duration": Duration(seconds=41),
    }
    found = call_pb2.Call(**members | more)
    found.started_at.FromJsonString("2026-05-01T09:30:00Z")
    return found


class PretendVoice(rpc.VoiceServiceServicer):
    """Answers as told.

    Attributes:
        requests: Everything that was asked, in order.
        remaining: Seconds left until the deadline of each NextStep when it came.
        script: What NextStep gives.
        error: What every call fails with, unless None.
        ready: NextStep waits for it.
        known: Calls by their id.
    """

    def __init__(self) -> None:
        self.requests: list[Any] = []
        self.remaining: list[float] = []
        self.script = script()
        self.error: SwitchboardError | None = None
        self.ready = asyncio.Event()
        self.ready.set()
        self.known = {CALL_SID: call()}

    def _asked(self, request: Any) -> None:
        self.requests.append(request)
        if self.error is not None:
            raise self.error

    async def NextStep(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        self.remaining.append(context.time_remaining())
        self._asked(request)
        await self.ready.wait()
        return pb.NextStepResponse(script=self.script)

    async def GetCall(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        self._asked(request)
        if request.id not in self.known:
            raise NotFoundError("id: there is no call with this id")
        return pb.GetCallResponse(call=self.known[request.id])

    async def ListCalls(self, request: Any, context: Any) -> Any:  # noqa: N802 - As generated.
        self._asked(request)
        return pb.ListCallsResponse(calls=self.known.values(), next_page_token="next")
