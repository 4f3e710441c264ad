"""The variables that `switchboard run` gives to every part: given, brought, or decided."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from cli.run_settings import RunSettings

HOST = "127.0.0.1"
_GIB = 1024**3


@dataclass(frozen=True)
class RunVariables:
    """What every part gets as its environment.

    Attributes:
        own_database: Whether messages are kept in the folder, not where DATABASE_URL says.
        overruled: Variables that were set, but that a run decides by itself.
    """

    variables: Mapping[str, str]
    own_database: bool
    overruled: list[str]


def uses_baileys(variables: Mapping[str, str]) -> bool:
    """Whether messages go through the bridge, by the variables that say so."""
    chosen = (variables.get("WHATSAPP_PROVIDER"), variables.get("WHATSAPP_FALLBACK_PROVIDER"))
    return "baileys" in chosen


def baileys_folders(data: Path) -> dict[str, str]:
    """The variables that name the bridge's folders, within the data folder."""
    return {
        "BAILEYS_QUEUE_DIR": str(data / "baileys" / "queue"),
        "BAILEYS_STATE_DIR": str(data / "baileys" / "state"),
    }


def run_variables(
    configured: Mapping[str, str],
    settings: RunSettings,
    data: Path,
    token: Callable[[str], str],
) -> RunVariables:
    """What is configured, completed by what a run brings, and corrected by what it decides.

    Args:
        data: The folder of the run's data.
        token: A secret of its own for "nats" and "grpc".
    """
    given = {name: value for name, value in configured.items() if value}
    brought = {
        "DATABASE_URL": f"sqlite:///{data / 'switchboard.db'}",
        "GRPC_TOKEN": given.get("GRPC_TOKEN") or token("grpc"),
        "SPILL_PATH": str(data / "spill.db"),
        "JOURNAL_MAX_BYTES": str(_GIB),
        "WEBHOOK_HOST": HOST,
        "HEALTH_HOST": HOST,
    }
    if uses_baileys(given):
        brought |= baileys_folders(data)
    # A secret whose file can't be read is reported, not replaced: it may be another database's.
    brought = {name: value for name, value in brought.items() if f"{name}_FILE" not in given}
    decided = {
        "NATS_URL": f"nats://{token('nats')}@{HOST}:{settings.switchboard_nats_port}",
        "JETSTREAM_REPLICAS": "1",
        "WEBHOOK_PORT": str(settings.switchboard_http_port),
        "WEBHOOK_INTERNAL_URL": f"http://{HOST}:{settings.switchboard_webhook_metrics_port}",
        "HEALTH_PORT": str(settings.switchboard_health_port),
        "MESSAGING_GRPC_BIND": f"{HOST}:{settings.switchboard_grpc_port}",
        "MESSAGING_GRPC_ADDRESS": f"{HOST}:{settings.switchboard_grpc_port}",
        "SWITCHBOARD_SANDBOX_PORT": str(settings.switchboard_sandbox_port),
        # The log files are read for warnings.
        "LOG_FORMAT": "json",
        # One port can't serve all parts: each gets its own.
        "METRICS_HOST": HOST,
        "METRICS_PORT": "",
    }
    # Parts talk to each other directly, whatever proxy this machine uses.
    bypass = ",".join(filter(None, [given.get("NO_PROXY") or given.get("no_proxy"), HOST]))
    decided |= {"NO_PROXY": bypass, "no_proxy": bypass}
    return RunVariables(
        {**brought, **given, **decided},
        own_database="DATABASE_URL" not in given,
        overruled=[
            name
            for name, value in decided.items()
            if given.get(name, value) != value and name.lower() != "no_proxy"
        ],
    )
