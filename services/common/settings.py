"""Settings from the environment, with one report of everything that is missing or wrong."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, ValidationError


@dataclass(frozen=True)
class Problem:
    """One variable that keeps a service from starting."""

    variable: str
    problem: str
    purpose: str
    example: str
    group: str


class ConfigurationError(Exception):
    """The environment doesn't allow a start.

    Attributes:
        problems: Every variable at fault, in the order of the settings class.
    """

    def __init__(self, problems: list[Problem]) -> None:
        self.problems = problems
        super().__init__(format_report(problems))


def format_report(problems: Iterable[Problem]) -> str:
    """Say for each variable what is wrong, what it is for and how to set it."""
    return "\n".join(
        f"  {p.variable}: {p.problem}\n"
        f"      for: {p.purpose}\n"
        f"      example: {p.variable}={p.example}"
        for p in problems
    )


class Settings(BaseModel):
    """Base of every service's settings. A field `public_host` is the variable `PUBLIC_HOST`.

    A secret may also stand in a file, which `NAME_FILE` names; `NAME` itself goes before it.

    Each field carries a description and an example, which make up the report; `group` in
    `json_schema_extra` says what it belongs to ("core" when it says nothing).
    """

    model_config = ConfigDict(frozen=True, extra="ignore", hide_input_in_errors=True)

    @classmethod
    def load(cls, environ: Mapping[str, str]) -> Self:
        """Read the settings.

        Args:
            environ: The environment, usually `os.environ`. An empty value or file counts as unset.

        Raises:
            ConfigurationError: A variable is missing or malformed; it names all of them.
        """
        values: dict[str, str] = {}
        found: dict[str, str] = {}
        for name in cls.model_fields:
            value = environ.get(name.upper())
            if not value and is_secret(cls, name):
                try:
                    value = read_secret_file(name.upper(), environ)
                except ValueError as error:
                    found[name] = str(error)
            if value:
                values[name] = value
        settings: Self | None = None
        try:
            settings = cls.model_validate(values)
        except ValidationError as error:
            for detail in error.errors(include_input=False, include_url=False):
                name = str(detail["loc"][0]) if detail["loc"] else ""
                missing = detail["type"] == "missing"
                message = detail["msg"].removeprefix("Value error, ")
                found.setdefault(name, "is not set" if missing else message)
        for name, problem in cls.cross_check(values):
            found.setdefault(name, problem)
        if found or settings is None:
            raise ConfigurationError([cls._problem(name, text) for name, text in found.items()])
        return settings

    @classmethod
    def cross_check(cls, values: Mapping[str, str]) -> Iterable[tuple[str, str]]:
        """Field names and problems that depend on several variables.

        Runs on the raw values, also when single fields are wrong, so that one report names
        everything.
        """
        return ()

    @classmethod
    def _problem(cls, name: str, text: str) -> Problem:
        field = cls.model_fields[name]
        return Problem(
            variable=name.upper(),
            problem=text,
            purpose=field.description or "",
            example=str((field.examples or [""])[0]),
            group=field_group(cls, name),
        )


def field_group(settings: type[Settings], name: str) -> str:
    """What a field belongs to: "core", or a provider's name."""
    extra = settings.model_fields[name].json_schema_extra
    return str(extra.get("group", "core")) if isinstance(extra, dict) else "core"


def is_secret(settings: type[Settings], name: str) -> bool:
    """Whether a field is a secret, and so may stand in a file."""
    return _mentions_secret(settings.model_fields[name].annotation)


def _mentions_secret(annotation: object) -> bool:
    return annotation is SecretStr or any(map(_mentions_secret, get_args(annotation)))


def read_secret_file(variable: str, environ: Mapping[str, str]) -> str | None:
    """What stands in the file that `VARIABLE_FILE` names, without white space around it.

    Raises:
        ValueError: The file can't be read, or isn't text.
    """
    path = environ.get(f"{variable}_FILE")
    if not path:
        return None
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise ValueError(f"{variable}_FILE names {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{variable}_FILE names {path}, which is not UTF-8 text") from error


_ORIGIN = re.compile(
    r"https?://(?:[^/?#\s]*@)?(?:\[[0-9a-f:.]+\]|[^\[\]@:/?#\s]+)(?::(?P<port>[0-9]{1,5}))?/?",
    re.ASCII | re.IGNORECASE,
)


def _http_origin(value: str) -> str:
    match = _ORIGIN.fullmatch(value)
    # The value isn't shown: it may hold a password.
    if match is None or not value.isascii() or not 0 < int(match["port"] or 443) < 65536:
        raise ValueError(
            "must be an origin such as https://switchboard.example.com, without a path, query or "
            "fragment, its host name in ASCII"
        )
    return value.rstrip("/")


def split_list(value: str) -> tuple[str, ...]:
    """The non-empty parts of a comma-separated value."""
    return tuple(part.strip() for part in value.split(",") if part.strip())


def secret_list(value: SecretStr) -> tuple[str, ...]:
    """The non-empty parts of a comma-separated secret, in order."""
    return split_list(value.get_secret_value())


def _http_url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query:
        raise ValueError("must be an address such as http://127.0.0.1:4318")
    return value


def _networks(value: str) -> str:
    for one in split_list(value):
        try:
            ip_network(one)
        except ValueError as error:
            raise ValueError(
                f"{one!r} is no address or network; write it as 127.0.0.1 or 10.0.0.0/8"
            ) from error
    return value


def _proxies(value: str) -> str:
    # uvicorn would take whatever is no address for a socket's name, which no sender has.
    if "*" in split_list(value) or not all(
        ip_network(one).prefixlen for one in split_list(_networks(value))
    ):
        raise ValueError(
            "would let every sender say who it is; name the addresses or networks of your proxies"
        )
    return value


Networks = Annotated[str, AfterValidator(_networks)]
Proxies = Annotated[str, AfterValidator(_proxies)]
HttpOrigin = Annotated[str, AfterValidator(_http_origin)]
HttpUrl = Annotated[str, AfterValidator(_http_url)]
Port = Annotated[int, Field(ge=0, le=65535)]


class CommonSettings(Settings):
    """What every service reads."""

    app_env: Literal["production", "development"] = Field(
        "production",
        description="whether development shortcuts may be switched on at all",
        examples=["production"],
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="least severity that is logged", examples=["info"]
    )
    log_format: Literal["json", "console"] = Field(
        "json", description="one JSON object a line, or text for people", examples=["json"]
    )
    metrics_port: Port | None = Field(
        None,
        description="internal port for Prometheus and for health, never public; none when unset",
        examples=["9100"],
    )
    metrics_host: str = Field(
        "127.0.0.1",
        description="address of the internal port; 0.0.0.0 for all, as in a container",
        examples=["127.0.0.1"],
    )
    otel_exporter_otlp_endpoint: HttpUrl | None = Field(
        None,
        description="address of an OpenTelemetry collector that takes traces by OTLP over HTTP;"
        " needs the extra `tracing`",
        examples=["http://127.0.0.1:4318"],
    )
