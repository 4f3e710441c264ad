"""How the business wants its calls to go."""

from dataclasses import dataclass
from datetime import timedelta

from services.messaging.domain.business_hours import BusinessHours
from services.messaging.domain.call import Call, CallSeen


@dataclass(frozen=True, slots=True)
class CallRules:
    """How the business wants its calls to go.

    Attributes:
        language: BCP 47, in which callers are greeted.
        answers: Whether there is an assistant; otherwise callers leave messages.
        hours: None when it is always open.
        message_when_closed: Whether one can leave a message outside these hours.
        max_turns: So often a caller is listened to.
        max_length: So long a call lasts; an answer is always said to its end.
        transfer_to: E.164 of who takes over; None when nobody does.
        longest_wait: After so long without an answer the caller is asked to leave a message.
        silence_seconds: Silence that ends what a caller says, also at its beginning.
        patient_seconds: The same for callers who said nothing before, or leave a message: they
            are thinking.
    """

    language: str
    answers: bool = True
    hours: BusinessHours | None = None
    message_when_closed: bool = True
    max_turns: int = 30
    max_length: timedelta = timedelta(minutes=15)
    transfer_to: str | None = None
    longest_wait: timedelta = timedelta(seconds=30)
    silence_seconds: int = 2
    patient_seconds: int = 5
    max_speech_seconds: int = 60
    max_message_seconds: int = 180
    dial_timeout_seconds: int = 25

    def is_closed(self, call: CallSeen | Call) -> bool:
        """Whether a call came outside business hours."""
        at = call.at if isinstance(call, CallSeen) else call.started_at
        return self.hours is not None and not self.hours.is_open(at)
