"""The part of messaging's environment that is about calls."""

import re
from collections.abc import Iterable, Mapping
from datetime import timedelta
from typing import Annotated, Literal
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from services.messaging.domain.business_hours import BusinessHours, time_zone
from services.messaging.domain.language import Phrase
from services.messaging.setting_types import OPENAI, TWILIO, VOICE, Seconds
from services.messaging.speech_settings import SpeechSettings
from services.messaging.usecases.calls.missed import TEMPLATE
from services.messaging.usecases.calls.rules import CallRules
from services.messaging.usecases.send import MAX_BODY_CHARACTERS

_E164 = re.compile(r"\+[1-9][0-9]{6,14}", re.ASCII)


def _business_hours(value: str) -> str:
    BusinessHours.parse(value, ZoneInfo("UTC"))
    return value


def _time_zone(value: str) -> str:
    time_zone(value)
    return value


def _phone_number(value: str) -> str:
    if not _E164.fullmatch(value):
        raise ValueError("must be a number in E.164, such as +97231234567")
    return value


def _missed_call_reply(value: str) -> str:
    if value.startswith("HX") and not TEMPLATE.fullmatch(value):
        raise ValueError("must be a text, or a ContentSid: HX and 32 hexadecimal digits")
    if not value.strip() or len(value) > MAX_BODY_CHARACTERS:
        raise ValueError(f"must be a text of at most {MAX_BODY_CHARACTERS} characters")
    return value


# Said in one piece: a vendor takes 5000 bytes.
_Words = Annotated[str, Field(max_length=1000)]


class VoiceSettings(SpeechSettings):
    """What messaging can be told about calls."""

    voice_language: Literal["en-US", "he-IL"] = Field(
        "en-US",
        description="language in which callers are greeted: en-US or he-IL",
        examples=["he-IL"],
        json_schema_extra=VOICE,
    )
    voice_greeting: _Words = Field(
        "",
        description="what callers hear first, in VOICE_LANGUAGE; a short greeting when unset",
        examples=["Example Estates, good day. How can I help you?"],
        json_schema_extra=VOICE,
    )
    voice_persona: str = Field(
        "You answer the telephone for a business. Be friendly, brief and honest; when you don't "
        "know something, say that a colleague will call back.",
        description="who the assistant on the telephone is, what it knows and how it should answer",
        examples=["You answer the telephone for Example Estates, an estate agent in Haifa."],
        json_schema_extra=VOICE,
    )
    voice_keywords: str = Field(
        "",
        description="names and terms that callers are likely to say, separated by commas; they "
        "are understood better then",
        examples=["Example Estates,Carmel,arnona"],
        json_schema_extra=VOICE,
    )
    voice_business_hours: Annotated[str, AfterValidator(_business_hours)] | None = Field(
        None,
        description="when calls are answered; always when unset. Needs VOICE_TIMEZONE",
        examples=["Sun-Thu 09:00-18:00, Fri 09:00-13:00"],
        json_schema_extra=VOICE,
    )
    voice_timezone: Annotated[str, AfterValidator(_time_zone)] | None = Field(
        None,
        description="time zone of VOICE_BUSINESS_HOURS",
        examples=["Asia/Jerusalem"],
        json_schema_extra=VOICE,
    )
    voice_closed_message: _Words = Field(
        "",
        description="what callers hear outside these hours, in VOICE_LANGUAGE",
        examples=["Example Estates is closed now. We open on Sunday at nine."],
        json_schema_extra=VOICE,
    )
    voice_closed_voicemail: bool = Field(
        True,
        description="whether callers can leave a message outside these hours",
        examples=["true"],
        json_schema_extra=VOICE,
    )
    voice_max_turns: Annotated[int, Field(ge=1, le=200)] = Field(
        30,
        description="so often a caller is listened to in one call",
        examples=["30"],
        json_schema_extra=VOICE,
    )
    voice_max_call_seconds: Annotated[int, Field(ge=30, le=14_400)] = Field(
        900,
        description="a call is ended after this, once the answer under way has been said",
        examples=["900"],
        json_schema_extra=VOICE,
    )
    voice_silence_seconds: Annotated[int, Field(ge=1, le=10)] = Field(
        2,
        description="silence after which the caller has finished; part of every caller's wait",
        examples=["2"],
        json_schema_extra=VOICE,
    )
    voice_transfer_to: Annotated[str, AfterValidator(_phone_number)] | None = Field(
        None,
        description="who is called when a caller asks for a person or presses 0; nobody when unset",
        examples=["+97231234567"],
        json_schema_extra=VOICE,
    )
    voice_transfer_timeout_seconds: Annotated[int, Field(ge=5, le=120)] = Field(
        25,
        description="how long that telephone rings before the caller is asked for a message",
        examples=["25"],
        json_schema_extra=VOICE,
    )
    voice_model: str | None = Field(
        None,
        description="model that answers callers, if a faster one than OPENAI_MODEL",
        examples=["gpt-6-luna"],
        json_schema_extra=OPENAI,
    )
    voice_answer_timeout_seconds: Seconds = Field(
        20.0,
        description="how long one spoken answer may take to write",
        examples=["20"],
        json_schema_extra=VOICE,
    )
    voice_reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = Field(
        None,
        description="how long the model may think before it speaks; its own default when unset",
        examples=["low"],
        json_schema_extra=VOICE,
    )
    voice_concurrency: Annotated[int, Field(ge=1, le=1000)] = Field(
        50,
        description="turns of calls that one process works on at once",
        examples=["50"],
        json_schema_extra=VOICE,
    )
    recording_retention: Literal["keep", "none"] = Field(
        "keep",
        description="none: what callers said is deleted at the provider once it is transcribed",
        examples=["none"],
        json_schema_extra=TWILIO,
    )
    audio_retention_days: Annotated[float, Field(ge=1)] = Field(
        30.0,
        description="how long rendered speech is kept for sentences that come up again",
        examples=["30"],
        json_schema_extra=VOICE,
    )
    missed_call_reply: Annotated[str, AfterValidator(_missed_call_reply)] | None = Field(
        None,
        description="WhatsApp message to callers who reached nobody or left a message: a text, "
        "which reaches those who wrote within 24 hours, or a template's ContentSid; unset: none",
        examples=["HX0123456789abcdef0123456789abcdef"],
        json_schema_extra=VOICE,
    )

    @classmethod
    def cross_check(cls, values: Mapping[str, str]) -> Iterable[tuple[str, str]]:
        """Hours mean nothing without a time zone."""
        yield from super().cross_check(values)
        if values.get("voice_business_hours") and not values.get("voice_timezone"):
            yield "voice_timezone", "must be set along with VOICE_BUSINESS_HOURS"

    def call_rules(self, *, answers: bool) -> CallRules:
        """How calls are to go.

        Args:
            answers: Whether there is an assistant.
        """
        hours = None
        if self.voice_business_hours and self.voice_timezone:
            hours = BusinessHours.parse(self.voice_business_hours, time_zone(self.voice_timezone))
        return CallRules(
            language=self.voice_language,
            answers=answers,
            hours=hours,
            message_when_closed=self.voice_closed_voicemail,
            max_turns=self.voice_max_turns,
            max_length=timedelta(seconds=self.voice_max_call_seconds),
            transfer_to=self.voice_transfer_to,
            silence_seconds=self.voice_silence_seconds,
            dial_timeout_seconds=self.voice_transfer_timeout_seconds,
        )

    def own_phrases(self) -> dict[Phrase, str]:
        """What the business says in its own words."""
        own = {Phrase.GREETING: self.voice_greeting, Phrase.CLOSED: self.voice_closed_message}
        return {phrase: text for phrase, text in own.items() if text}
