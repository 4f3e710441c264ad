"""What `switchboard run` starts: the parts, their order, and the variables they get."""

import json
import sys
import sysconfig
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path

from cli.data_folder import Addresses, DataFolder, write_private
from cli.environment import Environment
from cli.probes import grpc_serves, http_answers, jetstream_answers
from cli.run_settings import RunSettings
from cli.supervisor import Part
from cli.whatsapp import WhatsAppParts, folders, missing_program, uses_baileys
from services.common.settings import split_list

_HOST = "127.0.0.1"
_GIB = 1024**3


class Stack:
    """The parts on this machine.

    Attributes:
        variables: What every part gets as its environment.
        own_database: Whether messages are kept in the folder, not where DATABASE_URL says.
        metrics_ports: The internal port of each service, from which Prometheus reads.
        overruled: Variables that were set, but that a run decides by itself.
    """

    def __init__(self, environment: Environment, settings: RunSettings, folder: DataFolder) -> None:
        self._settings = settings
        self._folder = folder
        self.metrics_ports = {
            "webhook": settings.switchboard_webhook_metrics_port,
            "messaging": settings.switchboard_messaging_metrics_port,
            "health": settings.switchboard_health_metrics_port,
        }
        self._sandbox = environment.sandbox
        given = {name: value for name, value in environment.variables.items() if value}
        defaults = {
            "DATABASE_URL": f"sqlite:///{folder.path / 'switchboard.db'}",
            "GRPC_TOKEN": given.get("GRPC_TOKEN") or folder.token("grpc"),
            "SPILL_PATH": str(folder.path / "spill.db"),
            "JOURNAL_MAX_BYTES": str(_GIB),
            "WEBHOOK_HOST": _HOST,
            "HEALTH_HOST": _HOST,
        }
        baileys = uses_baileys(given)
        if baileys:
            defaults |= folders(folder.path)
        if environment.sandbox:
            defaults["GOOGLE_TTS_SA_JSON"] = _google_account(folder, settings)
        decided = {
            "NATS_URL": f"nats://{folder.token('nats')}@{_HOST}:{settings.switchboard_nats_port}",
            "JETSTREAM_REPLICAS": "1",
            "WEBHOOK_PORT": str(settings.switchboard_http_port),
            "WEBHOOK_INTERNAL_URL": f"http://{_HOST}:{self.metrics_ports['webhook']}",
            "HEALTH_PORT": str(settings.switchboard_health_port),
            "MESSAGING_GRPC_BIND": f"{_HOST}:{settings.switchboard_grpc_port}",
            "MESSAGING_GRPC_ADDRESS": f"{_HOST}:{settings.switchboard_grpc_port}",
            "SWITCHBOARD_SANDBOX_PORT": str(settings.switchboard_sandbox_port),
            # The log files are read for warnings.
            "LOG_FORMAT": "json",
            # One port can't serve all parts: each gets its own.
            "METRICS_HOST": _HOST,
            "METRICS_PORT": "",
        }
        # Parts talk to each other directly, whatever proxy this machine uses.
        bypass = ",".join(filter(None, [given.get("NO_PROXY") or given.get("no_proxy"), _HOST]))
        decided |= {"NO_PROXY": bypass, "no_proxy": bypass}
        self.own_database = "DATABASE_URL" not in given
        self.variables: Mapping[str, str] = {**defaults, **given, **decided}
        self._whatsapp = (
            WhatsAppParts(self.variables, settings, data=folder.path, sandbox=environment.sandbox)
            if baileys
            else None
        )
        self.overruled = [
            name
            for name, value in decided.items()
            if given.get(name, value) != value and name.lower() != "no_proxy"
        ]

    @property
    def addresses(self) -> Addresses:
        """Where it will answer."""
        settings = self._settings
        return Addresses(
            webhook=f"http://{_HOST}:{settings.switchboard_http_port}",
            health=f"http://{_HOST}:{settings.switchboard_health_port}",
            grpc=f"{_HOST}:{settings.switchboard_grpc_port}",
            grpc_token=split_list(self.variables["GRPC_TOKEN"])[0],
            nats_url=self.variables["NATS_URL"],
            database_url=self.variables["DATABASE_URL"],
            sandbox=f"http://{_HOST}:{settings.switchboard_sandbox_port}"
            if self._sandbox
            else None,
            whatsapp=self._whatsapp.control if self._whatsapp and self._sandbox else None,
        )

    def ports(self) -> list[tuple[str, str, str, int]]:
        """Part, variable, host and number of every port that is needed."""
        settings = self._settings
        ports = [
            ("NATS", "SWITCHBOARD_NATS_PORT", _HOST, settings.switchboard_nats_port),
            ("messaging", "SWITCHBOARD_GRPC_PORT", _HOST, settings.switchboard_grpc_port),
            (
                "webhook",
                "SWITCHBOARD_HTTP_PORT",
                self.variables["WEBHOOK_HOST"],
                settings.switchboard_http_port,
            ),
            (
                "health",
                "SWITCHBOARD_HEALTH_PORT",
                self.variables["HEALTH_HOST"],
                settings.switchboard_health_port,
            ),
        ]
        ports += [
            (f"{name}'s metrics", f"SWITCHBOARD_{name.upper()}_METRICS_PORT", _HOST, port)
            for name, port in self.metrics_ports.items()
        ]
        if self._sandbox:
            port = settings.switchboard_sandbox_port
            ports.append(("the sandbox", "SWITCHBOARD_SANDBOX_PORT", _HOST, port))
        return [*ports, *(self._whatsapp.ports() if self._whatsapp else [])]

    def missing_program(self) -> str | None:
        """What this machine lacks for what was asked, in a sentence, or None."""
        return missing_program() if self._whatsapp else None

    @property
    def pairs_by_hand(self) -> bool:
        """Whether somebody's phone has to scan the bridge's code."""
        return self._whatsapp is not None and not self._sandbox

    def parts(self) -> list[Part]:
        """The parts in the order of starting: each one after those it talks to."""
        at = self.addresses
        internal = self.variables["WEBHOOK_INTERNAL_URL"]
        webhook = partial(http_answers, f"{internal}/internal/health", true="journal_connected")
        health = partial(http_answers, f"{at.health}/api/health/readiness")
        sandbox = partial(http_answers, f"{at.sandbox}/sandbox/health")
        return [
            self._nats(),
            *([self._module("sandbox", "sandbox", sandbox)] if self._sandbox else []),
            *(self._whatsapp.parts() if self._whatsapp else []),
            Part("migrations", _python("services.messaging.migrate"), self.variables, None),
            self._module("messaging", "services.messaging", partial(grpc_serves, at.grpc)),
            self._module("webhook", "services.webhook", webhook),
            self._module("health", "services.health", health),
        ]

    def _module(self, name: str, module: str, ready: Callable[[], Awaitable[bool]]) -> Part:
        port = self.metrics_ports.get(name)
        own = {} if port is None else {"METRICS_PORT": str(port)}
        return Part(name, _python(module), {**self.variables, **own}, ready)

    def _nats(self) -> Part:
        config = self._folder.path / "nats.conf"
        # An acknowledged event must survive a power cut; the default syncs every two minutes.
        write_private(
            config,
            f"""# Written by `switchboard run` at every start.
host: {_HOST}
port: {self._settings.switchboard_nats_port}
server_name: switchboard
jetstream {{
  store_dir: {json.dumps(str(self._folder.path / "nats"), ensure_ascii=False)}
  sync_interval: always
}}
authorization {{
  token: {json.dumps(self._folder.token("nats"))}
}}
""",
        )
        program = Path(sysconfig.get_path("scripts")) / "nats-server"
        # By name, a program that is missing is reported as such.
        command = [str(program) if program.exists() else "nats-server", "--config", str(config)]
        ready = partial(jetstream_answers, self.variables["NATS_URL"])
        return Part("NATS", command, self.variables, ready)


def _python(module: str) -> list[str]:
    return [sys.executable, "-m", module]


def _google_account(folder: DataFolder, settings: RunSettings) -> str:
    """The service account that the pretend Google knows; its key is made once and kept."""
    # Here, as a real configuration needs none of it.
    from sandbox.google_account import new_service_account

    file = folder.path / "google.json"
    base_url = f"http://{_HOST}:{settings.switchboard_sandbox_port}"
    if not file.exists():
        write_private(file, new_service_account(base_url))
    account = json.loads(file.read_text())
    return json.dumps({**account, "token_uri": f"{base_url}/google/token"})
