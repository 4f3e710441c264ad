"""When a send is tried again, and when it is given up."""

from datetime import UTC, datetime, timedelta

import pytest

from services.messaging.ports.sending import ClaimedSend, OutcomeKind, SendOutcome
from services.messaging.usecases.retrying import RetryPolicy

START = datetime(2026, 1, 2, tzinfo=UTC)
RETRY = SendOutcome(OutcomeKind.RETRY, error_code="20429", error_message="Too Many Requests")


def attempt(number: int) -> ClaimedSend:
    return ClaimedSend(
        message_id="m-1",
        provider="twilio",
        contact_address="whatsapp:+972501234567",
        own_address="whatsapp:+14155238886",
        body="Hello",
        attempt=number,
        first_attempt_at=START,
        last_attempt_at=START,
        lease_until=START,
    )


def test_pauses_double_up_to_the_longest() -> None:
    """Pauses double from attempt to attempt, within a quarter, up to the longest."""
    policy = RetryPolicy(max_attempts=10**6)
    for number, seconds in [(1, 2), (2, 4), (3, 8), (20, 300), (10_000, 300)]:
        outcome, retry_at = policy.apply(attempt(number), RETRY, START)
        assert outcome == RETRY
        assert 0.75 * seconds <= (retry_at - START).total_seconds() <= 1.25 * seconds


def test_providers_wish_is_heeded() -> None:
    """A provider that asks for a longer pause gets it."""
    asked = SendOutcome(OutcomeKind.RETRY, retry_after=timedelta(seconds=90))
    _, retry_at = RetryPolicy().apply(attempt(1), asked, START)
    assert retry_at == START + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("number", "now"), [(100, START), (5, START + timedelta(hours=6))], ids=["attempts", "age"]
)
def test_given_up(number: int, now: datetime) -> None:
    """After too many attempts or too long a time the message is refused, and says why."""
    outcome, _ = RetryPolicy().apply(attempt(number), RETRY, now)
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.REJECTED, "gave_up")
    assert f"{number} attempts" in (outcome.error_message or "")
    assert "20429: Too Many Requests" in (outcome.error_message or "")


@pytest.mark.parametrize("kind", [OutcomeKind.ACCEPTED, OutcomeKind.REJECTED, OutcomeKind.UNKNOWN])
def test_other_outcomes_stay(kind: OutcomeKind) -> None:
    """Only a retry is ever given up: an unknown message is looked up for as long as it takes."""
    outcome = SendOutcome(kind)
    late = START + timedelta(days=30)
    assert RetryPolicy().apply(attempt(1000), outcome, late) == (outcome, late)
