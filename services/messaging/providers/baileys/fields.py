"""Types of the queue's fields, as docs/baileys-queue.md names them."""

import re
from datetime import datetime
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

_TIME: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,6})?Z", re.ASCII)


def _time(value: object) -> datetime:
    if not isinstance(value, str) or not _TIME.fullmatch(value):
        raise ValueError("must be a time in UTC such as 2026-03-01T12:00:00Z")
    return datetime.fromisoformat(value)


def not_blank(value: str) -> str:
    """For texts that must say something."""
    if not value.strip():
        raise ValueError("is blank")
    return value


def word(most: int) -> Any:
    """At most so many printable characters without spaces."""
    return Field(pattern=rf"^[!-~]{{1,{most}}}$")


def text(most: int) -> Any:
    """At most so many characters."""
    return Field(max_length=most)


Time = Annotated[datetime, BeforeValidator(_time)]
Phone = Annotated[str, Field(pattern=r"^\+[1-9][0-9]{6,14}$")]
PhoneChat = Annotated[str, Field(pattern=r"^[0-9]{5,20}@s\.whatsapp\.net$")]
LidChat = Annotated[str, Field(pattern=r"^[0-9]{5,20}@lid$")]
Chat = Annotated[str, Field(pattern=r"^[0-9]{5,20}@(?:s\.whatsapp\.net|lid)$")]
Id = Annotated[str, word(128)]
SendId = Annotated[str, Field(pattern=r"^3EB0[0-9A-F]{18}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Count = Annotated[int, Field(ge=0)]
LongText = Annotated[str, text(65_536)]
Name = Annotated[str, text(255)]
Code = Annotated[str, word(32)]
Explanation = Annotated[str, text(1000)]
Number = Annotated[float, Field(ge=0)]


class QueueModel(BaseModel):
    """A JSON object of the queue. What it has besides is passed over."""

    model_config = ConfigDict(strict=True, frozen=True, extra="ignore")
