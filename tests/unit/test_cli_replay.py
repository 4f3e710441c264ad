"""What `switchboard replay` takes for a time."""

from datetime import UTC, datetime, timedelta

import pytest

from cli.main import main
from cli.replay import moment

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("90s", NOW - timedelta(seconds=90)),
        ("90m", NOW - timedelta(minutes=90)),
        ("36h", NOW - timedelta(hours=36)),
        ("7d", NOW - timedelta(days=7)),
        ("2w", NOW - timedelta(weeks=2)),
        ("2026-02-27T10:00:00+02:00", datetime(2026, 2, 27, 8, tzinfo=UTC)),
        ("2026-02-27T10:00:00Z", datetime(2026, 2, 27, 10, tzinfo=UTC)),
        ("2026-02-27", datetime(2026, 2, 27).astimezone(UTC)),
    ],
)
def test_times_and_durations(text: str, meant: datetime) -> None:
    """A duration is that long ago; a time without an offset is this machine's."""
    assert moment(text, NOW) == meant


@pytest.mark.parametrize(
    "text", ["", "yesterday", "7", "-7d", "7 d", "\u0667d", "999999w", "2026-13-01"]
)
def test_anything_else_is_refused(text: str) -> None:
    """What is no time is refused with both forms named."""
    with pytest.raises(ValueError, match="neither a time such as"):
        moment(text, NOW)


@pytest.mark.parametrize(
    "options", [[], ["--since", "yesterday"], ["--since", "1d", "--kind", "letter"]]
)
def test_a_wrong_option_ends_with_2(options: list[str]) -> None:
    """Nothing is touched when it isn't clear what is meant."""
    with pytest.raises(SystemExit) as ended:
        main(["replay", *options])
    assert ended.value.code == 2
