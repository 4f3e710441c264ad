"""What a running service was told, without any values."""

from services.common.monitor import Finding
from services.common.settings import CommonSettings, field_group

COMPONENT = "configuration"


def configuration_finding(settings: CommonSettings) -> Finding:
    """Which variables are set, and which stand at their defaults.

    Values are not told, but for whether development shortcuts are allowed.
    """
    variables = [
        {
            "name": name.upper(),
            "group": field_group(type(settings), name),
            "set": name in settings.model_fields_set,
        }
        for name in type(settings).model_fields
    ]
    return Finding("ok", details={"variables": variables, "app_env": settings.app_env})
