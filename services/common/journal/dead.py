"""The stream `DEAD`: what could not be processed, kept with the reason for a person to decide."""

import contextlib
import re
from collections.abc import AsyncGenerator, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from urllib.parse import unquote

import nats.errors
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError as NoMessageError

from services.common.errors import InvalidInputError, NotFoundError, UnavailableError
from services.common.journal.reading import read_events
from services.common.journal.streams import DEAD_STREAM, INGEST_STREAM

REASON = "dead-reason"
SUBJECT = "dead-subject"
SEQUENCE = "dead-sequence"
DELIVERIES = "dead-deliveries"
MESSAGE_ID = "dead-msg-id"
OMITTED = "dead-data"

_INGEST_SUBJECT = re.compile(r"ingest(\.[^\s.*>]+)+")
_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """One message of `DEAD`.

    Attributes:
        sequence: Its number in `DEAD`.
        time: When it was put there; aware, UTC.
        data: Empty when only headers were asked for, and when it was left out for its size.
    """

    sequence: int
    time: datetime
    subject: str
    headers: Mapping[str, str]
    data: bytes

    @property
    def reason(self) -> str:
        """Why it is here."""
        return self.headers.get(REASON, "no reason given")

    @property
    def key(self) -> str:
        """The event's natural key, or "" when it has none."""
        return unquote(self.headers.get("ce-id", ""))

    @property
    def deliveries(self) -> str:
        """How often the event was delivered before, as a number, or "" when nobody said."""
        return self.headers.get(DELIVERIES, "")

    @property
    def data_omitted(self) -> bool:
        """Whether the data stands only in the journal, under the original's sequence."""
        return OMITTED in self.headers

    @property
    def original_sequence(self) -> int | None:
        """Where the original stands in `INGEST`."""
        text = self.headers.get(SEQUENCE, "")
        return int(text) if text.isascii() and text.isdigit() else None

    @property
    def original_subject(self) -> str:
        """The subject it had in the journal."""
        return self.headers.get(SUBJECT) or f"ingest.{self.subject.removeprefix('dead.')}"


class DeadLetterStream:
    """Reads `DEAD`, and puts letters back into the journal or drops them."""

    def __init__(self, js: JetStreamContext) -> None:
        self._js = js

    async def size(self) -> int:
        """How many letters there are.

        Raises:
            UnavailableError: The stream can't be asked.
        """
        return (await self._state())[0]

    async def letters(self) -> AsyncGenerator[DeadLetter, None]:
        """Every letter there is now, the oldest first, without its data.

        Raises:
            UnavailableError: The stream can't be read.
        """
        _, last = await self._state()
        reading = read_events(self._js, DEAD_STREAM, last=last, headers_only=True)
        async with contextlib.aclosing(reading) as batches:
            async for batch in batches:
                for message in batch:
                    metadata = message.metadata
                    yield DeadLetter(
                        sequence=metadata.sequence.stream,
                        time=metadata.timestamp,
                        subject=message.subject,
                        headers=message.headers or {},
                        data=b"",
                    )

    async def get(self, sequence: int) -> DeadLetter:
        """One letter with its data; data left out for its size comes from the journal.

        Raises:
            NotFoundError: There is no such letter.
            UnavailableError: The stream can't be read.
        """
        with _translated_errors(f"{DEAD_STREAM} has no letter {sequence}"):
            found = await self._js.get_msg(DEAD_STREAM, sequence)
        if found.time is None:
            raise UnavailableError("JetStream's answer has no time")
        letter = DeadLetter(
            sequence=sequence,
            time=found.time,
            subject=found.subject or "",
            # What isn't ASCII comes as an object of the email package.
            headers={name: str(text) for name, text in (found.headers or {}).items()},
            data=found.data or b"",
        )
        return await self._completed(letter) if letter.data_omitted else letter

    async def replay(self, sequence: int) -> None:
        """Put a letter back into the journal, and only once that is confirmed, remove it here.

        Raises:
            NotFoundError: There is no such letter.
            InvalidInputError: It can't go back as it is; the text says why. It stays.
            UnavailableError: Not confirmed: it stays, and may have been replayed.
        """
        letter = await self.get(sequence)
        if letter.data_omitted and not letter.data:
            raise InvalidInputError(
                f"letter {sequence}", "its data was left out, and the journal has it no more"
            )
        subject = letter.original_subject
        if not _INGEST_SUBJECT.fullmatch(subject):
            raise InvalidInputError(
                f"letter {sequence}", f"its subject {subject!r} is none of the journal's"
            )
        headers = {
            **{name: text for name, text in letter.headers.items() if not _is_ours(name)},
            # Not the event's own id, which JetStream may still know: it would drop the message
            # and say all is well. This one is the same when a replay is tried again.
            "Nats-Msg-Id": f"{DEAD_STREAM}.{sequence}.{letter.time.isoformat()}",
        }
        with _translated_errors("the journal has no stream"):
            await self._js.publish(
                subject,
                letter.data,
                timeout=_TIMEOUT_SECONDS,
                stream=INGEST_STREAM,
                headers=headers,
            )
        await self._remove(sequence)

    async def drop(self, sequence: int) -> None:
        """Remove a letter for good.

        Raises:
            NotFoundError: There is no such letter.
            UnavailableError: The stream can't be reached.
        """
        with _translated_errors(f"{DEAD_STREAM} has no letter {sequence}"):
            # Deleting what isn't there is answered like any other trouble.
            await self._js.get_msg(DEAD_STREAM, sequence)
        await self._remove(sequence)

    async def _remove(self, sequence: int) -> None:
        with _translated_errors(f"{DEAD_STREAM} has no letter {sequence}"):
            await self._js.delete_msg(DEAD_STREAM, sequence)

    async def _state(self) -> tuple[int, int]:
        """How many letters there are, and the last one's sequence."""
        with _translated_errors(f"there is no stream {DEAD_STREAM}"):
            state = (await self._js.stream_info(DEAD_STREAM)).state
        return state.messages, state.last_seq

    async def _completed(self, letter: DeadLetter) -> DeadLetter:
        """The letter with its original's data, if the journal still has the original."""
        if letter.original_sequence is None:
            return letter
        try:
            original = await self._js.get_msg(INGEST_STREAM, letter.original_sequence)
        except NoMessageError:
            return letter
        except (nats.errors.Error, OSError) as error:
            raise UnavailableError("the journal doesn't answer") from error
        same = (original.headers or {}).get("Nats-Msg-Id", "") == letter.headers.get(MESSAGE_ID, "")
        if not same or original.subject != letter.original_subject:
            return letter
        return DeadLetter(
            letter.sequence, letter.time, letter.subject, letter.headers, original.data or b""
        )


def _is_ours(header: str) -> bool:
    return header.lower().startswith(("nats-", "dead-"))


@contextlib.contextmanager
def _translated_errors(missing: str) -> Iterator[None]:
    """NATS' errors in our words; `missing` says what it means that something isn't there."""
    try:
        yield
    except NoMessageError as error:
        raise NotFoundError(missing) from error
    except (nats.errors.Error, OSError) as error:
        raise UnavailableError(f"NATS refuses or doesn't answer: {error!r}") from error
