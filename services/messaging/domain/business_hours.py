"""When the business is open."""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Final
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

_DAYS: Final = (
    ("mon", "monday"),
    ("tue", "tuesday"),
    ("wed", "wednesday"),
    ("thu", "thursday"),
    ("fri", "friday"),
    ("sat", "saturday"),
    ("sun", "sunday"),
)
_MINUTES_OF_DAY: Final = 24 * 60
_MINUTES_OF_WEEK: Final = 7 * _MINUTES_OF_DAY
_ENTRY: Final = re.compile(
    r"(?P<first>[a-z]+)(?:-(?P<last>[a-z]+))?\s+(?P<times>\S+(?:\s+\S+)*)", re.IGNORECASE
)
_SPAN: Final = re.compile(r"(\d{1,2}):(\d{2})-(\d{1,2}):(\d{2})", re.ASCII)


@dataclass(frozen=True, slots=True)
class BusinessHours:
    """The week's opening hours by the wall clock of one time zone.

    Attributes:
        spans: Beginning and end in minutes since Monday 00:00; the end is not within, and may lie
            in the next week.
    """

    spans: tuple[tuple[int, int], ...]
    zone: ZoneInfo

    @classmethod
    def parse(cls, text: str, zone: ZoneInfo) -> "BusinessHours":
        """Read hours such as "Sun-Thu 09:00-18:00, Fri 09:00-13:00".

        Entries are separated by commas, several spans of a day by a space: "Mon-Fri 09:00-12:00
        13:00-17:00". A span that ends before it begins goes on after midnight.

        Raises:
            ValueError: An entry can't be read; the text says which and why.
        """
        entries = [entry.strip() for entry in text.split(",") if entry.strip()]
        if not entries:
            raise ValueError('has no opening hours; write them as "Sun-Thu 09:00-18:00"')
        spans = [span for entry in entries for span in _spans(entry)]
        return cls(tuple(sorted(spans)), zone)

    def is_open(self, at: datetime) -> bool:
        """Whether the business is open at a time, which must be aware."""
        local = at.astimezone(self.zone)
        minute = local.weekday() * _MINUTES_OF_DAY + local.hour * 60 + local.minute
        return any(
            begin <= candidate < end
            for begin, end in self.spans
            # A span that goes on after midnight on Sunday reaches into the next week.
            for candidate in (minute, minute + _MINUTES_OF_WEEK)
        )


def time_zone(name: str) -> ZoneInfo:
    """A time zone of the IANA database.

    Raises:
        ValueError: There is none of this name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ValueError("must be a time zone such as Asia/Jerusalem or Europe/London") from error


def _spans(entry: str) -> list[tuple[int, int]]:
    match = _ENTRY.fullmatch(entry)
    if match is None:
        raise ValueError(f'"{entry}" must be days and times such as "Sun-Thu 09:00-18:00"')
    first = _day(match["first"], entry)
    last = _day(match["last"], entry) if match["last"] else first
    days = [(first + offset) % 7 for offset in range((last - first) % 7 + 1)]
    times = [_times(part, entry) for part in match["times"].split()]
    return [
        (day * _MINUTES_OF_DAY + begin, day * _MINUTES_OF_DAY + end)
        for day in days
        for begin, end in times
    ]


def _day(word: str, entry: str) -> int:
    for number, names in enumerate(_DAYS):
        if word.lower() in names:
            return number
    raise ValueError(f'"{entry}": {word} is no day; use Mon, Tue, Wed, Thu, Fri, Sat and Sun')


def _times(part: str, entry: str) -> tuple[int, int]:
    match = _SPAN.fullmatch(part)
    if match is None:
        raise ValueError(f'"{entry}": {part} must be a span of time such as 09:00-18:00')
    begin = _minute(match[1], match[2], entry)
    end = _minute(match[3], match[4], entry)
    if begin == _MINUTES_OF_DAY:
        raise ValueError(f'"{entry}": a day begins at 00:00, not at 24:00')
    if begin == end:
        raise ValueError(f'"{entry}": {part} is empty; for the whole day write 00:00-24:00')
    return begin, end if end > begin else end + _MINUTES_OF_DAY


def _minute(hours: str, minutes: str, entry: str) -> int:
    minute = int(hours) * 60 + int(minutes)
    if int(minutes) > 59 or minute > _MINUTES_OF_DAY:
        raise ValueError(f'"{entry}": {hours}:{minutes} is no time of day')
    return minute
