"""Limits on refused requests."""

from services.common.refusals import FailureLimiter, LogLimiter


class Clock:
    """Seconds that pass when told."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_a_sender_is_limited_for_the_rest_of_its_minute() -> None:
    """Failures within the limit are free; after the minute all starts anew."""
    clock = Clock()
    limiter = FailureLimiter(2, clock)
    assert [limiter.failed("a") for _ in range(3)] == [0, 0, 60]
    clock.now += 45
    assert limiter.failed("a") == 15
    assert limiter.failed("b") == 0
    clock.now += 15
    assert limiter.failed("a") == 0


def test_memory_for_senders_is_bounded() -> None:
    """Of too many senders the one unseen for longest is forgotten, not the busy one."""
    limiter = FailureLimiter(1, Clock(), max_senders=2)
    limiter.failed("busy")
    for n in range(10):
        limiter.failed(f"sender-{n}")
        assert limiter.failed("busy") > 0
    assert len(limiter._windows) == 2


def test_log_lines_are_held_back_and_counted() -> None:
    """One line in ten seconds for each kind; the next says how many there would have been."""
    clock = Clock()
    limiter = LogLimiter(10, clock)
    assert [limiter.suppressed("a") for _ in range(3)] == [0, None, None]
    assert limiter.suppressed("b") == 0
    clock.now += 10
    assert limiter.suppressed("a") == 2
