"""The part of messaging's environment that is about recordings and speech vendors."""

import json
from typing import Annotated, Final

from pydantic import AfterValidator, Field, SecretStr

from services.common.settings import CommonSettings, split_list
from services.messaging.domain.language import LANGUAGES
from services.messaging.setting_types import (
    GOOGLE,
    OPENAI,
    TWILIO,
    VOICE,
    ApiUrl,
    Seconds,
    secure_or_local,
)

_ACCOUNT_FIELDS: Final = ("client_email", "private_key", "token_uri")


def _service_account(value: SecretStr) -> SecretStr:
    try:
        document = json.loads(value.get_secret_value())
    except ValueError:
        # The decoder's words would show the text.
        raise ValueError("must be the service account's JSON on one line") from None
    if not isinstance(document, dict) or document.get("type") != "service_account":
        raise ValueError("must be the JSON of a service account (type: service_account)")
    for name in _ACCOUNT_FIELDS:
        if not isinstance(document.get(name), str):
            raise ValueError(  # noqa: TRY004 - Settings' validators raise ValueError.
                f"must be a service account's whole JSON: {name} is missing"
            )
    if "PRIVATE KEY" not in document["private_key"]:
        raise ValueError("must hold the private key as Google gave it, in PEM")
    try:
        secure_or_local(document["token_uri"])
    except ValueError as error:
        raise ValueError(f"token_uri {error}") from None
    return value


def _voice_names(value: str) -> str:
    voice_names(value)
    return value


def voice_names(value: str) -> dict[str, str]:
    """Names of voices by language, from "he-IL=he-IL-Wavenet-C,en-US=en-US-Neural2-F".

    Raises:
        ValueError: A part of it is malformed.
    """
    names: dict[str, str] = {}
    for part in split_list(value):
        language, _, name = (word.strip() for word in part.partition("="))
        if language not in LANGUAGES or not name:
            raise ValueError(
                "must be pairs such as he-IL=he-IL-Wavenet-C, separated by commas; the languages "
                f"are {', '.join(LANGUAGES)}"
            )
        names[language] = name
    return names


class SpeechSettings(CommonSettings):
    """What messaging can be told about recordings and speech vendors."""

    recording_max_bytes: Annotated[int, Field(ge=1024)] = Field(
        10 * 1024**2,
        description="a larger recording is not fetched; a minute has 960 kB",
        examples=["10485760"],
        json_schema_extra=TWILIO,
    )
    recording_timeout_seconds: Seconds = Field(
        10.0,
        description="how long fetching a recording may take, the wait for it included",
        examples=["10"],
        json_schema_extra=TWILIO,
    )

    openai_transcribe_model: str = Field(
        "gpt-transcribe",
        description="model that understands what callers say",
        examples=["gpt-transcribe"],
        json_schema_extra=OPENAI,
    )
    openai_transcribe_timeout_seconds: Seconds = Field(
        8.0,
        description="how long transcribing one recording may take",
        examples=["8"],
        json_schema_extra=OPENAI,
    )
    openai_speech_base_url: ApiUrl | None = Field(
        None,
        description="a server of its own for speech, with OpenAI's API; unset for OPENAI_BASE_URL",
        examples=["http://127.0.0.1:8880/v1"],
        json_schema_extra=OPENAI,
    )
    openai_speech_api_key: SecretStr | None = Field(
        None,
        description="key for OPENAI_SPEECH_BASE_URL, where it wants one; OPENAI_API_KEY is never "
        "shown to it",
        examples=["sk-..."],
        json_schema_extra=OPENAI,
    )
    openai_speech_model: str = Field(
        "gpt-4o-mini-tts",
        description="model that speaks where Google can't",
        examples=["gpt-4o-mini-tts"],
        json_schema_extra=OPENAI,
    )
    openai_speech_voice: str = Field(
        "marin",
        description="voice of that model",
        examples=["marin"],
        json_schema_extra=OPENAI,
    )
    google_tts_sa_json: Annotated[SecretStr, AfterValidator(_service_account)] | None = Field(
        None,
        description="Google service account for spoken answers, as JSON; without it OpenAI speaks",
        examples=[
            (
                '{"type":"service_account","client_email":"...","private_key":"-----BEGIN PRIVATE '
                'KEY-----...","token_uri":"https://oauth2.googleapis.com/token"}'
            )
        ],
        json_schema_extra=GOOGLE,
    )
    google_tts_api_base_url: ApiUrl = Field(
        "https://texttospeech.googleapis.com",
        description="where Google's Text-to-Speech is; another value is for a region or the "
        "sandbox",
        examples=["https://eu-texttospeech.googleapis.com"],
        json_schema_extra=GOOGLE,
    )
    google_tts_voices: Annotated[str, AfterValidator(_voice_names)] = Field(
        "",
        description="voices by language; Google chooses for languages without",
        examples=["he-IL=he-IL-Wavenet-C,en-US=en-US-Neural2-F"],
        json_schema_extra=GOOGLE,
    )
    google_tts_speaking_rate: Annotated[float, Field(ge=0.25, le=2)] = Field(
        1.0,
        description="how fast Google speaks; 1 is the voice's normal pace",
        examples=["1.0"],
        json_schema_extra=GOOGLE,
    )
    speech_timeout_seconds: Seconds = Field(
        5.0,
        description="how long a vendor may take to speak one sentence before the next is asked",
        examples=["5"],
        json_schema_extra=VOICE,
    )
