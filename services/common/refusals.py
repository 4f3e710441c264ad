"""How often a sender may be refused, and how often that is logged."""

import ipaddress
import re
from collections import OrderedDict
from collections.abc import Callable

from starlette.types import Scope

_UNPLAIN = re.compile("[^!-~]")


class FailureLimiter:
    """Counts failures per sender in fixed windows of a minute.

    Memory is bounded: of too many senders, the one unseen for longest is forgotten.

    Args:
        per_minute: Failures a minute before a sender is over the limit.
        monotonic: Clock in seconds.
    """

    def __init__(
        self, per_minute: int, monotonic: Callable[[], float], *, max_senders: int = 10_000
    ) -> None:
        self._per_minute = per_minute
        self._monotonic = monotonic
        self._max_senders = max_senders
        self._windows: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def limited(self, sender: str) -> float:
        """As `failed` would answer, without counting anything."""
        now = self._monotonic()
        start, count = self._windows.get(sender, (now, 0))
        left = 60 - (now - start)
        return left if left > 0 and count >= self._per_minute else 0.0

    def failed(self, sender: str) -> float:
        """Count one failure.

        Returns:
            0 within the limit, else the seconds until the sender's window ends.
        """
        now = self._monotonic()
        start, count = self._windows.get(sender, (now, 0))
        if now - start >= 60:
            start, count = now, 0
        self._windows[sender] = (start, count + 1)
        self._windows.move_to_end(sender)
        if len(self._windows) > self._max_senders:
            self._windows.popitem(last=False)
        return 60 - (now - start) if count >= self._per_minute else 0.0


class LogLimiter:
    """Lets a line through at most once in a while for each kind, and counts what it held back."""

    def __init__(self, seconds: float, monotonic: Callable[[], float]) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._last: dict[str, tuple[float, int]] = {}

    def suppressed(self, kind: str) -> int | None:
        """None: say nothing now. Else how many lines of this kind were held back before.

        Args:
            kind: One of a fixed set of words; each takes memory for ever.
        """
        now = self._monotonic()
        last, held_back = self._last.get(kind, (float("-inf"), 0))
        if now - last < self._seconds:
            self._last[kind] = (last, held_back + 1)
            return None
        self._last[kind] = (now, 0)
        return held_back


def sender_of(scope: Scope) -> str:
    """The sender's address; of IPv6 its /64, which is what one sender has."""
    client = scope.get("client")
    if client is None:
        return "unknown"
    try:
        address = ipaddress.ip_address(client[0])
    except ValueError:
        # Whatever a proxy handed on; logs for people must not be steered by it.
        return _UNPLAIN.sub("?", str(client[0])[:64])
    if address.version == 6:
        return str(ipaddress.ip_network((int(address) >> 64 << 64, 64)))
    return str(address)
