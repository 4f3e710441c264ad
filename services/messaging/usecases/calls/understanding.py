"""From a recording to what was said in it."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.domain.energy import NotAudioError, has_speech
from services.messaging.domain.language import understood_language, written_language
from services.messaging.ports.calls import ClaimedTurn
from services.messaging.ports.speech import (
    RecordingMissingError,
    RecordingRefusedError,
    Recordings,
    Transcriber,
)
from services.messaging.usecases.calls.stages import StageTimer


class NothingHeardError(Exception):
    """There are no words in the recording, or no recording; the text says why."""


class RecordingLateError(NothingHeardError):
    """The provider has no such recording, at least not yet."""


class RecordingUnusableError(NothingHeardError):
    """The recording or a vendor's refusal of it keeps its words from us; there may be some."""


class NotUnderstoodError(Exception):
    """A vendor that is needed doesn't answer; the text says which."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a caller said.

    Attributes:
        language: BCP 47.
    """

    text: str
    language: str


class Understanding:
    """Fetches recordings and has them transcribed, each vendor asked once.

    Args:
        recordings: By the name of the provider.
        transcriber: None when there is none.
    """

    def __init__(
        self, recordings: Mapping[str, Recordings], transcriber: Transcriber | None
    ) -> None:
        self._recordings = recordings
        self._transcriber = transcriber

    async def hear(
        self, turn: ClaimedTurn, *, languages: Sequence[str], timer: StageTimer
    ) -> Heard:
        """What was said in a turn.

        Args:
            languages: Those to expect, BCP 47, the likeliest first.

        Raises:
            NothingHeardError: Nothing, or nothing that can be understood.
            RecordingUnusableError: The latter.
            NotUnderstoodError: A vendor doesn't answer.
        """
        source = self._recordings.get(turn.provider)
        if source is None or self._transcriber is None:
            raise NotUnderstoodError(
                "recordings can't be transcribed: nothing is configured for it"
            )
        try:
            wav = await source.fetch(turn.recording_id, turn.recording_url)
        except RecordingMissingError:
            raise RecordingLateError("the provider has no such recording") from None
        except RecordingRefusedError as error:
            raise RecordingUnusableError(str(error)) from error
        except UnavailableError as error:
            raise NotUnderstoodError(str(error)) from error
        timer.fetched()
        try:
            if not await asyncio.to_thread(has_speech, wav):
                raise NothingHeardError("there is no voice in the recording")
            transcript = await self._transcriber.transcribe(wav, languages=languages)
        except (NotAudioError, InvalidInputError) as error:
            raise RecordingUnusableError(str(error)) from error
        except UnavailableError as error:
            raise NotUnderstoodError(str(error)) from error
        timer.transcribed()
        text = " ".join(transcript.text.split())
        if not any(character.isalnum() for character in text):
            raise NothingHeardError("there are no words in the recording")
        return Heard(text, _language(text, transcript.language, languages))


def _language(text: str, named: str | None, expected: Sequence[str]) -> str:
    # A single word is too little to tell a language by: "OK" changes nothing.
    if len(text.split()) < 2 and len(expected) > 1:
        return expected[0]
    if named is None:
        return written_language(text, expected)
    return understood_language(named, expected)
