"""Putting together what answers messages; only `__main__` does so."""

import contextlib
from datetime import timedelta

import structlog

from services.common.lifecycle import Loop
from services.common.tracing import Tracing
from services.messaging.assistant.openai_assistant import OpenAIAssistant
from services.messaging.ports.clock import Clock
from services.messaging.sending_wiring import Sending
from services.messaging.settings import MessagingSettings
from services.messaging.store.database import Database
from services.messaging.store.replies import SqlReplyStore
from services.messaging.usecases.policy import SendPolicy
from services.messaging.usecases.receive import ReplyPolicy
from services.messaging.usecases.reply import Replies
from services.messaging.usecases.vendors import NotedAssistant, VendorRecord

log = structlog.get_logger(__name__)


def reply_policy(settings: MessagingSettings) -> ReplyPolicy | None:
    """When messages are answered; None where nobody does but a person."""
    if settings.openai_api_key is None:
        return None
    return ReplyPolicy(
        pause=timedelta(seconds=settings.assistant_pause_seconds),
        max_wait=timedelta(seconds=settings.assistant_max_wait_seconds),
        max_age=timedelta(seconds=settings.assistant_max_message_age_seconds),
    )


def wire_assistant(
    settings: MessagingSettings,
    *,
    database: Database,
    policy: SendPolicy,
    sending: Sending,
    record: VendorRecord,
    closing: contextlib.AsyncExitStack,
    clock: Clock,
    tracing: Tracing,
) -> list[Loop]:
    """What is to be run for the assistant: nothing without a key.

    Args:
        record: Notes how the vendor does.
        closing: Closes the connections to it at the end.
    """
    if settings.openai_api_key is None:
        log.info("no OPENAI_API_KEY: messages are stored and wait for a person")
        return []
    assistant = OpenAIAssistant(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url,
        model=settings.openai_model,
        prompt=settings.assistant_prompt,
        timeout_seconds=settings.openai_timeout_seconds,
    )
    closing.push_async_callback(assistant.close)
    replies = Replies(
        SqlReplyStore(database, clock, policy),
        NotedAssistant(assistant, record),
        provider=settings.providers()[0],
        clock=clock,
        on_queued=sending.on_queued,
        context_messages=settings.assistant_context_messages,
        lease=timedelta(seconds=settings.openai_timeout_seconds + 30),
        tracing=tracing,
    )
    return [replies.run]
