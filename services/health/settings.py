"""The environment that health reads."""

from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr

from services.common.settings import (
    CommonSettings,
    HttpOrigin,
    Networks,
    Port,
    Proxies,
    secret_list,
    split_list,
)

Network = IPv4Network | IPv6Network


def _long_enough(value: SecretStr) -> SecretStr:
    if any(len(key) < 16 for key in secret_list(value)):
        raise ValueError("every key must have 16 characters or more")
    return value


class HealthSettings(CommonSettings):
    """Where health listens, whom it asks, and to whom it tells what."""

    health_host: str = Field(
        "127.0.0.1",
        description="address health listens on; 0.0.0.0 for all, as in a container",
        examples=["127.0.0.1"],
    )
    health_port: Port = Field(8081, description="port of health", examples=["8081"])
    webhook_internal_url: HttpOrigin = Field(
        "http://127.0.0.1:9100",
        description="origin of the webhook service's internal port, its METRICS_PORT; a name of"
        " several replicas has each of them asked",
        examples=["http://webhook:9100"],
    )
    messaging_grpc_address: str = Field(
        "127.0.0.1:50051",
        description="host:port of messaging's gRPC server",
        examples=["messaging:50051"],
    )
    grpc_token: SecretStr = Field(
        description="token that gRPC callers must show; several, separated by commas, to rotate",
        examples=["a-long-random-string"],
    )
    nats_url: SecretStr = Field(
        description="NATS server with JetStream; several addresses separated by commas",
        examples=["nats://token@127.0.0.1:4222"],
    )
    nats_storage_max_bytes: int = Field(
        0,
        ge=0,
        description="how much the NATS server may store, its max_file_store, which it tells"
        " nobody; health warns before that is full, and with 0 doesn't",
        examples=["42949672960"],
    )
    health_probe_interval_seconds: float = Field(
        3.0, gt=0, description="pause between two probes of a component", examples=["3"]
    )
    health_probe_timeout_seconds: float = Field(
        2.0, gt=0, description="time a component has to answer a probe", examples=["2"]
    )
    health_keys: Annotated[SecretStr, AfterValidator(_long_enough)] | None = Field(
        None,
        description=(
            "keys that open the status page, the detailed report and the metrics from anywhere, as"
            " X-API-Key or as the password a browser asks for; separated by commas"
        ),
        examples=["a-long-random-string"],
    )
    health_open_networks: Networks = Field(
        "127.0.0.0/8,::1",
        description="networks that see all of health without a key, separated by commas",
        examples=["127.0.0.0/8,10.0.0.0/8"],
    )
    trusted_proxies: Proxies = Field(
        "127.0.0.1",
        description="addresses or networks of proxies whose X-Forwarded-For is believed",
        examples=["127.0.0.1,10.0.0.0/8"],
    )

    def open_networks(self) -> Sequence[Network]:
        """Networks that need no key."""
        return [ip_network(one) for one in split_list(self.health_open_networks)]

    def keys(self) -> Sequence[str]:
        """Keys that open everything."""
        return secret_list(self.health_keys) if self.health_keys else ()

    def messaging_token(self) -> str:
        """What is shown to messaging."""
        return secret_list(self.grpc_token)[0]
