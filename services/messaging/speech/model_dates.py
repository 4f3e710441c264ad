"""When the models that are configured will be shut down, before that surprises anybody."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final

import openai
import structlog
from prometheus_client import CollectorRegistry, Gauge

from services.common.errors import InvalidInputError, UnavailableError
from services.messaging.openai_client import asking, request_timeout
from services.messaging.ports.clock import Clock

log = structlog.get_logger(__name__)

_DAY_SECONDS: Final = 86400.0
_RETRY_SECONDS: Final = 3600.0
_TIMEOUT_SECONDS: Final = 20.0
_WARN_BEFORE: Final = timedelta(days=60)


class ModelDates:
    """Asks the vendor's list of models once a day.

    A server that lists no dates, or no models, is fine: there is nothing to warn of then.

    Args:
        client: Its owner closes it.
        models: The configured ones; others are not looked at.
    """

    def __init__(
        self,
        client: openai.AsyncOpenAI,
        models: Sequence[str],
        *,
        clock: Clock,
        registry: CollectorRegistry,
    ) -> None:
        self._client = client
        self._models = frozenset(models)
        self._clock = clock
        self._shutdown = Gauge(
            "switchboard_model_shutdown_timestamp_seconds",
            "When the vendor shuts a configured model down, where it says so.",
            ["model"],
            registry=registry,
        )

    async def run(self) -> None:
        """Look for ever."""
        while True:
            known = await self.look()
            await asyncio.sleep(_DAY_SECONDS if known else _RETRY_SECONDS)

    async def look(self) -> bool:
        """Look once; False when the vendor gave no list."""
        try:
            async with asking("the list of models", field="", timeout_seconds=_TIMEOUT_SECONDS):
                found = await self._client.models.list(timeout=request_timeout(_TIMEOUT_SECONDS))
                # Without the SDK's validation, anything may have come.
                dates = {
                    model.id: _date(model.shutdown_date)
                    for model in found.data or ()
                    if model.id in self._models
                }
        except (UnavailableError, InvalidInputError, AttributeError, TypeError) as error:
            log.info("no list of models", error=str(error))
            return False
        for model, date in dates.items():
            self._note(model, date)
        return True

    def _note(self, model: str, date: datetime | None) -> None:
        if date is None:
            # It may have been taken back.
            self._shutdown.remove(model)
            return
        self._shutdown.labels(model).set(date.timestamp())
        if date - self._clock() < _WARN_BEFORE:
            log.warning(
                "a configured model will be shut down: choose another in the settings",
                model=model,
                shutdown_date=date.date().isoformat(),
            )


def _date(value: object) -> datetime | None:
    """A date, or a time, as ISO 8601 writes it; None for anything else."""
    try:
        date = datetime.fromisoformat(str(value))
    except ValueError:
        return None
    return date if date.tzinfo else date.replace(tzinfo=UTC)
