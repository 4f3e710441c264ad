"""Several streams are read as one, whatever the clock of NATS did."""

from collections.abc import AsyncGenerator, Sequence

from nats.aio.client import Client
from nats.aio.msg import Msg

from services.common.journal.reading import in_order

_MINUTE = 60_000_000_000


def _message(stream: str, sequence: int, minute: int) -> Msg:
    """As JetStream delivers it: the time stands in the address for the acknowledgement."""
    reply = f"$JS.ACK.{stream}.reader.1.{sequence}.{sequence}.{minute * _MINUTE}.0"
    return Msg(Client(), "ingest.test", reply, f"{stream}{sequence}".encode())


async def _reading(
    stream: str, *batches: Sequence[tuple[int, int]]
) -> AsyncGenerator[Sequence[Msg], None]:
    for batch in batches:
        yield [_message(stream, sequence, minute) for sequence, minute in batch]


async def _read(*readings: AsyncGenerator[Sequence[Msg], None]) -> list[str]:
    found = []
    async for batch in in_order(*readings):
        assert batch
        found += [message.data.decode() for message in batch]
    return found


async def test_streams_are_merged_by_time() -> None:
    """What one stream stored earlier comes earlier, however they are cut into batches."""
    one = _reading("A", [(1, 1), (2, 4)], [(3, 5), (4, 9)])
    other = _reading("B", [(1, 2), (2, 3), (3, 6)], [(4, 7)])
    assert await _read(one, other) == ["A1", "B1", "B2", "A2", "A3", "B3", "B4", "A4"]


async def test_a_clock_that_was_set_back_neither_stops_nor_reorders() -> None:
    """A stream's own order stays, and nothing is left out.

    A replay ended with an error when the clock had been set back within a batch.
    """
    one = _reading("A", [(1, 66), (2, 67), (3, 5)], [(4, 6), (5, 70)])
    other = _reading("B", [(1, 65), (2, 4)], [(3, 68), (4, 69)])
    found = await _read(one, other)
    assert sorted(found) == ["A1", "A2", "A3", "A4", "A5", "B1", "B2", "B3", "B4"]
    for stream in "AB":
        own = [name for name in found if name.startswith(stream)]
        assert own == sorted(own)
    assert found[:3] == ["B1", "B2", "A1"]
    assert await _read(_reading("A", [(1, 66), (2, 66), (3, 5)])) == ["A1", "A2", "A3"]
