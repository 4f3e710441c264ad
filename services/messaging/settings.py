"""The environment that messaging reads."""

from typing import Annotated

import phonenumbers
from pydantic import AfterValidator, Field, SecretStr

from services.common.settings import HttpOrigin
from services.messaging.setting_types import OPENAI, ApiUrl, Seconds
from services.messaging.store.database import database_url
from services.messaging.voice_settings import VoiceSettings
from services.messaging.whatsapp_settings import WhatsAppSettings


def _database_url(value: SecretStr) -> SecretStr:
    database_url(value.get_secret_value(), asynchronous=True)
    return value


def _region(value: str) -> str:
    region = value.upper()
    if region not in phonenumbers.SUPPORTED_REGIONS:
        raise ValueError("must be a country's two letters, such as IL")
    return region


class MessagingSettings(WhatsAppSettings, VoiceSettings):
    """Everything that messaging can be told."""

    public_host: HttpOrigin = Field(
        description="origin at which Twilio reaches the webhooks; status callbacks are asked there",
        examples=["https://switchboard.example.com"],
    )
    database_url: Annotated[SecretStr, AfterValidator(_database_url)] = Field(
        description="where messages are kept: PostgreSQL, or SQLite for one machine",
        examples=["postgresql://switchboard:secret@localhost/switchboard"],
    )
    nats_url: SecretStr = Field(
        description="NATS server with JetStream; several addresses separated by commas",
        examples=["nats://token@127.0.0.1:4222"],
    )
    grpc_token: SecretStr = Field(
        description="token that gRPC callers must show; several, separated by commas, to rotate",
        examples=["a-long-random-string"],
    )
    messaging_grpc_bind: str = Field(
        "127.0.0.1:50051",
        description="address the gRPC server listens on",
        examples=["0.0.0.0:50051"],
    )

    default_region: Annotated[str, AfterValidator(_region)] | None = Field(
        None,
        description="country whose phone numbers callers may write without its code, as ISO 3166",
        examples=["IL"],
    )
    openai_api_key: SecretStr | None = Field(
        None,
        description="switches the assistant on; without it messages wait for a person",
        examples=["sk-..."],
        json_schema_extra=OPENAI,
    )
    openai_base_url: ApiUrl = Field(
        "https://api.openai.com/v1",
        description="OpenAI, or a server with the same API",
        examples=["https://api.openai.com/v1"],
        json_schema_extra=OPENAI,
    )
    openai_model: str = Field(
        "gpt-6-luna",
        description="model that writes the answers",
        examples=["gpt-6-luna"],
        json_schema_extra=OPENAI,
    )
    openai_timeout_seconds: Seconds = Field(
        30.0,
        description="how long one answer may take to write",
        examples=["30"],
        json_schema_extra=OPENAI,
    )
    assistant_prompt: str = Field(
        "You answer messages for a business on WhatsApp. Be friendly, brief and honest; when you "
        "don't know something, say that a colleague will get back.",
        description="who the assistant is, what it knows and how it should answer",
        examples=["You answer for Example Estates, an estate agent in Haifa."],
        json_schema_extra=OPENAI,
    )
    assistant_context_messages: Annotated[int, Field(ge=1, le=200)] = Field(
        20,
        description="how many of the last messages the assistant is shown",
        examples=["20"],
        json_schema_extra=OPENAI,
    )
    assistant_max_answers_per_hour: Annotated[int, Field(ge=1, le=3600)] = Field(
        60,
        description="answers written to one contact in an hour, sent or thrown away; then messages "
        "wait for a person",
        examples=["60"],
        json_schema_extra=OPENAI,
    )
    assistant_max_message_age_seconds: Seconds = Field(
        900.0,
        description="a message that reaches us later than this is not answered automatically",
        examples=["900"],
        json_schema_extra=OPENAI,
    )
    assistant_pause_seconds: Annotated[float, Field(ge=0)] = Field(
        2.0,
        description="silence to wait for before answering, so that a burst gets one answer",
        examples=["2"],
        json_schema_extra=OPENAI,
    )
    assistant_max_wait_seconds: Seconds = Field(
        15.0,
        description="however long a burst goes on, it is answered after this",
        examples=["15"],
        json_schema_extra=OPENAI,
    )
    opt_out_words: str = Field(
        "",
        description="words beyond the built-in English and Hebrew ones that stop messages",
        examples=["BASTA,ARRET"],
    )
    opt_in_words: str = Field(
        "",
        description="words beyond the built-in English and Hebrew ones that allow messages again",
        examples=["WEITER"],
    )
    database_pool_size: Annotated[int, Field(ge=1, le=200)] = Field(
        10, description="database connections kept open", examples=["10"]
    )
    database_max_overflow: Annotated[int, Field(ge=0, le=200)] = Field(
        5, description="connections opened beyond the pool under load", examples=["5"]
    )
    database_pool_timeout_seconds: Seconds = Field(
        5.0, description="how long to wait for a free connection", examples=["5"]
    )
    slow_query_ms: Annotated[int, Field(ge=0)] = Field(
        200, description="queries slower than this are logged, without parameters", examples=["200"]
    )
    jetstream_replicas: Annotated[int, Field(ge=1, le=5)] = Field(
        1, description="copies of the journal; 3 in a cluster of three", examples=["1"]
    )
    journal_max_bytes: Annotated[int, Field(ge=1024 * 1024)] = Field(
        10 * 1024**3,
        description="size at which the journal refuses more events",
        examples=["10737418240"],
    )
    journal_retention_days: Annotated[float, Field(gt=0)] = Field(
        30.0,
        description="age at which events that were handled leave the journal; how far a replay "
        "can go back",
        examples=["30"],
    )
    sender_messages_per_second: Annotated[float, Field(gt=0, le=10_000)] = Field(
        80.0,
        description="messages that go out a second, in all; the default is WhatsApp's own for a "
        "number, each further replica of messaging adds as many",
        examples=["80"],
    )
    recipient_seconds_between_messages: Annotated[float, Field(ge=0, le=3600)] = Field(
        6.0,
        description="messages to one contact go out this far apart on average; 0 for no pace",
        examples=["6"],
    )
    recipient_burst_messages: Annotated[int, Field(ge=1, le=1000)] = Field(
        10,
        description="messages that one contact may get at once after a silence",
        examples=["10"],
    )
    recipient_max_waiting: Annotated[int, Field(ge=1, le=100_000)] = Field(
        100,
        description="messages that may wait for one contact; more are refused",
        examples=["100"],
    )
    send_concurrency: Annotated[int, Field(ge=1, le=256)] = Field(
        16, description="messages being handed to the provider at once", examples=["16"]
    )
    media_look_timeout_seconds: Annotated[float, Field(gt=0, le=6)] = Field(
        4.0,
        description="how long the host of a file that is to be sent may take to say its type and "
        "size; below the 8 seconds that the REST API waits",
        examples=["4"],
    )
    lost_webhook_interval_seconds: Seconds = Field(
        300.0,
        description="how often the provider's list is compared with what is stored, to find events "
        "whose webhooks were lost",
        examples=["300"],
    )
    lost_webhook_lookback_seconds: Seconds = Field(
        86400.0,
        description="how far each of these comparisons reaches back",
        examples=["86400"],
    )
    parked_status_retention_days: Annotated[float, Field(gt=0)] = Field(
        7.0,
        description="how long a status is kept that belongs to no message of ours",
        examples=["7"],
    )
    send_unknown_grace_seconds: Seconds = Field(
        120.0,
        description="how long a send without an answer is looked for until the provider's list is "
        "believed when it doesn't show the message",
        examples=["120"],
    )
    send_max_age_seconds: Seconds = Field(
        21600.0,
        description="a message that could not be sent for so long fails as expired or gave_up: "
        "after a long breakdown contacts don't get as new what is old",
        examples=["21600"],
    )
