"""Opening hours."""

from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from services.messaging.domain.business_hours import BusinessHours, time_zone

JERUSALEM = ZoneInfo("Asia/Jerusalem")
# 2026-03-01 is a Sunday.
SUNDAY = 1


def is_open(
    hours: str, day: int, hour: int, minute: int = 0, *, zone: ZoneInfo = JERUSALEM
) -> bool:
    """Whether it is open on a day of March 2026 by the clock on the wall."""
    at = datetime(2026, 3, day, hour, minute, tzinfo=zone).astimezone(UTC)
    return BusinessHours.parse(hours, zone).is_open(at)


def test_an_israeli_week() -> None:
    """Days and times are those of the business, and the end is not within."""
    hours = "Sun-Thu 09:00-18:00, Fri 09:00-13:00"
    assert not is_open(hours, SUNDAY, 8, 59)
    assert is_open(hours, SUNDAY, 9)
    assert is_open(hours, SUNDAY + 4, 17, 59)
    assert not is_open(hours, SUNDAY + 4, 18)
    assert is_open(hours, SUNDAY + 5, 12, 59)
    assert not is_open(hours, SUNDAY + 5, 13)
    assert not is_open(hours, SUNDAY + 6, 11)


def test_several_spans_and_spellings() -> None:
    """A pause at noon, long names of days, any case, and weeks that wrap around."""
    hours = "monday-friday 9:00-12:00 13:00-17:00,SAT-Mon 20:00-24:00"
    assert is_open(hours, 2, 11, 59)
    assert not is_open(hours, 2, 12, 30)
    assert is_open(hours, 2, 13)
    assert is_open(hours, 7, 23, 59)
    assert is_open(hours, 1, 20)
    assert not is_open(hours, 3, 20)
    assert not is_open(hours, 3, 0)


def test_a_night_belongs_to_the_evening_it_began() -> None:
    """A span that ends before it begins goes on after midnight, also from Sunday to Monday."""
    hours = "Fri 22:00-03:00, Sun 22:00-02:00"
    assert is_open(hours, 6, 23)
    assert is_open(hours, 7, 2, 59)
    assert not is_open(hours, 7, 3)
    assert not is_open(hours, 6, 2)
    assert is_open(hours, 2, 1, 59)
    assert not is_open(hours, 2, 2)


def test_always_open() -> None:
    """A whole day is written to 24:00."""
    assert all(is_open("Sun-Sat 00:00-24:00", day, hour) for day in range(1, 8) for hour in (0, 23))


def test_clocks_that_go_forward_and_back() -> None:
    """Hours are those of the wall: in UTC they move with daylight saving time."""
    london = ZoneInfo("Europe/London")
    hours = BusinessHours.parse("Sun-Sat 01:30-09:00", london)
    # Clocks go from 01:00 to 02:00 on 2026-03-29, and from 02:00 back to 01:00 on 2026-10-25.
    assert not hours.is_open(datetime(2026, 3, 29, 0, 59, tzinfo=UTC))
    assert hours.is_open(datetime(2026, 3, 29, 1, 0, tzinfo=UTC))
    assert hours.is_open(datetime(2026, 3, 29, 7, 59, tzinfo=UTC))
    assert not hours.is_open(datetime(2026, 3, 29, 8, 0, tzinfo=UTC))
    assert hours.is_open(datetime(2026, 10, 25, 0, 30, tzinfo=UTC))
    assert not hours.is_open(datetime(2026, 10, 25, 1, 15, tzinfo=UTC))
    assert hours.is_open(datetime(2026, 10, 25, 1, 30, tzinfo=UTC))


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "has no opening hours"),
        (" , ", "has no opening hours"),
        ("always", '"always" must be days and times'),
        ("Sunny 09:00-18:00", "Sunny is no day"),
        ("Mon-Fri 9-18", "9-18 must be a span"),
        ("Mon-Fri 09:00-18:60", "18:60 is no time"),
        ("Mon-Fri 09:00-25:00", "25:00 is no time"),
        ("Mon-Fri 24:00-08:00", "begins at 00:00"),
        ("Mon 09:00-09:00", "is empty"),
        ("Mon 09:00 - 18:00", "09:00 must be a span"),
    ],
)
def test_what_cant_be_read_is_named(text: str, problem: str) -> None:
    """An error says which entry is wrong and how it is written."""
    with pytest.raises(ValueError, match=problem):
        BusinessHours.parse(text, JERUSALEM)


@pytest.mark.parametrize("name", ["", "Israel Standard Time", "Mars/Olympus", "../etc/passwd", "/"])
def test_an_unknown_time_zone_is_refused(name: str) -> None:
    """A time zone that isn't there is an error with an example."""
    with pytest.raises(ValueError, match="Asia/Jerusalem"):
        time_zone(name)
