"""What `switchboard run` on one machine can be told."""

from pathlib import Path

from pydantic import Field
from pydantic.config import JsonDict

from services.common.settings import Port, Settings

_GROUP: JsonDict = {"group": "make run"}


class RunSettings(Settings):
    """Ports and folder of `switchboard run`."""

    switchboard_http_port: Port = Field(
        8080,
        gt=0,
        description="port of webhooks and the REST API",
        examples=["8080"],
        json_schema_extra=_GROUP,
    )
    switchboard_health_port: Port = Field(
        8081,
        gt=0,
        description="port of health and its status page",
        examples=["8081"],
        json_schema_extra=_GROUP,
    )
    switchboard_grpc_port: Port = Field(
        50051,
        gt=0,
        description="port of messaging's gRPC",
        examples=["50051"],
        json_schema_extra=_GROUP,
    )
    switchboard_sandbox_port: Port = Field(
        8090,
        gt=0,
        description="port of the sandbox, a pretend Twilio",
        examples=["8090"],
        json_schema_extra=_GROUP,
    )
    switchboard_nats_port: Port = Field(
        4222,
        gt=0,
        description="port of the embedded NATS",
        examples=["4222"],
        json_schema_extra=_GROUP,
    )
    switchboard_whatsapp_port: Port = Field(
        8091,
        gt=0,
        description="port of the sandbox's pretend WhatsApp, which the Baileys bridge talks to",
        examples=["8091"],
        json_schema_extra=_GROUP,
    )
    switchboard_whatsapp_control_port: Port = Field(
        8092,
        gt=0,
        description="port at which the pretend WhatsApp's contacts are told what to do",
        examples=["8092"],
        json_schema_extra=_GROUP,
    )
    switchboard_webhook_metrics_port: Port = Field(
        8082,
        gt=0,
        description="port of webhook's metrics",
        examples=["8082"],
        json_schema_extra=_GROUP,
    )
    switchboard_messaging_metrics_port: Port = Field(
        8083,
        gt=0,
        description="port of messaging's metrics",
        examples=["8083"],
        json_schema_extra=_GROUP,
    )
    switchboard_health_metrics_port: Port = Field(
        8084,
        gt=0,
        description="port of health's metrics",
        examples=["8084"],
        json_schema_extra=_GROUP,
    )
    switchboard_data_dir: Path = Field(
        Path(".data"),
        description="folder of the database, the journal and the logs",
        examples=[".data"],
        json_schema_extra=_GROUP,
    )
