"""The environment that health reads."""

from pydantic import Field

from services.common.settings import CommonSettings, HttpOrigin, Port


class HealthSettings(CommonSettings):
    """Where health listens, and whom it asks."""

    health_host: str = Field(
        "127.0.0.1",
        description="address health listens on; 0.0.0.0 for all, as in a container",
        examples=["127.0.0.1"],
    )
    health_port: Port = Field(8081, description="port of health", examples=["8081"])
    webhook_internal_url: HttpOrigin = Field(
        "http://127.0.0.1:8080",
        description="origin at which health asks the webhook service",
        examples=["http://webhook:8080"],
    )
    messaging_grpc_address: str = Field(
        "127.0.0.1:50051",
        description="host:port of messaging's gRPC server",
        examples=["messaging:50051"],
    )
    health_probe_interval_seconds: float = Field(
        5.0, gt=0, description="pause between two probes of a component", examples=["5"]
    )
    health_probe_timeout_seconds: float = Field(
        2.0, gt=0, description="time a component has to answer a probe", examples=["2"]
    )
