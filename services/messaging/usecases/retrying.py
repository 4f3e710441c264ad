"""When a send is tried again, and when it is given up."""

import random
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome

GAVE_UP = "gave_up"
"""Error code of a message that could not be sent for so long that it is no longer tried."""


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential pauses with jitter, for a limited time.

    Attributes:
        first_pause: Pause after the first attempt; doubled after each further one.
        longest_pause: Where doubling ends. A provider may ask for a longer one.
        max_age: So long after its first attempt a message is given up.
        max_attempts: So many attempts are made at most.
    """

    first_pause: timedelta = timedelta(seconds=2)
    longest_pause: timedelta = timedelta(minutes=5)
    max_age: timedelta = timedelta(hours=6)
    max_attempts: int = 100

    def apply(
        self, message: ClaimedSend, outcome: SendOutcome, now: datetime
    ) -> tuple[SendOutcome, datetime]:
        """The outcome to record, and when to try again if it is RETRY."""
        if outcome.kind is not OutcomeKind.RETRY:
            return outcome, now
        # Beyond 2**20 the longest pause holds anyway, and the product could overflow.
        pause = min(self.first_pause * 2 ** min(message.attempt - 1, 20), self.longest_pause)
        # Messages that failed at one moment should not all return together.
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - Spreading load needs no secrecy.
        retry_at = now + max(pause, outcome.retry_after or timedelta())
        out_of_time = retry_at - message.first_attempt_at > self.max_age
        if message.attempt < self.max_attempts and not out_of_time:
            return outcome, retry_at
        last = f"{outcome.error_code or 'no code'}: {outcome.error_message or 'no explanation'}"
        return (
            replace(
                outcome,
                kind=OutcomeKind.REJECTED,
                error_code=GAVE_UP,
                error_message=f"not sent in {message.attempt} attempts; the last one ended with "
                f"{last}",
            ),
            now,
        )
