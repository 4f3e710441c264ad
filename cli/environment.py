"""Where configuration comes from: the process environment, then a file of variables."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from dotenv.main import DotEnv
from pydantic import Field
from pydantic.config import JsonDict

from services.common.settings import Port, Settings

ENV_FILE = Path(".env")


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
    switchboard_data_dir: Path = Field(
        Path(".data"),
        description="folder of the database, the journal and the logs",
        examples=[".data"],
        json_schema_extra=_GROUP,
    )


@dataclass(frozen=True)
class Environment:
    """Variables, and the file that added to those of the process.

    Attributes:
        file: None when there was no file to read.
        names: The variables that stand in the file.
        sandbox: Whether the file is the sandbox's.
    """

    variables: Mapping[str, str]
    file: Path | None
    names: Sequence[str]
    sandbox: bool


def load_environment(env_file: Path | None = None, *, sandbox_allowed: bool) -> Environment:
    """The process environment, completed by `env_file`, else `.env`, else the sandbox's file.

    A variable of the process wins over the file, also inside `${...}`.

    Raises:
        FileNotFoundError: `env_file` was named and isn't there.
    """
    if env_file and not env_file.is_file():
        raise FileNotFoundError(f"there is no file {env_file}")
    sandbox = False
    file = env_file or (ENV_FILE if ENV_FILE.is_file() else None)
    if file is None and sandbox_allowed:
        file, sandbox = sandbox_file(), True
    read = DotEnv(file, override=False).dict() if file else {}
    added = {name: value for name, value in read.items() if value is not None}
    return Environment({**added, **os.environ}, file, list(read), sandbox)


def sandbox_file() -> Path:
    """The variables that go with the sandbox."""
    return Path(str(files("sandbox").joinpath("sandbox.env")))
