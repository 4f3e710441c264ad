"""How fast messages go out."""

from datetime import UTC, datetime, timedelta

from services.messaging.usecases.pace import RecipientPace, SenderPace

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def delays(pace: RecipientPace, count: int) -> list[float]:
    booked: datetime | None = None
    found = []
    for _ in range(count):
        due_at, booked = pace.book(booked, NOW)
        found.append((due_at - NOW).total_seconds())
    return found


def test_a_burst_goes_at_once_and_the_rest_apart() -> None:
    """Of messages stored at one moment the first few go at once, the others an interval apart."""
    pace = RecipientPace(interval=timedelta(seconds=6), burst=3)
    assert delays(pace, 6) == [0, 0, 0, 6, 12, 18]


def test_a_silence_allows_a_burst_again() -> None:
    """After a silence the burst is there again, and never more than that."""
    pace = RecipientPace(interval=timedelta(seconds=6), burst=2)
    _, booked = pace.book(None, NOW)
    later = NOW + timedelta(hours=1)
    due, booked = pace.book(booked, later)
    due, booked = pace.book(booked, later)
    assert due == later
    due, booked = pace.book(booked, later)
    assert due == later + timedelta(seconds=6)


def test_no_interval_is_no_pace() -> None:
    """An interval of zero lets everything go at once."""
    assert delays(RecipientPace(interval=timedelta()), 100) == [0] * 100


def test_the_sender_keeps_its_rate() -> None:
    """A second's worth goes at once, then so many a second."""
    clock = [100.0]
    pace = SenderPace(10, lambda: clock[0])
    assert pace.available() == 10
    pace.take(10)
    assert pace.available() == 0
    assert round(pace.seconds_to_next(), 6) == 0.1
    clock[0] += 0.35
    assert pace.available() == 3
    clock[0] += 100
    assert pace.available() == 10


def test_a_slow_sender_sends_at_all() -> None:
    """Less than one message a second still lets one go now and then."""
    clock = [0.0]
    pace = SenderPace(0.5, lambda: clock[0])
    assert pace.available() == 1
    pace.take(1)
    assert pace.seconds_to_next() == 2
    clock[0] += 2
    assert pace.available() == 1
