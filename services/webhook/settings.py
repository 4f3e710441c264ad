"""What the edge reads from the environment."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field, SecretStr
from pydantic.config import JsonDict

from services.common.settings import (
    CommonSettings,
    HttpOrigin,
    Port,
    Proxies,
    secret_list,
    split_list,
)
from services.webhook.api.keys import parse_api_keys
from services.webhook.voicemail import VoiceLanguage

_CORE: JsonDict = {"group": "core"}
_TWILIO: JsonDict = {"group": "twilio"}
_API: JsonDict = {"group": "api"}
_VOICE: JsonDict = {"group": "voice"}

# As browsers send it: no path, no user, the scheme and host in lower case.
_BROWSER_ORIGIN = re.compile(r"https?://[a-z0-9.-]+(?::[0-9]{1,5})?", re.ASCII)


def _shared_keys(value: SecretStr) -> SecretStr:
    for entry in secret_list(value):
        key_id, _, secret = entry.partition(":")
        if not key_id or not secret:
            raise ValueError("must be id:secret pairs separated by commas")
    return value


def _api_keys(value: SecretStr) -> SecretStr:
    parse_api_keys(value.get_secret_value())
    return value


def _browser_origins(value: str) -> str:
    if not all(_BROWSER_ORIGIN.fullmatch(origin) for origin in split_list(value)):
        raise ValueError(
            "must be origins such as https://desk.example.com separated by commas, in lower case,"
            " without a path; * is not allowed"
        )
    return value


class WebhookSettings(CommonSettings):
    """Settings of the edge."""

    public_host: HttpOrigin = Field(
        description=(
            "the address Twilio reaches this service at, exactly as configured there: signatures"
            " cover it, so one wrong letter refuses every webhook"
        ),
        examples=["https://switchboard.example.com"],
        json_schema_extra=_CORE,
    )
    whatsapp_provider: str | None = Field(
        None,
        description="what sends WhatsApp messages: twilio or baileys; when unset, twilio if its "
        "variables are there, else baileys if BAILEYS_QUEUE_DIR is",
        examples=["twilio"],
        json_schema_extra=_CORE,
    )
    whatsapp_fallback_provider: str | None = Field(
        None,
        description="what sends messages that the provider is unavailable for: twilio or baileys",
        examples=["baileys"],
        json_schema_extra=_CORE,
    )
    baileys_queue_dir: str | None = Field(
        None,
        description="folder shared with the Baileys bridge",
        examples=["/queue"],
        json_schema_extra={"group": "baileys"},
    )
    twilio_auth_token: SecretStr | None = Field(
        None,
        description=(
            "Auth Token of the Twilio account, the key of webhook signatures; several separated"
            " by commas while it is rotated"
        ),
        examples=["0123456789abcdef0123456789abcdef"],
        json_schema_extra=_TWILIO,
    )
    twilio_shared_keys: Annotated[SecretStr, AfterValidator(_shared_keys)] | None = Field(
        None,
        description="Twilio SharedKeys for webhook signatures, as id:secret, separated by commas",
        examples=["KS0123456789abcdef:secret"],
        json_schema_extra=_TWILIO,
    )
    bypass_twilio_signature: bool = Field(
        False,
        description="accept webhooks without a signature; only with APP_ENV=development",
        examples=["false"],
        json_schema_extra=_TWILIO,
    )
    signature_failures_per_minute: int = Field(
        30,
        ge=1,
        description="refused signatures a minute after which one sender gets 429 for more of them",
        examples=["30"],
        json_schema_extra=_TWILIO,
    )
    nats_url: SecretStr = Field(
        description=(
            "address of NATS, several separated by commas; a token or a user stands in the address"
        ),
        examples=["nats://127.0.0.1:4222"],
        json_schema_extra=_CORE,
    )
    jetstream_replicas: int = Field(
        1,
        ge=1,
        le=5,
        description="copies of the journal: 1 on a single NATS server, 3 on a cluster",
        examples=["1"],
        json_schema_extra=_CORE,
    )
    journal_max_bytes: int = Field(
        10 * 1024**3,
        ge=1024**2,
        description="bytes at which the journal refuses more; it never forgets to make room",
        examples=["10737418240"],
        json_schema_extra=_CORE,
    )
    webhook_host: str = Field(
        "127.0.0.1",
        description="address to listen on; 0.0.0.0 for all, as in a container",
        examples=["127.0.0.1"],
        json_schema_extra=_CORE,
    )
    webhook_port: Port = Field(
        8080,
        description="port of the webhooks and the API",
        examples=["8080"],
        json_schema_extra=_CORE,
    )
    webhook_max_connections: int = Field(
        1000,
        ge=10,
        le=100_000,
        description=(
            "connections held at once; beyond so many a tenth of them is closed, those whose"
            " requests have been longest in coming"
        ),
        examples=["1000"],
        json_schema_extra=_CORE,
    )
    trusted_proxies: Proxies = Field(
        "127.0.0.1",
        description="addresses or networks of proxies whose X-Forwarded-For is believed",
        examples=["127.0.0.1,10.0.0.0/8"],
        json_schema_extra=_CORE,
    )
    spill_path: Path = Field(
        Path(".data/spill.db"),
        description="file on a durable disk that keeps events while NATS is away; one per process",
        examples=[".data/spill.db"],
        json_schema_extra=_CORE,
    )
    spill_max_bytes: int = Field(
        1024**3,
        ge=1024,
        description="bytes of events that file may hold; then webhooks are answered with 503",
        examples=["1073741824"],
        json_schema_extra=_CORE,
    )

    api_keys: Annotated[SecretStr, AfterValidator(_api_keys)] | None = Field(
        None,
        description=(
            "keys of the REST API as name:key, separated by commas; without any there is no API."
            " A name may have two keys while one replaces the other"
        ),
        examples=["crm:a-long-random-string"],
        json_schema_extra=_API,
    )
    messaging_grpc_address: str = Field(
        "127.0.0.1:50051",
        description="host:port of messaging's gRPC server",
        examples=["messaging:50051"],
    )
    grpc_token: SecretStr | None = Field(
        None,
        description="token that gRPC callers must show; several, separated by commas, to rotate",
        examples=["a-long-random-string"],
    )
    api_requests_per_minute: int = Field(
        600,
        ge=1,
        le=1_000_000,
        description="requests a minute that one API key may make before it gets 429",
        examples=["600"],
        json_schema_extra=_API,
    )
    api_key_failures_per_minute: int = Field(
        30,
        ge=1,
        description="requests a minute without a good key after which one sender gets 429",
        examples=["30"],
        json_schema_extra=_API,
    )
    api_held_requests: int = Field(
        20,
        ge=1,
        description="streams, downloads and waiting sends that one API key may hold open at once; "
        "of downloads half as many",
        examples=["20"],
        json_schema_extra=_API,
    )
    cors_origins: Annotated[str, AfterValidator(_browser_origins)] = Field(
        "",
        description="origins whose web pages may use the REST API, separated by commas",
        examples=["https://desk.example.com"],
        json_schema_extra=_API,
    )

    voice_language: VoiceLanguage = Field(
        "en-US",
        description="language in which callers are greeted: en-US or he-IL",
        examples=["he-IL"],
        json_schema_extra=_VOICE,
    )
    audio_cache_bytes: int = Field(
        64 * 1024**2,
        ge=0,
        description="bytes of rendered speech that the edge keeps in memory",
        examples=["67108864"],
        json_schema_extra=_VOICE,
    )

    @classmethod
    def cross_check(cls, values: Mapping[str, str]) -> Iterable[tuple[str, str]]:
        """The bypass needs development, no bypass a key, and the API a token for messaging."""
        bypass = values.get("bypass_twilio_signature", "").strip().lower() in (
            "1", "true", "t", "yes", "y", "on",
        )  # fmt: skip
        if bypass and values.get("app_env") != "development":
            yield (
                "bypass_twilio_signature",
                "is allowed only with APP_ENV=development: anyone could send webhooks",
            )
        keys = values.get("twilio_auth_token", "") + values.get("twilio_shared_keys", "")
        chosen = values.get("whatsapp_provider"), values.get("whatsapp_fallback_provider")
        by_baileys = "twilio" not in chosen and (
            "baileys" in chosen or bool(values.get("baileys_queue_dir"))
        )
        if not bypass and not by_baileys and not keys.strip(", "):
            yield "twilio_auth_token", "is not set, so no webhook could be verified"
        if values.get("api_keys") and not values.get("grpc_token", "").strip(", "):
            yield "grpc_token", "is not set, but API_KEYS is: the API asks messaging, by this token"

    def auth_tokens(self) -> tuple[str, ...]:
        """The Auth Tokens that may sign."""
        return secret_list(self.twilio_auth_token) if self.twilio_auth_token else ()

    def shared_keys(self) -> dict[str, str]:
        """The SharedKeys that may sign, by their id."""
        if self.twilio_shared_keys is None:
            return {}
        entries = (entry.partition(":") for entry in secret_list(self.twilio_shared_keys))
        return {key_id: secret for key_id, _, secret in entries}

    def named_api_keys(self) -> tuple[tuple[str, str], ...]:
        """The API's keys after their names."""
        return parse_api_keys(self.api_keys.get_secret_value()) if self.api_keys else ()

    def messaging_token(self) -> str:
        """What is shown to messaging."""
        return secret_list(self.grpc_token)[0] if self.grpc_token else ""
