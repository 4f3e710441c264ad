"""The JSON and the query parameters that come in."""

import re
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, model_validator

from services.webhook.api.models import CallOutcome, Direction, MessageStatus

MAX_WAIT_SECONDS = 30

_HTTPS_ADDRESS = r"^https://[!-~]+$"
IDEMPOTENCY_KEY = r"^[!-~]{1,200}$"
_TEMPLATE_ID = r"^[A-Za-z0-9_.:-]{1,128}$"
_VARIABLE_NAME = r"^[A-Za-z0-9_]{1,64}$"
PATTERNS_IN_WORDS = {
    _HTTPS_ADDRESS: "must begin with https:// and contain only ASCII characters without spaces",
    IDEMPOTENCY_KEY: "must be 1 to 200 printable ASCII characters without spaces",
    _TEMPLATE_ID: "must be 1 to 128 characters of A-Z, a-z, 0-9, _, ., : and -",
    _VARIABLE_NAME: "must be 1 to 64 characters of A-Z, a-z, 0-9 and _",
}
"""What each pattern asks for, for who doesn't read patterns."""

_RFC_3339 = re.compile(
    r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(?:\.\d+)?(?:[Zz]|[+-]\d\d:\d\d)", re.ASCII
)


# What `+` has become where it was not written as %2B.
_SPACED_OFFSET = re.compile(r" (?=\d\d:\d\d\Z)", re.ASCII)


def _moment(value: object) -> datetime:
    if isinstance(value, str):
        value = _SPACED_OFFSET.sub("+", value)
    if not isinstance(value, str) or not _RFC_3339.fullmatch(value):
        raise ValueError("must be a time such as 2026-05-01T09:30:00Z (RFC 3339)")
    try:
        return datetime.fromisoformat(value.upper()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise ValueError("is no moment that exists between the years 1 and 9999") from None


Moment = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
Number = Annotated[
    str,
    Field(
        min_length=1,
        max_length=160,
        description=(
            "A number in any common spelling, `whatsapp:+15551234567`, or a WhatsApp user id such"
            " as `whatsapp:US.13491208655302`."
        ),
        json_schema_extra={"format": "contact-address"},
    ),
]
PhoneNumber = Annotated[
    str,
    Field(
        min_length=1,
        max_length=160,
        description="A number in any common spelling.",
        json_schema_extra={"format": "phone-number"},
    ),
]
Limit = Annotated[int, Field(ge=1, le=200, description="At most this many.")]
Cursor = Annotated[
    str,
    Field(
        min_length=1,
        max_length=200,
        description="`next_cursor` of the page before; the other parameters must be the same.",
        json_schema_extra={"format": "cursor"},
    ),
]


class Given(BaseModel):
    """Base of what comes in: an unknown field is refused, and none is turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


Variables = Annotated[
    dict[
        Annotated[str, Field(pattern=_VARIABLE_NAME)],
        Annotated[str, Field(max_length=1600)],
    ],
    # Pydantic would say what names must be, but not that others are refused.
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": _VARIABLE_NAME},
            "additionalProperties": {
                "type": "string",
                "maxLength": 1600,
                "pattern": r"^[^\x00]*$",
            },
            "maxProperties": 100,
            "examples": [{"1": "Dana", "2": "9:00"}],
        }
    ),
]


class NewTemplate(Given):
    """A message approved beforehand, the only kind allowed outside the 24-hour window."""

    id: str = Field(
        pattern=_TEMPLATE_ID,
        description="The provider's id, for Twilio a ContentSid.",
        examples=["HX0123456789abcdef0123456789abcdef"],
    )
    variables: Variables = Field(default_factory=dict, max_length=100)


_ONE_OF: dict[str, Any] = {
    "oneOf": [
        {
            "anyOf": [{"required": ["body"]}, {"required": ["media_url"]}],
            "not": {"required": ["template"]},
        },
        {
            "required": ["template"],
            "not": {"anyOf": [{"required": ["body"]}, {"required": ["media_url"]}]},
        },
    ]
}


class NewMessage(Given):
    """What to send: `body`, `media_url` with or without `body` as its caption, or `template`."""

    model_config = ConfigDict(json_schema_extra=_ONE_OF)

    # Defaults made by a factory stay out of the schema, and null is no value of any field.
    to: Number
    body: str = Field(
        default_factory=str,
        min_length=1,
        max_length=1600,
        description="The text, or the file's caption.",
        json_schema_extra={"pattern": r"^[^\x00]*[^\s\x00][^\x00]*$"},
    )
    media_url: str = Field(
        default_factory=str,
        max_length=2000,
        pattern=_HTTPS_ADDRESS,
        description="An https address from which the provider takes the file. Its host is asked "
        "for type and size first.",
        json_schema_extra={"format": "uri"},
    )
    template: NewTemplate = Field(default_factory=lambda: NewTemplate.model_construct(id=""))
    reply_to: str = Field(
        default_factory=str,
        min_length=1,
        max_length=64,
        description="Id of a message of the same conversation.",
        json_schema_extra={"format": "message-id"},
    )
    author: Literal["person", "program"] = Field(
        "program",
        description="With `person` the assistant leaves the conversation to people.",
    )

    @property
    def is_template(self) -> bool:
        """Whether it is a template."""
        return "template" in self.model_fields_set

    @model_validator(mode="after")
    def _one_kind(self) -> Self:
        if bool(self.model_fields_set & {"body", "media_url"}) == self.is_template:
            raise ValueError("needs either template, or body or media_url or both of them")
        return self


class ReadMark(Given):
    """How far the business has read."""

    up_to: str = Field(
        default_factory=str,
        min_length=1,
        max_length=64,
        description="Id of the newest message that was read; without it, all of them.",
        json_schema_extra={"format": "message-id"},
    )


class Query(BaseModel):
    """Base of query parameters, which are text until they are read."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PageQuery(Query):
    """Which page."""

    limit: Limit = 50
    cursor: Cursor | None = None


class MessagesQuery(PageQuery):
    """Which messages."""

    status: MessageStatus | None = None
    direction: Direction | None = None
    since: Moment | None = Field(None, description="Created at this time or later.")
    until: Moment | None = Field(None, description="Created before this time.")
    contact: Number | None = None


class CallsQuery(PageQuery):
    """Which calls."""

    number: PhoneNumber | None = Field(None, description="Only calls from or to it.")
    outcome: CallOutcome | None = None
    since: Moment | None = Field(None, description="Begun at this time or later.")
    until: Moment | None = Field(None, description="Begun before this time.")


class SendQuery(Query):
    """How to answer."""

    wait: float = Field(
        0,
        ge=0,
        le=MAX_WAIT_SECONDS,
        description="Seconds to hold the answer until the message is sent or failed.",
    )


class StreamQuery(Query):
    """What to stream."""

    contact: Number | None = None
    cursor: Cursor | None = Field(
        None,
        description="Where to begin, for a first connection; `Last-Event-ID` goes before it.",
    )
