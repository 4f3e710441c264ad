"""The part of messaging's environment that says by whom WhatsApp messages go."""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, SecretStr

from services.common.settings import CommonSettings
from services.messaging.domain.contact import whatsapp_identity
from services.messaging.setting_types import (
    BAILEYS,
    TWILIO,
    WITH_BAILEYS,
    WITH_TWILIO,
    ApiUrl,
    Seconds,
)

Provider = Literal["twilio", "baileys"]

_REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "twilio": ("twilio_account_sid", "twilio_auth_token", "twilio_whatsapp_number"),
    "baileys": ("baileys_queue_dir", "baileys_number"),
}


def _whatsapp_number(value: str) -> str:
    if whatsapp_identity(value) is None:
        raise ValueError("must be a number in E.164, with or without 'whatsapp:' before it")
    return f"whatsapp:{value.removeprefix('whatsapp:')}"


def _number(value: str) -> str:
    bare = value.removeprefix("whatsapp:")
    if not re.fullmatch(r"\+[1-9][0-9]{6,14}", bare, re.ASCII):
        raise ValueError("must be a number in E.164, such as +14155238886")
    return bare


def _account_sid(value: str) -> str:
    if not re.fullmatch(r"AC[0-9a-f]{32}", value):
        raise ValueError("must be AC and 32 hexadecimal digits, as the Twilio console shows it")
    return value


class WhatsAppSettings(CommonSettings):
    """What messaging can be told about providers of WhatsApp."""

    whatsapp_provider: Provider | None = Field(
        None,
        description="what sends WhatsApp messages: twilio or baileys; when unset, twilio if its "
        "variables are there, else baileys if BAILEYS_QUEUE_DIR is",
        examples=["twilio"],
    )
    whatsapp_fallback_provider: Provider | None = Field(
        None,
        description="what sends messages that the provider is unavailable for: twilio or baileys",
        examples=["baileys"],
    )
    twilio_account_sid: Annotated[str, AfterValidator(_account_sid)] = Field(
        "",
        description="the account, from the Twilio console",
        examples=["AC00000000000000000000000000000000"],
        json_schema_extra=WITH_TWILIO,
    )
    twilio_auth_token: SecretStr = Field(
        SecretStr(""),
        description="the account's auth token; the first is used for sending, all are accepted "
        "on webhooks",
        examples=["0123456789abcdef0123456789abcdef"],
        json_schema_extra=WITH_TWILIO,
    )
    twilio_whatsapp_number: Annotated[str, AfterValidator(_whatsapp_number)] = Field(
        "",
        description="our own number on WhatsApp",
        examples=["whatsapp:+14155238886"],
        json_schema_extra=WITH_TWILIO,
    )
    twilio_api_base_url: ApiUrl = Field(
        "https://api.twilio.com",
        description="where Twilio's REST API is; another value is for the sandbox",
        examples=["https://api.twilio.com"],
        json_schema_extra=TWILIO,
    )
    twilio_timeout_seconds: Seconds = Field(
        10.0,
        description="how long a call to Twilio may take before its outcome counts as unknown",
        examples=["10"],
        json_schema_extra=TWILIO,
    )

    baileys_queue_dir: Path | None = Field(
        None,
        description="folder shared with the Baileys bridge",
        examples=["/queue"],
        json_schema_extra=WITH_BAILEYS,
    )
    baileys_number: Annotated[str, AfterValidator(_number)] = Field(
        "",
        description="the number that the bridge's session belongs to",
        examples=["+14155238886"],
        json_schema_extra=WITH_BAILEYS,
    )
    baileys_send_patience_seconds: Annotated[float, Field(ge=1, le=300)] = Field(
        30.0,
        description="how long the bridge may take to send a message, its pace included, before "
        "the message is taken back",
        examples=["30"],
        json_schema_extra=BAILEYS,
    )
    baileys_media_max_bytes: Annotated[int, Field(ge=1024, le=64 * 1024**2)] = Field(
        16 * 1024**2,
        description="largest file that goes in or out by the bridge, which reads this, too",
        examples=["16777216"],
        json_schema_extra=BAILEYS,
    )

    @classmethod
    def cross_check(cls, values: Mapping[str, str]) -> Iterable[tuple[str, str]]:
        """Whoever is to send needs its variables."""
        yield from super().cross_check(values)
        provider, fallback = selected_providers(values)
        for name in dict.fromkeys((provider, fallback)):
            for variable in _REQUIRED.get(name or "", ()):
                if not values.get(variable, "").strip(", "):
                    yield variable, f"is not set, and {name} is used"
        if fallback == provider:
            yield "whatsapp_fallback_provider", "must be another provider than WHATSAPP_PROVIDER"

    def providers(self) -> tuple[str, ...]:
        """The provider in use, then its fallback if there is one."""
        given = {
            "whatsapp_provider": self.whatsapp_provider or "",
            "twilio_account_sid": self.twilio_account_sid,
            "twilio_auth_token": self.twilio_auth_token.get_secret_value(),
            "twilio_whatsapp_number": self.twilio_whatsapp_number,
            "baileys_queue_dir": str(self.baileys_queue_dir or ""),
        }
        provider, _ = selected_providers(given)
        fallback = self.whatsapp_fallback_provider
        return (provider,) if fallback is None else (provider, fallback)

    def own_address(self) -> str:
        """What our side of conversations is called, whichever provider a message goes by.

        With two numbers it is Twilio's, so that changing the provider changes no conversation.
        """
        return self.twilio_whatsapp_number or f"whatsapp:{self.baileys_number}"

    def own_addresses(self) -> frozenset[str]:
        """Both of our numbers, as far as they are set."""
        web = {f"whatsapp:{self.baileys_number}"} if self.baileys_number else ()
        return frozenset({self.own_address(), *web})


def selected_providers(values: Mapping[str, str]) -> tuple[str, str | None]:
    """The provider and the fallback, by the raw values of the variables."""
    fallback = values.get("whatsapp_fallback_provider") or None
    if provider := values.get("whatsapp_provider"):
        return provider, fallback
    if all(values.get(name) for name in _REQUIRED["twilio"]):
        return "twilio", fallback
    return ("baileys" if values.get("baileys_queue_dir") else "twilio"), fallback
