"""The sandbox's settings, read from environment variables."""

from ipaddress import IPv4Address, IPv6Address
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    SecretStr,
    ValidationInfo,
    field_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

Seconds = Annotated[float, Field(ge=0, le=3600)]


def _localhost(value: object) -> object:
    return "127.0.0.1" if value == "localhost" else value


def _origin(value: str) -> str:
    parts = urlsplit(value)
    bare = not (parts.path.strip("/") or parts.query or parts.fragment or parts.username)
    if parts.scheme not in {"http", "https"} or not parts.hostname or not bare:
        raise ValueError("must be an http(s) origin such as http://127.0.0.1:8080")
    return value.rstrip("/")


def _whatsapp_address(value: object) -> object:
    return f"whatsapp:{value}" if isinstance(value, str) and value.startswith("+") else value


def _has_a_token(value: SecretStr) -> SecretStr:
    if not _split(value):
        raise ValueError("must hold a token, or several separated by commas")
    return value


def _split(value: SecretStr) -> tuple[str, ...]:
    return tuple(part for item in value.get_secret_value().split(",") if (part := item.strip()))


Origin = Annotated[str, AfterValidator(_origin)]


class SandboxSettings(BaseSettings):
    """What the pretend Twilio and OpenAI need to know; delays are in seconds."""

    model_config = SettingsConfigDict(extra="ignore", populate_by_name=True)

    # For a network of containers that publishes no port of the sandbox. The host depends on it.
    open: bool = Field(False, validation_alias="SANDBOX_OPEN")
    host: Annotated[IPv4Address | IPv6Address, BeforeValidator(_localhost)] = Field(
        IPv4Address("127.0.0.1"), validation_alias="SANDBOX_HOST"
    )
    port: int = Field(8090, ge=0, le=65535, validation_alias="SWITCHBOARD_SANDBOX_PORT")
    # Where it is reached by others, if not at the address it listens on.
    base_url: Origin | None = Field(None, validation_alias="SANDBOX_BASE_URL")
    # Where webhooks are sent, and the origin they are signed for if that is another.
    webhook_url: Origin = Field("http://127.0.0.1:8080", validation_alias="SANDBOX_WEBHOOK_URL")
    public_host: Origin | None = Field(None, validation_alias="PUBLIC_HOST")

    account_sid: str = Field(pattern=r"^AC[0-9a-fA-F]{32}$", validation_alias="TWILIO_ACCOUNT_SID")
    auth_token: Annotated[SecretStr, AfterValidator(_has_a_token)] = Field(
        validation_alias="TWILIO_AUTH_TOKEN"
    )
    whatsapp_number: Annotated[str, BeforeValidator(_whatsapp_address)] = Field(
        pattern=r"^whatsapp:\+[1-9][0-9]{6,14}$", validation_alias="TWILIO_WHATSAPP_NUMBER"
    )
    openai_api_key: SecretStr = Field(min_length=1, validation_alias="OPENAI_API_KEY")
    # The service account that the pretend Google knows; without one it makes its own.
    google_account: SecretStr | None = Field(None, validation_alias="GOOGLE_TTS_SA_JSON")

    # Our telephone number; the one on WhatsApp if it isn't another.
    voice_number: str | None = Field(
        None, pattern=r"^\+[1-9][0-9]{6,14}$", validation_alias="SANDBOX_VOICE_NUMBER"
    )
    # After the end of a recording, by the real clock: until the file is there, and until
    # recordingStatusCallback says so.
    recording_after: Seconds = Field(0.1, validation_alias="SANDBOX_RECORDING_AFTER")
    recording_callback_after: Seconds = Field(
        0.3, validation_alias="SANDBOX_RECORDING_CALLBACK_AFTER"
    )
    # How long the vendors of a call take; see sandbox/vendors.py.
    transcription: Seconds = Field(0, validation_alias="SANDBOX_TRANSCRIPTION")
    answer: Seconds = Field(0, validation_alias="SANDBOX_ANSWER")
    answer_word: Seconds = Field(0, validation_alias="SANDBOX_ANSWER_WORD")
    speech: Seconds = Field(0, validation_alias="SANDBOX_SPEECH")
    speech_character: Seconds = Field(0, validation_alias="SANDBOX_SPEECH_CHARACTER")

    # All counted from the moment Twilio accepted the message.
    sent_after: Seconds = Field(0.2, validation_alias="SANDBOX_SENT_AFTER")
    delivered_after: Seconds = Field(0.5, validation_alias="SANDBOX_DELIVERED_AFTER")
    read_after: Seconds = Field(1.5, validation_alias="SANDBOX_READ_AFTER")
    # Twilio gives an event up after this long, all attempts together.
    webhook_timeout: Seconds = Field(15, gt=0, validation_alias="SANDBOX_WEBHOOK_TIMEOUT")
    enforce_window: bool = Field(False, validation_alias="SANDBOX_ENFORCE_24H_WINDOW")

    @field_validator("host")
    @classmethod
    def _stays_on_this_machine(
        cls, address: IPv4Address | IPv6Address, info: ValidationInfo
    ) -> IPv4Address | IPv6Address:
        if not (address.is_loopback or info.data.get("open")):
            raise ValueError(
                f"must be a loopback address such as 127.0.0.1, not {address}: "
                "whoever reaches the sandbox can control it"
            )
        return address

    @property
    def signed_origin(self) -> str:
        """The origin that webhooks are signed for."""
        return self.public_host or self.webhook_url

    @property
    def called_number(self) -> str:
        """The number that callers dial."""
        return self.voice_number or self.whatsapp_number.removeprefix("whatsapp:")

    @property
    def auth_tokens(self) -> tuple[str, ...]:
        """Every token that is valid; the first one signs."""
        return _split(self.auth_token)
