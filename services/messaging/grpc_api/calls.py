"""Calls and scripts on their way to `switchboard.voice.v1`."""

from datetime import timedelta

from google.protobuf.duration_pb2 import Duration
from switchboard.voice.v1 import call_pb2 as pb
from switchboard.voice.v1 import script_pb2

from services.messaging.domain.call import Call, CallOutcome, CallStatus, Turn, TurnState
from services.messaging.domain.script import (
    AfterPart,
    AfterSilence,
    Dial,
    HangUp,
    Pause,
    Play,
    Record,
    Say,
    Script,
    Step,
)
from services.messaging.grpc_api.messages import timestamp

OUTCOMES = {
    CallOutcome.ANSWERED: pb.CALL_OUTCOME_ANSWERED,
    CallOutcome.TRANSFERRED: pb.CALL_OUTCOME_TRANSFERRED,
    CallOutcome.VOICEMAIL: pb.CALL_OUTCOME_VOICEMAIL,
    CallOutcome.MISSED: pb.CALL_OUTCOME_MISSED,
    CallOutcome.CLOSED: pb.CALL_OUTCOME_CLOSED,
}
_STATUSES = {
    CallStatus.QUEUED: pb.CALL_STATUS_QUEUED,
    CallStatus.RINGING: pb.CALL_STATUS_RINGING,
    CallStatus.IN_PROGRESS: pb.CALL_STATUS_IN_PROGRESS,
    CallStatus.BUSY: pb.CALL_STATUS_BUSY,
    CallStatus.FAILED: pb.CALL_STATUS_FAILED,
    CallStatus.NO_ANSWER: pb.CALL_STATUS_NO_ANSWER,
    CallStatus.CANCELED: pb.CALL_STATUS_CANCELED,
    CallStatus.COMPLETED: pb.CALL_STATUS_COMPLETED,
}
_STATES = {
    TurnState.WORKING: pb.TURN_STATE_WORKING,
    TurnState.DONE: pb.TURN_STATE_DONE,
    TurnState.SILENT: pb.TURN_STATE_SILENT,
    TurnState.FAILED: pb.TURN_STATE_FAILED,
    TurnState.CANCELED: pb.TURN_STATE_CANCELED,
}


def call_to_proto(call: Call) -> pb.Call:
    """The call as it goes over the wire; what is unknown is left unset."""
    return pb.Call(
        id=call.call_id,
        provider=call.provider,
        status=_STATUSES[call.status],
        outcome=OUTCOMES[call.outcome] if call.outcome else pb.CALL_OUTCOME_UNSPECIFIED,
        caller=call.caller,
        called=call.called,
        language=call.language,
        started_at=timestamp(call.started_at),
        answered_at=timestamp(call.answered_at) if call.answered_at else None,
        ended_at=timestamp(call.ended_at) if call.ended_at else None,
        duration=_duration(call.duration),
        turns=[_turn(turn) for turn in call.turns],
    )


def script_to_proto(script: Script) -> script_pb2.Script:
    """The script as it goes over the wire."""
    return script_pb2.Script(steps=[_step(step) for step in script])


def _turn(turn: Turn) -> pb.Turn:
    timings = turn.timings
    return pb.Turn(
        number=turn.number,
        state=_STATES[turn.state],
        voicemail=turn.voicemail,
        transcript=turn.transcript,
        answer=[
            pb.AnswerPart(text=part.text, audio_id=part.audio_id or "", played=number < turn.played)
            for number, part in enumerate(turn.parts)
        ],
        digits=turn.digits,
        recording_id=turn.recording_id or "",
        recording_duration=_duration(turn.recording_duration),
        heard_at=timestamp(turn.heard_at),
        timings=pb.TurnTimings(
            fetch=_duration(timings.fetch),
            transcribe=_duration(timings.transcribe),
            first_sentence=_duration(timings.first_sentence),
            first_audio=_duration(timings.first_audio),
            gap=_duration(timings.gap),
        ),
        problem=turn.problem or "",
    )


def _step(step: Step) -> script_pb2.Step:
    match step:
        case Play():
            words = script_pb2.Say(text=step.text, language=step.language)
            return script_pb2.Step(play=script_pb2.Play(audio_id=step.audio_id, words=words))
        case Say():
            return script_pb2.Step(say=script_pb2.Say(text=step.text, language=step.language))
        case Pause():
            return script_pb2.Step(pause=script_pb2.Pause(seconds=step.seconds))
        case Record():
            return script_pb2.Step(
                record=script_pb2.Record(
                    turn=step.turn,
                    max_seconds=step.max_seconds,
                    silence_seconds=step.silence_seconds,
                    beep=step.beep,
                    voicemail=step.voicemail,
                )
            )
        case AfterPart():
            return script_pb2.Step(redirect=script_pb2.Redirect(turn=step.turn, part=step.part))
        case AfterSilence():
            return script_pb2.Step(redirect=script_pb2.Redirect(turn=step.turn, silence=True))
        case Dial():
            return script_pb2.Step(
                dial=script_pb2.Dial(
                    number=step.number, timeout_seconds=step.timeout_seconds, turn=step.turn
                )
            )
        case HangUp():
            return script_pb2.Step(hang_up=script_pb2.HangUp())


def _duration(span: timedelta | None) -> Duration | None:
    if span is None:
        return None
    duration = Duration()
    duration.FromTimedelta(span)
    return duration
