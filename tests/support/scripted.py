"""Stand-ins for what is behind the ports of speech.

They keep their contracts, hold an answer back until they are told, and remember what they were
asked.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass, field

from services.messaging.domain.call import CallAction
from services.messaging.ports.speech import Exchange, Transcript
from tests.support.wav import silence, voice, wav

SPEECH = wav([*silence(0.5), *voice(1), *silence(1)])
QUIET = wav(silence(2))


@dataclass
class Gate:
    """Holds back whoever comes while it is shut."""

    open: asyncio.Event = field(default_factory=asyncio.Event)
    reached: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self.open.set()

    def shut(self) -> None:
        """Hold back who comes from now on."""
        self.open.clear()

    async def passed(self) -> None:
        """Wait until it is open."""
        self.reached.set()
        await self.open.wait()


class ScriptedRecordings:
    """`Recordings`: what each holds, or why it can't be had; speech unless said otherwise."""

    def __init__(self) -> None:
        self.files: dict[str, bytes | Exception] = {}
        self.fetched: list[str] = []
        self.deleted: list[str] = []
        self.undeletable: set[str] = set()
        self.deleting_fails: Exception | None = None
        self.gate = Gate()

    async def fetch(self, recording_id: str, url: str) -> bytes:
        """The file."""
        self.fetched.append(recording_id)
        await self.gate.passed()
        file = self.files.get(recording_id, SPEECH)
        if isinstance(file, Exception):
            raise file
        return file

    async def delete(self, recording_id: str) -> None:
        """Delete it."""
        if self.deleting_fails and recording_id in self.undeletable:
            raise self.deleting_fails
        self.deleted.append(recording_id)


class ScriptedTranscriber:
    """`Transcriber`: gives the next of its answers, and the last one again."""

    def __init__(self) -> None:
        self.answers: list[Transcript | Exception] = [Transcript("When do you open?", "en")]
        self.asked: list[tuple[str, ...]] = []
        self.gate = Gate()

    async def transcribe(self, wav: bytes, *, languages: Sequence[str]) -> Transcript:
        """What is said."""
        self.asked.append(tuple(languages))
        await self.gate.passed()
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


class ScriptedTalker:
    """`Talker`: writes its pieces; one that is a gate is waited for, an error is raised."""

    def __init__(self) -> None:
        self.pieces: list[str | CallAction | Gate | Exception] = ["We open ", "at nine. ", "Bye."]
        self.asked: list[tuple[tuple[Exchange, ...], str, str]] = []
        self.ended = 0

    async def reply(
        self, before: Sequence[Exchange], heard: str, *, language: str
    ) -> AsyncGenerator[str | CallAction, None]:
        """The answer."""
        self.asked.append((tuple(before), heard, language))
        try:
            for piece in self.pieces:
                if isinstance(piece, Gate):
                    await piece.passed()
                elif isinstance(piece, Exception):
                    raise piece
                else:
                    yield piece
        finally:
            self.ended += 1


class ScriptedVoice:
    """Renders speech: the id of the audio is a hash of the text."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.done: list[str] = []
        self.failing: set[str] = set()
        self.gates: dict[str, Gate] = {}

    async def speak(self, text: str, language: str) -> str | None:
        """The id; None for what fails."""
        self.asked.append(text)
        if text in self.gates:
            await self.gates[text].passed()
        self.done.append(text)
        return None if text in self.failing else audio_id(text)


def audio_id(text: str) -> str:
    """What names the audio of a text."""
    return hashlib.sha256(text.encode()).hexdigest()
