"""What all probes share: whom they ask, and words for who doesn't answer."""

from collections.abc import Awaitable, Callable
from typing import Final

from services.common import configuration
from services.common.monitor import Findings

WEBHOOK: Final = "webhook"
MESSAGING: Final = "messaging"
NATS: Final = "nats"

SILENT: Final = "no answer in time"
UNREACHABLE: Final = "it can't be reached"
SENSELESS: Final = "its answer makes no sense"

Ask = Callable[[], Awaitable[Findings]]


def configuration_of(service: str) -> str:
    """The component that says what a service was told."""
    return f"{configuration.COMPONENT}_{service}"
