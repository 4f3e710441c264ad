"""How long the stages of a turn take."""

from dataclasses import replace
from datetime import datetime, timedelta

from services.messaging.domain.call import TurnTimings
from services.messaging.ports.clock import Clock


class StageTimer:
    """Measures each stage from the end of the one before.

    Args:
        heard_at: When the first webhook of the recording reached us.
    """

    def __init__(self, clock: Clock, heard_at: datetime) -> None:
        self.timings = TurnTimings()
        self._clock = clock
        self._heard_at = heard_at
        self._last = clock()

    def fetched(self) -> None:
        """The recording is here."""
        self.timings = replace(self.timings, fetch=self._took())

    def transcribed(self) -> None:
        """What was said is understood."""
        self.timings = replace(self.timings, transcribe=self._took())

    def spoken(self, sentence_at: datetime | None) -> None:
        """The first part of the answer can be heard; its sentence was whole at a time."""
        self.timings = replace(
            self.timings,
            first_sentence=self._took(sentence_at),
            first_audio=self._took(),
            gap=max(self._clock() - self._heard_at, timedelta()),
        )

    def _took(self, until: datetime | None = None) -> timedelta:
        last, self._last = self._last, until or self._clock()
        return self._last - last
