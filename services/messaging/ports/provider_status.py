"""How providers are doing, as far as this process knows."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum


class ProviderState(Enum):
    """How a provider is doing."""

    HEALTHY = "healthy"
    """Its last calls succeeded."""
    DEGRADED = "degraded"
    """It failed of late, and is still tried."""
    UNAVAILABLE = "unavailable"
    """It failed so often, or asked us so, that it is left alone for a while."""
    UNTRIED = "untried"
    """Nothing was sent by it since the start."""


class BreakerPhase(Enum):
    """What a circuit breaker lets through."""

    CLOSED = "closed"
    """Everything."""
    OPEN = "open"
    """Nothing."""
    HALF_OPEN = "half_open"
    """One call at a time, to try."""


@dataclass(frozen=True, slots=True)
class Pairing:
    """How a phone's owner lets us in. Whoever can read this can take the session over.

    Attributes:
        qr: What the code to be scanned holds; "" when there is none.
        code: What is to be typed; "" when there is none.
    """

    qr: str
    code: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class ProviderCondition:
    """What a provider that keeps a connection knows of itself, whatever became of messages.

    Attributes:
        usable: Whether anything can be sent.
        reason: Why not; otherwise what is worth knowing, or "".
        restricted: The provider has taken rights from our account.
        ack_latency: How long its last acknowledgement took.
        capacity: How many messages it may be given at once; None: any number.
    """

    usable: bool
    reason: str = ""
    pairing: Pairing | None = None
    restricted: bool = False
    ack_latency: timedelta | None = None
    capacity: int | None = None


@dataclass(frozen=True, slots=True)
class ProviderStatus:
    """A provider as this process sees it.

    Attributes:
        reason: The state in words.
        last_error: The provider's code and words of the last failure.
        retry_at: While unavailable: when it is tried again.
        breaker: What its circuit breaker lets through.
        ack_latency: How long its last acknowledgement took.
        restricted: The provider has taken rights from our account.
    """

    name: str
    state: ProviderState
    reason: str
    last_success_at: datetime | None = None
    last_failure_at: datetime | None = None
    last_error: str | None = None
    retry_at: datetime | None = None
    pairing: Pairing | None = None
    breaker: BreakerPhase = BreakerPhase.CLOSED
    ack_latency: timedelta | None = None
    restricted: bool = False
