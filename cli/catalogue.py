"""Every settings class of the system, by the part that reads it."""

from cli.run_settings import RunSettings
from services.common.settings import Settings
from services.health.settings import HealthSettings
from services.messaging.settings import MessagingSettings
from services.webhook.settings import WebhookSettings

SERVICES: dict[str, type[Settings]] = {
    "webhook": WebhookSettings,
    "messaging": MessagingSettings,
    "health": HealthSettings,
}
"""What runs in every deployment."""

EVERYTHING: dict[str, type[Settings]] = {**SERVICES, "make run": RunSettings}
"""The services, and the variables of `switchboard run` on one machine."""


def group_rank(group: str) -> tuple[bool, bool, str]:
    """Sorts groups: the core first, what only concerns one machine last."""
    return group != "core", group == "make run", group
