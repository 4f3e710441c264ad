"""NATS as `deploy/nats` configures it: one server, or three that keep copies of everything."""

import asyncio
import contextlib
import json
import time
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import nats.errors
from nats.aio.client import Client

from tests.support.nats import NatsServer
from tests.support.ports import free_port

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
        routes_port: int = 0,
        storage: str = "40GB",
    ) -> None:
        self.monitor_port = free_port()
        configuration = folder / "etc"
        configuration.mkdir(parents=True)
        for file in FILES.iterdir():
            # What the command line can't overrule, or not without the passwords.
            text = file.read_text().replace('"/data"', f'"{folder / "data"}"')
            text = text.replace('"0.0.0.0:6222"', f'"127.0.0.1:{routes_port}"')
            text = text.replace("max_file_store: 40GB", f"max_file_store: {storage}")
            (configuration / file.name).write_text(text)
        super().__init__(
            folder,
            config=configuration / config,
            environ={**PASSWORDS, **(environ or {})},
            arguments=("--http_port", str(self.monitor_port)),
        )

    def url_of(self, user: str, password: str | None = None) -> str:
        """Address for a service."""
        secret = password or PASSWORDS[f"NATS_{user.upper()}_PASSWORD"]
        return f"nats://{user}:{secret}@127.0.0.1:{self.port}"

    def monitor(self, path: str) -> dict[str, Any]:
        """What it tells of itself.

        Raises:
            OSError: It isn't there, or not well.
        """
        with urlopen(f"http://127.0.0.1:{self.monitor_port}/{path}", timeout=5) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def healthy(self) -> bool:
        """Whether it is up to date with the others."""
        try:
            return bool(self.monitor("healthz")["status"] == "ok")
        except OSError:
            return False


class NatsCluster:
    """Three servers with `cluster.conf`."""

    def __init__(self, folder: Path) -> None:
        names = ("nats-0", "nats-1", "nats-2")
        ports = [free_port() for _ in names]
        routes = [f"nats://route:nroute@127.0.0.1:{port}" for port in ports]
        self.nodes = {
            name: DeployedNats(
                folder / name,
                config="cluster.conf",
                environ={
                    "NATS_NAME": name,
                    "NATS_ROUTE_PASSWORD": "nroute",
                    "NATS_ROUTES": json.dumps(routes),
                },
                routes_port=port,
            )
            for name, port in zip(names, ports, strict=True)
        }

    def start(self) -> None:
        """Start all, and wait until they have a leader."""
        for node in self.nodes.values():
            node.start()
        self.until_whole()

    def stop(self) -> None:
        """Stop all."""
        for node in self.nodes.values():
            node.stop()

    def url_of(self, user: str) -> str:
        """Addresses for a service."""
        return ",".join(node.url_of(user) for node in self.nodes.values())

    def until_whole(self) -> None:
        """Wait until every server is up to date.

        Raises:
            AssertionError: It takes too long.
        """
        deadline = time.monotonic() + 60
        while not all(node.healthy() for node in self.nodes.values()):
            assert time.monotonic() < deadline
            time.sleep(0.05)

    def meta_leader(self) -> str:
        """Who decides about streams."""
        deadline = time.monotonic() + 30
        while True:
            for node in self.nodes.values():
                with contextlib.suppress(OSError):
                    if leader := node.monitor("jsz").get("meta_cluster", {}).get("leader"):
                        return str(leader)
            assert time.monotonic() < deadline
            time.sleep(0.05)

    async def leader_of(self, client: Client, stream: str) -> str:
        """Who orders what comes into a stream."""
        async with asyncio.timeout(60):
            while True:
                with contextlib.suppress(nats.errors.Error):
                    info = await client.jetstream(timeout=1).stream_info(stream)
                    if info.cluster and info.cluster.leader:
                        return info.cluster.leader
                await asyncio.sleep(0.05)

    async def lead(self, client: Client, stream: str, name: str) -> None:
        """Make a server the leader of a stream."""
        wish = json.dumps({"placement": {"preferred": name}}).encode()
        while await self.leader_of(client, stream) != name:
            await client.request(f"$JS.API.STREAM.LEADER.STEPDOWN.{stream}", wish, timeout=5)
