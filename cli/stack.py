"""What `switchboard run` starts: the parts, their order, and the variables they get."""

import json
import sys
import sysconfig
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path

from cli.data_folder import Addresses, DataFolder, write_private
from cli.environment import Environment
from cli.probes import grpc_serves, http_answers, jetstream_answers
from cli.run_settings import RunSettings
from cli.run_variables import HOST, run_variables, uses_baileys
from cli.supervisor import Part
from cli.whatsapp import WhatsAppParts, missing_program
from services.common.settings import split_list


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
        given = dict(environment.variables)
        if environment.sandbox and not given.get("GOOGLE_TTS_SA_JSON"):
            given["GOOGLE_TTS_SA_JSON"] = _google_account(folder, settings)
        found = run_variables(given, settings, folder.path, folder.token)
        self.variables = found.variables
        self.own_database = found.own_database
        self.overruled = found.overruled
        self._whatsapp = (
            WhatsAppParts(self.variables, settings, data=folder.path, sandbox=environment.sandbox)
            if uses_baileys(self.variables)
            else None
        )

    @property
    def addresses(self) -> Addresses:
        """Where it will answer."""
        settings = self._settings
        return Addresses(
            webhook=f"http://{HOST}:{settings.switchboard_http_port}",
            health=f"http://{HOST}:{settings.switchboard_health_port}",
            grpc=f"{HOST}:{settings.switchboard_grpc_port}",
            grpc_token=split_list(self.variables["GRPC_TOKEN"])[0],
            nats_url=self.variables["NATS_URL"],
            database_url=self.variables["DATABASE_URL"],
            sandbox=f"http://{HOST}:{settings.switchboard_sandbox_port}" if self._sandbox else None,
            whatsapp=self._whatsapp.control if self._whatsapp and self._sandbox else None,
        )

    def ports(self) -> list[tuple[str, str, str, int]]:
        """Part, variable, host and number of every port that is needed."""
        settings = self._settings
        ports = [
            ("NATS", "SWITCHBOARD_NATS_PORT", HOST, settings.switchboard_nats_port),
            ("messaging", "SWITCHBOARD_GRPC_PORT", HOST, settings.switchboard_grpc_port),
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
            (f"{name}'s metrics", f"SWITCHBOARD_{name.upper()}_METRICS_PORT", HOST, port)
            for name, port in self.metrics_ports.items()
        ]
        if self._sandbox:
            port = settings.switchboard_sandbox_port
            ports.append(("the sandbox", "SWITCHBOARD_SANDBOX_PORT", HOST, port))
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
host: {HOST}
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
    base_url = f"http://{HOST}:{settings.switchboard_sandbox_port}"
    if not file.exists():
        write_private(file, new_service_account(base_url))
    account = json.loads(file.read_text())
    return json.dumps({**account, "token_uri": f"{base_url}/google/token"})
