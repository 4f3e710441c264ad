"""The phrases that are always ready: rendered before anybody calls, and kept."""

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

import structlog

from services.messaging.domain.language import PHRASES, Phrase, phrase_language
from services.messaging.domain.script import Play, Say

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 60.0
_LONGEST_REFRESH_SECONDS = 600.0


class Speak(Protocol):
    """Renders speech: the id of the audio, or None when no vendor could."""

    async def __call__(self, text: str, language: str, /) -> str | None: ...


class Prompts:
    """Says fixed phrases, by the provider's own speech until they are rendered.

    Args:
        language: BCP 47, of most callers; rendered first.
        own_texts: What the business says instead of our words, in that language.
        retention: How long rendered audio is kept.
    """

    def __init__(
        self,
        speak: Speak,
        *,
        language: str,
        own_texts: Mapping[Phrase, str],
        retention: timedelta,
    ) -> None:
        self._speak = speak
        self._language = language
        self._own_texts = own_texts
        # The audio store counts a file as gone in the last quarter of its life. Sooner, because
        # somebody may have emptied the store.
        self._refresh_seconds = min(retention.total_seconds() / 8, _LONGEST_REFRESH_SECONDS)
        self._rendered: dict[tuple[Phrase, str], str] = {}

    def step(self, phrase: Phrase, language: str) -> Play | Say:
        """What says a phrase to a caller who speaks a language."""
        text, spoken = self._text(phrase, language)
        audio_id = self._rendered.get((phrase, spoken))
        return Play(audio_id, text, spoken) if audio_id else Say(text, spoken)

    async def run(self) -> None:
        """Render all phrases, and again before their audio expires, for ever."""
        while True:
            complete = await self.render()
            await asyncio.sleep(
                self._refresh_seconds if complete else min(_RETRY_SECONDS, self._refresh_seconds)
            )

    async def render(self) -> bool:
        """Render all phrases once; False when one of them could not be."""
        complete = True
        for language in dict.fromkeys((self._language, phrase_language(self._language), *PHRASES)):
            for phrase in Phrase:
                text, spoken = self._text(phrase, language)
                audio_id = await self._audio(text, spoken)
                if audio_id is None:
                    self._rendered.pop((phrase, spoken), None)
                    complete = False
                else:
                    self._rendered[phrase, spoken] = audio_id
        return complete

    async def _audio(self, text: str, language: str) -> str | None:
        try:
            return await self._speak(text, language)
        except Exception:
            log.exception("a phrase could not be rendered")
            return None

    def _text(self, phrase: Phrase, language: str) -> tuple[str, str]:
        own = self._own_texts.get(phrase)
        if own and language == self._language:
            return own, language
        spoken = phrase_language(language)
        return PHRASES[spoken][phrase], spoken
