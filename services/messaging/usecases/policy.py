"""The rules that every message passes before it is stored, and some again before it is sent."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

from services.common.errors import PaceExceededError, PolicyRefusedError
from services.messaging.domain.conversation import WINDOW
from services.messaging.usecases.pace import RecipientPace

OPTED_OUT: Final = "opted_out"
OUTSIDE_WINDOW: Final = "window"
NO_TEMPLATES: Final = "templates"
PACE: Final = "pace"
EXPIRED: Final = "expired"


@dataclass(frozen=True, slots=True)
class RecipientFacts:
    """What the rules need to know of a conversation.

    Attributes:
        opted_out_at: Set while the contact wants no messages.
        last_inbound_at: When the contact last wrote; None: never.
    """

    opted_out_at: datetime | None
    last_inbound_at: datetime | None


@dataclass(frozen=True, slots=True)
class SendPolicy:
    """The rules and their limits.

    Attributes:
        window: So long after the contact's last message anything may be sent; afterwards only
            templates (Twilio's error 63016). None where there is no such rule.
        web_providers: Those that are a WhatsApp Web session, which knows neither window nor
            templates: both belong to WhatsApp's business platform.
        pace: How fast one recipient is written to.
        max_waiting: So many messages may wait for one recipient.
        max_age: So long after it was stored a message is no longer begun to be sent.
    """

    window: timedelta | None = WINDOW
    web_providers: frozenset[str] = frozenset()
    pace: RecipientPace = RecipientPace()  # noqa: RUF009 - Frozen.
    max_waiting: int = 100
    max_age: timedelta = timedelta(hours=6)

    def window_of(self, provider: str) -> timedelta | None:
        """The window that holds for a provider; None when it has none."""
        return None if provider in self.web_providers else self.window

    def takes_templates(self, provider: str) -> bool:
        """Whether a provider has templates."""
        return provider not in self.web_providers

    def refusal(
        self, facts: RecipientFacts, *, is_template: bool, provider: str, now: datetime
    ) -> PolicyRefusedError | None:
        """Why a message to this contact may not be sent now; None when it may.

        `until` is None: these rules hold until the contact writes, or for ever.

        Args:
            provider: What is to send it.
        """
        if facts.opted_out_at is not None:
            return PolicyRefusedError(
                OPTED_OUT,
                "to: this contact opted out and gets no messages until they opt in again, for "
                "example by writing START",
            )
        window = self.window_of(provider)
        if is_template and not self.takes_templates(provider):
            return PolicyRefusedError(
                NO_TEMPLATES,
                f"template: {provider} has no templates; send `body`, which needs no window there",
            )
        if is_template or window is None:
            return None
        if facts.last_inbound_at is None:
            return PolicyRefusedError(
                OUTSIDE_WINDOW,
                "to: this contact has not written yet; until they do, WhatsApp takes only "
                "templates: send `template`",
            )
        closes_at = facts.last_inbound_at + window
        if now >= closes_at:
            return PolicyRefusedError(
                OUTSIDE_WINDOW,
                f"to: WhatsApp's 24-hour window closed at {closes_at:%Y-%m-%dT%H:%M:%SZ}; until "
                "the contact writes again it takes only templates: send `template`",
            )
        return None

    def is_too_old(self, created_at: datetime, now: datetime) -> bool:
        """Whether a message waited for so long that its contact would take it for a new one."""
        return now - created_at > self.max_age

    def overload(self, waiting: int, now: datetime) -> PaceExceededError | None:
        """Why no more may wait for a recipient for whom `waiting` messages do; None when it may."""
        if waiting < self.max_waiting:
            return None
        return PaceExceededError(
            PACE,
            f"to: {waiting} messages already wait for this contact; try again later",
            until=now + max(self.pace.interval, timedelta(seconds=1)),
        )
