"""Putting together what answers messages; only `__main__` does so."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta

import structlog

from services.common.lifecycle import Loop
from services.common.tracing import Tracing
from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import ProviderStatus
from services.messaging.sending_wiring import Sending
from services.messaging.settings import MessagingSettings
from services.messaging.store.database import Database
from services.messaging.store.replies import SqlReplyStore
from services.messaging.usecases.policy import SendPolicy
from services.messaging.usecases.receive import ReplyPolicy
from services.messaging.usecases.reply import Replies
from services.messaging.usecases.vendors import NotedAssistant, VendorRecord

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Answering:
    """What messaging runs to answer messages.

    Attributes:
        policy: When a message is answered.
        on_stored: To be called when messages were stored.
        vendor: How the one does who writes the answers.
        loops: Endless; each is to be run.
    """

    policy: ReplyPolicy
    on_stored: Callable[[], None]
    vendor: Callable[[], ProviderStatus]
    loops: Sequence[Loop]


def wire_assistant(
    settings: MessagingSettings,
    *,
    database: Database,
    policy: SendPolicy,
    sending: Sending,
    closing: contextlib.AsyncExitStack,
    clock: Clock,
    tracing: Tracing,
) -> Answering | None:
    """The assistant; None where nobody answers but a person.

    Args:
        closing: Closes the connections to the vendor at the end.
    """
    if settings.openai_api_key is None:
        log.info("no OPENAI_API_KEY: messages are stored and wait for a person")
        return None
    # Here: the SDK takes a quarter of this process's memory.
    from services.messaging.assistant.openai_assistant import OpenAIAssistant

    assistant = OpenAIAssistant(
        api_key=settings.openai_api_key.get_secret_value(),
        base_url=settings.openai_base_url,
        model=settings.openai_model,
        prompt=settings.assistant_prompt,
        timeout_seconds=settings.openai_timeout_seconds,
    )
    closing.push_async_callback(assistant.close)
    record = VendorRecord("assistant", clock)
    when = ReplyPolicy(
        pause=timedelta(seconds=settings.assistant_pause_seconds),
        max_wait=timedelta(seconds=settings.assistant_max_wait_seconds),
        max_age=timedelta(seconds=settings.assistant_max_message_age_seconds),
    )
    replies = Replies(
        SqlReplyStore(database, clock, policy),
        NotedAssistant(assistant, record),
        provider=settings.providers()[0],
        clock=clock,
        on_queued=sending.on_queued,
        context_messages=settings.assistant_context_messages,
        max_answers=settings.assistant_max_answers_per_hour,
        lease=timedelta(seconds=settings.openai_timeout_seconds + 30),
        pause=when.pause,
        tracing=tracing,
    )
    return Answering(when, replies.wake, record.status, [replies.run])
