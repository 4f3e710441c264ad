"""Turning what is to be said into audio that can be played, each sentence once."""

import hashlib
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

import structlog
from prometheus_client import CollectorRegistry, Counter

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderStatus
from services.messaging.ports.sending import OutcomeKind, SendOutcome
from services.messaging.ports.speech import AudioStore, Synthesizer
from services.messaging.usecases.breaker import Breaker
from services.messaging.usecases.single_flight import SingleFlight

log = structlog.get_logger(__name__)

_FORMAT: Final = "1"
"""To be raised when files made by the same voice of the same text change."""

_FIRST_REST: Final = timedelta(seconds=15)
_LONGEST_REST: Final = timedelta(minutes=2)
_STORE_REST: Final = timedelta(seconds=5)

PROVIDER: Final = "provider"
"""In metrics, who speaks what no vendor could: the telephone provider."""


class Speaker:
    """Renders speech by the first vendor that can, and remembers what was rendered.

    A vendor that fails is left alone for a while at once: a caller waits for it no second time,
    and hears no voice change to and fro. So is the store.

    Args:
        synthesizers: In order of preference.
    """

    def __init__(
        self,
        store: AudioStore,
        synthesizers: Sequence[Synthesizer],
        *,
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        self._store = store
        self._clock = clock
        self._store_rests_until: datetime | None = None
        self._vendors = [
            (
                one,
                Breaker(
                    one.name,
                    clock,
                    failures=1,
                    first_pause=_FIRST_REST,
                    longest_pause=_LONGEST_REST,
                ),
            )
            for one in synthesizers
        ]
        self._under_way: SingleFlight[tuple[str, str], str | None] = SingleFlight()
        self._lookups_total = Counter(
            "switchboard_speech_cache_lookups_total",
            "Sentences to be spoken, by whether they had been rendered before: hit or miss.",
            ["result"],
            registry=registry,
        )
        self._fallbacks_total = Counter(
            "switchboard_speech_fallbacks_total",
            "Sentences not spoken by the vendor of first choice, by who speaks them instead.",
            ["vendor"],
            registry=registry,
        )
        self._failures_total = Counter(
            "switchboard_speech_failures_total",
            "Requests to speech vendors that brought no audio.",
            ["vendor"],
            registry=registry,
        )

    async def speak(self, text: str, language: str) -> str | None:
        """The id of audio that says the text, stored; None when the provider has to speak it.

        It raises nothing. Cancelling it ends the vendor's work, unless another call waits for the
        same.

        Args:
            language: BCP 47.
        """
        text = " ".join(text.split())
        if not text:
            return None
        return await self._under_way.run((text, language), lambda: self._speak(text, language))

    def vendors(self) -> list[ProviderStatus]:
        """How the vendors are doing."""
        return [breaker.status() for _, breaker in self._vendors]

    async def _speak(self, text: str, language: str) -> str | None:
        audio_id = None
        if self._store_rests_until is None or self._clock() >= self._store_rests_until:
            try:
                audio_id = await self._rendered(text, language)
            except UnavailableError as error:
                # The edge couldn't read a file either.
                log.warning("rendered speech can't be stored", error=str(error))
                self._store_rests_until = self._clock() + _STORE_REST
        if audio_id is None:
            self._fallbacks_total.labels(PROVIDER).inc()
        return audio_id

    async def _rendered(self, text: str, language: str) -> str | None:
        """The id of a stored file; None when no vendor can say the text.

        Raises:
            UnavailableError: The store doesn't answer.
        """
        missed = False
        for rank, (vendor, breaker) in enumerate(self._vendors):
            voice = vendor.voice(language)
            if voice is None:
                continue
            audio_id = _audio_id(voice, language, text)
            found = await self._store.has(audio_id)
            if not missed:
                self._lookups_total.labels("hit" if found else "miss").inc()
                missed = not found
            if not found:
                mp3 = await self._asked(vendor, breaker, text, language)
                if mp3 is None:
                    continue
                await self._store.put(audio_id, mp3)
            if rank:
                self._fallbacks_total.labels(vendor.name).inc()
            return audio_id
        return None

    async def _asked(
        self, vendor: Synthesizer, breaker: Breaker, text: str, language: str
    ) -> bytes | None:
        if breaker.free() == 0:
            return None
        outcome: SendOutcome | None = None
        breaker.started()
        try:
            mp3 = await vendor.synthesize(text, language)
            outcome = SendOutcome(OutcomeKind.ACCEPTED)
            return mp3
        except UnavailableError as error:
            outcome = SendOutcome(OutcomeKind.RETRY, error_code="speech", error_message=str(error))
            log.warning("speech vendor unavailable", vendor=vendor.name, error=str(error))
        except InvalidInputError as error:
            # It answers: what it doesn't want is this text.
            outcome = SendOutcome(OutcomeKind.REJECTED)
            log.warning("speech vendor refused a text", vendor=vendor.name, error=str(error))
        finally:
            breaker.ended(outcome)
        self._failures_total.labels(vendor.name).inc()
        return None


def _audio_id(voice: str, language: str, text: str) -> str:
    """The hash of all that decides how it sounds."""
    made_from = "\0".join((_FORMAT, voice, language, text))
    return hashlib.sha256(made_from.encode()).hexdigest()
