"""Switches that make the sandbox misbehave, as the real services sometimes do."""

from typing import Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, model_validator

from sandbox.state import FailedStatus, Status

CallStatusName = Literal["ringing", "in-progress", "completed"]
Operation = Literal["create", "read"]


class Fault(BaseModel):
    """A switch that is on for `times` uses, or for ever."""

    model_config = ConfigDict(extra="forbid")

    times: int | None = Field(None, ge=1, description="How often it strikes; null is for ever.")


class ApiFault(Fault):
    """A fault of Twilio's REST API, in creating a message or in fetching and listing."""

    on: Literal["create", "read", "any"] = "create"


class Latency(ApiFault):
    seconds: float = Field(gt=0, le=600)


class RateLimited(ApiFault):
    retry_after: int | None = Field(1, ge=0, description="Seconds, in Retry-After; null: none.")


class Hang(ApiFault):
    accept: bool = Field(False, description="Create the message before falling silent.")

    @model_validator(mode="after")
    def _only_creating_accepts(self) -> Self:
        if self.accept and self.on != "create":
            raise ValueError("accept needs on=create: reading accepts nothing")
        return self


class Reject(Fault):
    """Creating a message is refused with this error code (HTTP 400)."""

    error_code: int = Field(ge=10000, le=99999)


class DuplicateCallbacks(Fault):
    copies: int = Field(2, ge=2, le=1000)


class ReorderedCallbacks(Fault):
    """The callbacks of one message, one by one in this order once all have happened."""

    order: list[Status] | None = Field(None, description="Null reverses them.")


class EarlyCallbacks(Fault):
    """These callbacks are made, and answered, before the create call returns."""

    statuses: list[Status] = ["sent"]


class FailedMessages(Fault):
    status: FailedStatus = "failed"
    error_code: int = Field(63016, ge=10000, le=99999)


class OpenAIRateLimited(Fault):
    retry_after: int | None = Field(1, ge=0, description="Seconds, in Retry-After; null: none.")


class OpenAISlow(Fault):
    seconds: float = Field(gt=0, le=600, description="Before the answer, or before each event.")


class OpenAICut(Fault):
    """A streamed answer breaks off after this many events; any other at once."""

    after_events: int = Field(5, ge=0)


class VendorFault(Fault):
    """How a speech vendor fails; `slow` still answers, later."""

    kind: Literal["error", "rate_limited", "hang", "slow", "cut", "garbage"] = "error"
    seconds: float = Field(1, gt=0, le=600, description="How much later, for `slow`.")
    retry_after: int | None = Field(1, ge=0, description="Seconds, for `rate_limited`.")


class RecordingLate(Fault):
    seconds: float = Field(gt=0, le=600, description="Until the file is there.")


class RecordingContent(Fault):
    """What the file holds instead; `empty` and `hour` show in the duration, too."""

    kind: Literal["not_audio", "empty", "hour"] = "not_audio"


class RecordingElsewhere(Fault):
    url: str = Field(description="What webhooks say as RecordingUrl.")


class RecordingCallback(Fault):
    """When recordingStatusCallback is made: before `action`, after it as usual, or never."""

    when: Literal["before", "after", "never"] = "after"
    seconds: float = Field(0, ge=0, le=600, description="So much later, for `after`.")
    copies: int = Field(1, ge=1, le=100)


class CallStatuses(Fault):
    """The call's status callbacks, one by one in this order once it has ended."""

    order: list[CallStatusName] = ["completed"]
    copies: int = Field(1, ge=1, le=100)


class Faults(BaseModel):
    """All switches; null is off."""

    model_config = ConfigDict(extra="forbid")

    latency: Latency | None = None
    rate_limited: RateLimited | None = None
    reject: Reject | None = None
    error_500: ApiFault | None = None
    error_500_after_accept: Fault | None = None
    hang: Hang | None = None
    reset_after_accept: Fault | None = None
    media_missing: Fault | None = None

    failed_messages: FailedMessages | None = None
    no_callbacks: Fault | None = None
    early_callbacks: EarlyCallbacks | None = None
    duplicate_callbacks: DuplicateCallbacks | None = None
    reordered_callbacks: ReorderedCallbacks | None = None

    openai_rate_limited: OpenAIRateLimited | None = None
    openai_error_500: Fault | None = None
    openai_hang: Fault | None = None
    openai_slow: OpenAISlow | None = None
    openai_cut: OpenAICut | None = None

    duplicate_call_webhooks: DuplicateCallbacks | None = None
    call_statuses: CallStatuses | None = None
    recording_late: RecordingLate | None = None
    recording_absent: Fault | None = None
    recording_content: RecordingContent | None = None
    recording_elsewhere: RecordingElsewhere | None = None
    recording_callback: RecordingCallback | None = None

    recording: VendorFault | None = None
    transcription: VendorFault | None = None
    transcription_invents: Fault | None = Field(None, description="Words where there were none.")
    speech: VendorFault | None = None
    google_token: VendorFault | None = None
    google_speech: VendorFault | None = None


F = TypeVar("F", bound=Fault)


class FaultBoard:
    """The switches as they stand now."""

    def __init__(self) -> None:
        self.now = Faults()

    def strike(self, fault: F | None, operation: Operation | None = None) -> F | None:
        """Count one use of a switch; None when it is off, used up or for something else."""
        if fault is None:
            return None
        if isinstance(fault, ApiFault) and fault.on not in {"any", operation}:
            return None
        if fault.times is not None:
            fault.times -= 1
            if fault.times == 0:
                self._turn_off(fault)
        return fault

    def _turn_off(self, fault: Fault) -> None:
        for name in Faults.model_fields:
            if getattr(self.now, name) is fault:
                setattr(self.now, name, None)
