"""Kinds of values that several of messaging's settings have."""

from typing import Annotated, Any
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

TWILIO: dict[str, Any] = {"group": "twilio"}
BAILEYS: dict[str, Any] = {"group": "baileys"}
WITH_TWILIO: dict[str, Any] = {**TWILIO, "required_where": "Twilio is used"}
WITH_BAILEYS: dict[str, Any] = {**BAILEYS, "required_where": "Baileys is used"}
OPENAI: dict[str, Any] = {"group": "openai"}
GOOGLE: dict[str, Any] = {"group": "google"}
VOICE: dict[str, Any] = {"group": "voice"}


def secure_or_local(value: str) -> str:
    """An address that credentials may be sent to, without a slash at its end.

    Raises:
        ValueError: It is none.
    """
    parts = urlsplit(value)
    if parts.scheme == "https" or (
        parts.scheme == "http" and parts.hostname in ("127.0.0.1", "localhost", "::1")
    ):
        return value.rstrip("/")
    raise ValueError("must begin with https://, as credentials are sent there (http only locally)")


ApiUrl = Annotated[str, AfterValidator(secure_or_local)]
Seconds = Annotated[float, Field(gt=0)]
