"""Times as Twilio writes them in headers and webhooks."""

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


def rfc5322_time(text: str) -> datetime:
    """A time such as "Mon, 16 Mar 2026 03:45:01 +0000"; aware, UTC.

    Raises:
        ValueError: It is none.
    """
    try:
        at = parsedate_to_datetime(text)
        # "-0000" is UTC too, from somebody who doesn't say where he is (RFC 5322, 3.3).
        return (at if at.tzinfo else at.replace(tzinfo=UTC)).astimezone(UTC)
    except (TypeError, OverflowError, IndexError) as error:
        raise ValueError("is no date") from error
