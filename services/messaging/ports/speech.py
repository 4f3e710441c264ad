"""What a turn needs from recordings, speech vendors and the assistant."""

from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Protocol

from services.messaging.domain.call import CallAction


class RecordingMissingError(Exception):
    """The provider has no such recording, and waiting for it didn't help."""


class RecordingRefusedError(Exception):
    """The recording is none: too large, not audio, or at an address that is not the provider's."""


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was understood.

    Attributes:
        text: "" when nothing was.
        language: ISO 639-1 as the vendor named it; None when it didn't.
    """

    text: str
    language: str | None


@dataclass(frozen=True, slots=True)
class Exchange:
    """What the caller said, and what of the answer was played to them."""

    heard: str
    spoken: str


class Recordings(Protocol):
    """A provider's recordings."""

    async def fetch(self, recording_id: str, url: str) -> bytes:
        """The WAV file; one that isn't there yet is waited for briefly.

        Raises:
            RecordingMissingError: It isn't there.
            RecordingRefusedError: What is there is no recording of the provider's.
            UnavailableError: The provider didn't answer.
        """
        ...

    async def delete(self, recording_id: str) -> None:
        """Delete at the provider; one that is gone is a success.

        Raises:
            UnavailableError: The provider didn't answer.
        """
        ...


class Transcriber(Protocol):
    """Speech to text."""

    async def transcribe(self, wav: bytes, *, languages: Sequence[str]) -> Transcript:
        """What is said in a recording.

        Args:
            languages: Those to expect, BCP 47, the likeliest first.

        Raises:
            UnavailableError: No transcript now.
            InvalidInputError: None of this recording, ever.
        """
        ...


class Talker(Protocol):
    """The assistant on the telephone."""

    def reply(
        self, before: Sequence[Exchange], heard: str, *, language: str
    ) -> AsyncGenerator[str | CallAction, None]:
        """The answer as it is written: pieces of text, and at most one action among them.

        Closing the generator ends the request; who leaves early closes it (`aclosing`).
        An action may come without a word.

        Args:
            before: The call so far, oldest first.
            language: BCP 47, to answer in.

        Raises:
            UnavailableError: No answer, or no more of it; what came before holds.
        """
        ...


class Synthesizer(Protocol):
    """Text to speech, as MP3."""

    name: str

    def voice(self, language: str) -> str | None:
        """What names the sound that `synthesize` makes; None when it can't speak a language.

        Model, voice and format: the same name and text are the same audio.
        """
        ...

    async def synthesize(self, text: str, language: str) -> bytes:
        """Speech.

        Raises:
            UnavailableError: Not now.
            InvalidInputError: Never of this text.
        """
        ...


class AudioStore(Protocol):
    """Rendered speech, by the hash of what it was made from."""

    async def has(self, audio_id: str) -> bool:
        """Whether there is such a file.

        Raises:
            UnavailableError: The store doesn't answer.
        """
        ...

    async def put(self, audio_id: str, content: bytes) -> None:
        """Store a file; on disk when it returns.

        Raises:
            UnavailableError: The store doesn't answer.
        """
        ...
