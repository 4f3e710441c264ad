"""The core of a turn: what was heard into what is said, sentence by sentence.

It knows neither recordings nor scripts, so whatever carries a conversation can stand on it.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from datetime import datetime
from types import TracebackType
from typing import Self

import structlog

from services.common.errors import UnavailableError
from services.messaging.domain.call import AnswerPart, CallAction
from services.messaging.domain.sentences import SentenceCutter
from services.messaging.ports.clock import Clock
from services.messaging.ports.speech import Exchange, Talker
from services.messaging.usecases.calls.prompts import Speak

log = structlog.get_logger(__name__)


class Answering:
    """Answers, by an assistant that writes and something that speaks.

    Args:
        ahead: So many sentences are rendered beyond the one that is waited for.
    """

    def __init__(self, talker: Talker, speak: Speak, *, clock: Clock, ahead: int = 3) -> None:
        self._talker = talker
        self._speak = speak
        self._clock = clock
        self._ahead = ahead

    def answer(self, before: Sequence[Exchange], heard: str, *, language: str) -> "Answer":
        """The answer to what a caller said, which is made while the context is open.

        Args:
            before: The conversation so far, cut to what the caller has heard, oldest first.
            language: BCP 47, to answer in.
        """
        text = self._talker.reply(before, heard, language=language)
        return Answer(text, self._speak, language, clock=self._clock, ahead=self._ahead)


class Answer:
    """One answer being made. Leaving the context ends all work on it at once.

    Attributes:
        action: What follows the last part; final once `parts` has ended.
        problem: Why there is no answer, or no more of it; None when it is whole.
        first_sentence_at: When the first sentence was whole.
    """

    def __init__(
        self,
        text: AsyncGenerator[str | CallAction, None],
        speak: Speak,
        language: str,
        *,
        clock: Clock,
        ahead: int,
    ) -> None:
        self.action = CallAction.LISTEN
        self.problem: str | None = None
        self.first_sentence_at: datetime | None = None
        self._text = text
        self._speak = speak
        self._language = language
        self._clock = clock
        self._sentences: asyncio.Queue[tuple[str, asyncio.Task[str | None]] | None]
        self._sentences = asyncio.Queue(ahead)
        self._tasks: set[asyncio.Task[str | None]] = set()
        self._writer: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._writer = asyncio.create_task(self._write())
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        tasks = [*self._tasks, *([self._writer] if self._writer else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def parts(self) -> AsyncGenerator[AnswerPart, None]:
        """The sentences in order, each as soon as it can be heard."""
        spoken_by_us = True
        while (one := await self._sentences.get()) is not None:
            sentence, task = one
            audio_id = None
            if spoken_by_us:
                audio_id = await task
                # A voice that changes to and fro is worse than the provider's to the end.
                spoken_by_us = audio_id is not None
            else:
                task.cancel()
            yield AnswerPart(sentence, audio_id)

    async def _write(self) -> None:
        cutter = SentenceCutter()
        try:
            async with contextlib.aclosing(self._text) as text:
                async for piece in text:
                    if isinstance(piece, CallAction):
                        self.action = piece
                        # Its words come before it: they needn't wait for the assistant's end.
                        sentences = cutter.flush()
                    else:
                        sentences = cutter.feed(piece)
                    for sentence in sentences:
                        await self._render(sentence)
        except UnavailableError as error:
            self.problem = str(error)
        except Exception:
            log.exception("the assistant failed in an unforeseen way")
            self.problem = "the assistant failed"
        for sentence in cutter.flush():
            await self._render(sentence)
        await self._sentences.put(None)

    async def _render(self, sentence: str) -> None:
        if self.first_sentence_at is None:
            self.first_sentence_at = self._clock()
        task = asyncio.create_task(self._audio(sentence))
        self._tasks.add(task)
        await self._sentences.put((sentence, task))

    async def _audio(self, sentence: str) -> str | None:
        try:
            return await self._speak(sentence, self._language)
        except Exception:
            log.exception("a sentence could not be rendered")
            return None
