"""NATS as `deploy/nats` configures it: one server, or three that keep copies of everything."""

import json
from collections.abc import Sequence
from pathlib import Path
from urllib.request import urlopen

from tests.support.nats import NatsServer, free_port

FILES = Path(__file__).parents[2] / "deploy" / "nats"
PASSWORDS = {
    "NATS_WEBHOOK_PASSWORD": "nwebhook",
    "NATS_MESSAGING_PASSWORD": "nmessaging",
    "NATS_HEALTH_PASSWORD": "nhealth",
}


class DeployedNats(NatsServer):
    """One server with `nats.conf`, or with the file that is given."""

    def __init__(
        self,
        folder: Path,
        *,
        config: str = "nats.conf",
        environ: dict[str, str] | None = None,
        arguments: Sequence[str] = (),
    ) -> None:
        self.monitor_port = free_port()
        configuration = folder / "etc"
        configuration.mkdir(parents=True)
        for file in FILES.iterdir():
            # The one thing that can't be overruled is where the data is.
            text = file.read_text().replace('"/data"', f'"{folder / "data"}"')
            (configuration / file.name).write_text(text)
        super().__init__(
            folder,
            config=configuration / config,
            environ={**PASSWORDS, **(environ or {})},
            arguments=("--http_port", str(self.monitor_port), *arguments),
        )

    def url_of(self, user: str, password: str | None = None) -> str:
        """Address for a service."""
        secret = password or PASSWORDS[f"NATS_{user.upper()}_PASSWORD"]
        return f"nats://{user}:{secret}@127.0.0.1:{self.port}"

    def monitor(self, path: str) -> dict[str, object]:
        """What it tells of itself."""
        with urlopen(f"http://127.0.0.1:{self.monitor_port}/{path}", timeout=5) as answer:
            found: dict[str, object] = json.load(answer)
        return found
