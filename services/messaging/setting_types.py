"""Kinds of values that several of messaging's settings have."""

import re
from typing import Annotated, Any, Final
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

TWILIO: dict[str, Any] = {"group": "twilio"}
BAILEYS: dict[str, Any] = {"group": "baileys"}
WITH_TWILIO: dict[str, Any] = {**TWILIO, "required_where": "Twilio is used"}
WITH_BAILEYS: dict[str, Any] = {**BAILEYS, "required_where": "Baileys is used"}
OPENAI: dict[str, Any] = {"group": "openai"}
GOOGLE: dict[str, Any] = {"group": "google"}
VOICE: dict[str, Any] = {"group": "voice"}


# Not a number: that would be an address, too.
_SINGLE_NAME: Final = re.compile(r"[a-z][a-z0-9_-]*", re.ASCII)


def secure_or_local(value: str) -> str:
    """An address that credentials may be sent to, without a slash at its end.

    That is one by https; by http only this machine, or a host that its name alone finds, as
    containers of one network find each other.

    Raises:
        ValueError: It is none.
    """
    parts = urlsplit(value)
    host = parts.hostname or ""
    if parts.scheme == "https" or (
        parts.scheme == "http" and (host in ("127.0.0.1", "::1") or _SINGLE_NAME.fullmatch(host))
    ):
        return value.rstrip("/")
    raise ValueError("must begin with https://, as credentials are sent there (http only locally)")


ApiUrl = Annotated[str, AfterValidator(secure_or_local)]
Seconds = Annotated[float, Field(gt=0)]
