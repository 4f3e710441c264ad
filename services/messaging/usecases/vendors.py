"""Taking note of how vendors answer what they are asked anyway, so that no probe need pay them."""

import contextlib
from collections.abc import AsyncGenerator, Iterator, Sequence

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.domain.call import CallAction
from services.messaging.ports.answering import Assistant, Turn
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderStatus
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.ports.speech import Exchange, Talker, Transcriber, Transcript
from services.messaging.usecases.breaker import Breaker


class VendorRecord:
    """How a vendor's last calls ended. It is never left alone for that: whoever asks decides."""

    def __init__(self, name: str, clock: Clock) -> None:
        self._breaker = Breaker(name, clock)

    def status(self) -> ProviderStatus:
        """How the vendor is doing."""
        return self._breaker.status()

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Around one call. Being cancelled says nothing about the vendor."""
        outcome: SendOutcome | None = None
        self._breaker.started()
        try:
            yield
            outcome = SendOutcome(OutcomeKind.ACCEPTED)
        except InvalidInputError:
            # It answers: what it doesn't want is this one request.
            outcome = SendOutcome(OutcomeKind.REJECTED)
            raise
        except UnavailableError as error:
            outcome = SendOutcome(OutcomeKind.RETRY, error_code="vendor", error_message=str(error))
            raise
        finally:
            self._breaker.ended(outcome)


class NotedAssistant:
    """An `Assistant` whose calls are noted."""

    def __init__(self, assistant: Assistant, record: VendorRecord) -> None:
        self._assistant = assistant
        self._record = record

    async def answer(self, turns: Sequence[Turn]) -> str:
        """The answer to the conversation so far; "" for none."""
        with self._record.noted():
            return await self._assistant.answer(turns)


class NotedTranscriber:
    """A `Transcriber` whose calls are noted."""

    def __init__(self, transcriber: Transcriber, record: VendorRecord) -> None:
        self._transcriber = transcriber
        self._record = record

    async def transcribe(self, wav: bytes, *, languages: Sequence[str]) -> Transcript:
        """What is said in a recording."""
        with self._record.noted():
            return await self._transcriber.transcribe(wav, languages=languages)


class NotedTalker:
    """A `Talker` whose calls are noted."""

    def __init__(self, talker: Talker, record: VendorRecord) -> None:
        self._talker = talker
        self._record = record

    async def reply(
        self, before: Sequence[Exchange], heard: str, *, language: str
    ) -> AsyncGenerator[str | CallAction, None]:
        """The answer as it is written."""
        with self._record.noted():
            reply = self._talker.reply(before, heard, language=language)
            async with contextlib.aclosing(reply) as pieces:
                async for piece in pieces:
                    yield piece
