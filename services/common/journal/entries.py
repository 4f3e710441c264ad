"""Messages of a stream, before anybody has put them there."""

from typing import NamedTuple


class Entry(NamedTuple):
    """A message of a stream.

    Attributes:
        headers: One `name: value` a line, each ended by CR and LF, as NATS has them; ASCII.
    """

    subject: str
    headers: str
    data: bytes

    def named_headers(self) -> dict[str, str]:
        """The headers by name."""
        lines = (line.partition(": ") for line in self.headers.splitlines())
        return {name: value for name, _, value in lines}
