"""When a provider is left alone, and what is said of it."""

from datetime import timedelta

import pytest

from services.messaging.ports.provider_status import ProviderCondition, ProviderState
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.usecases.breaker import Breaker
from tests.support.sending import ManualClock

ACCEPTED = SendOutcome(OutcomeKind.ACCEPTED, provider_message_id="SM1")
REJECTED = SendOutcome(OutcomeKind.REJECTED, error_code="21211", error_message="Invalid")
DOWN = SendOutcome(OutcomeKind.RETRY, error_code="no_connection", error_message="refused")
SILENT = SendOutcome(OutcomeKind.UNKNOWN, error_code="timeout", error_message="no answer")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def breaker(clock: ManualClock) -> Breaker:
    return Breaker(
        "twilio",
        clock,
        failures=3,
        first_pause=timedelta(seconds=5),
        longest_pause=timedelta(seconds=12),
    )


def call(breaker: Breaker, *outcomes: SendOutcome) -> None:
    for outcome in outcomes:
        breaker.started()
        breaker.ended(outcome)


def test_it_opens_after_failures_in_a_row(breaker: Breaker, clock: ManualClock) -> None:
    """Failures in a row open it; a success in between, or a refused message, starts anew."""
    call(breaker, DOWN, SILENT, ACCEPTED, DOWN, SILENT, REJECTED, DOWN, DOWN)
    assert breaker.free() is None
    assert breaker.status().state is ProviderState.DEGRADED
    call(breaker, SILENT)
    assert breaker.free() == 0
    status = breaker.status()
    assert status.state is ProviderState.UNAVAILABLE
    assert status.retry_at == clock() + timedelta(seconds=5)
    assert status.last_error == "timeout: no answer"


def test_half_open_it_lets_one_through(breaker: Breaker, clock: ManualClock) -> None:
    """After the pause one message at a time is tried, and a success closes it."""
    call(breaker, DOWN, DOWN, DOWN)
    clock.forward(5)
    assert breaker.free() == 1
    assert breaker.status().state is ProviderState.DEGRADED
    breaker.started()
    assert breaker.free() == 0
    breaker.ended(ACCEPTED)
    assert breaker.free() is None
    assert breaker.status().state is ProviderState.HEALTHY


def test_a_failed_trial_doubles_the_pause(breaker: Breaker, clock: ManualClock) -> None:
    """Each trial that fails doubles the pause, up to the longest; a success resets it."""
    call(breaker, DOWN, DOWN, DOWN)
    for seconds in (5, 10, 12, 12):
        assert breaker.status().retry_at == clock() + timedelta(seconds=seconds)
        clock.forward(seconds)
        call(breaker, DOWN)
    clock.forward(12)
    call(breaker, ACCEPTED, DOWN, DOWN, DOWN)
    assert breaker.status().retry_at == clock() + timedelta(seconds=5)


def test_calls_under_way_together_count_as_one_try(breaker: Breaker, clock: ManualClock) -> None:
    """Many calls that fail at one moment don't lengthen the pause."""
    for _ in range(16):
        breaker.started()
    for _ in range(16):
        breaker.ended(DOWN)
    assert breaker.status().retry_at == clock() + timedelta(seconds=5)


def test_a_wish_for_a_pause_holds_at_once(breaker: Breaker, clock: ManualClock) -> None:
    """What the provider asks of one message holds for all, also when another one succeeds."""
    asked = SendOutcome(
        OutcomeKind.RETRY,
        error_code="20429",
        error_message="Too Many Requests",
        retry_after=timedelta(seconds=7),
    )
    call(breaker, asked, ACCEPTED)
    assert breaker.free() == 0
    assert breaker.status().reason == "asked us to wait"
    clock.forward(7)
    assert breaker.free() is None


def test_what_is_our_own_fault_says_nothing(breaker: Breaker) -> None:
    """An attempt that never reached the provider leaves its state as it is."""
    for _ in range(5):
        breaker.started()
        breaker.ended(None)
    assert breaker.status().state is ProviderState.UNTRIED


def test_condition(clock: ManualClock) -> None:
    """What a provider knows of itself holds: nothing while not usable, few while it is slow."""
    conditions = [ProviderCondition(usable=False, reason="not paired")]
    breaker = Breaker("baileys", clock, condition=lambda: conditions[-1])
    assert (breaker.free(), breaker.is_sound()) == (0, False)
    status = breaker.status()
    assert (status.state, status.reason) == (ProviderState.UNAVAILABLE, "not paired")
    conditions.append(ProviderCondition(usable=True, capacity=2))
    assert (breaker.free(), breaker.is_sound()) == (2, True)
    breaker.started()
    breaker.started()
    assert (breaker.free(), breaker.is_sound()) == (0, True)
    breaker.ended(ACCEPTED)
    assert breaker.free() == 1
    conditions.append(ProviderCondition(usable=True, reason="a bad file"))
    status = breaker.status()
    assert (status.state, status.reason) == (ProviderState.DEGRADED, "a bad file")


def test_a_clock_that_is_set_back_ends_pauses(breaker: Breaker, clock: ManualClock) -> None:
    """What was to end an hour from now, because the clock was ahead, has ended."""
    clock.forward(3600)
    call(breaker, DOWN, DOWN, DOWN)
    assert breaker.free() == 0
    clock.forward(-3600)
    assert breaker.free() == 1
