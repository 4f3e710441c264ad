"""Answering contacts: one answer to each burst of messages, and at most one to any message."""

import asyncio
import contextlib
import random
from collections.abc import Callable, Sequence
from datetime import timedelta

import structlog

from services.common.errors import InvalidInputError, UnavailableError
from services.common.tracing import NoTracing, Tracing, current
from services.messaging.domain.message import Author
from services.messaging.ports.answering import Assistant, ReplyStore, ReplyTask
from services.messaging.ports.clock import Clock
from services.messaging.ports.sending import NewMessage
from services.messaging.usecases.background import claimed, drained, take_due

log = structlog.get_logger(__name__)

_FIRST_RETRY_SECONDS = 5.0
_MAX_RETRY_SECONDS = 300.0


class Replies:
    """Takes conversations that wait for an answer and puts the answer into the outbox.

    Args:
        on_queued: Called when there is something new to send.
        pause: What is stored is due after this.
        lease: How long writing an answer may take; afterwards another process may.
        max_attempts: After so many failures a person has to answer.
        max_answers: So many in an hour are written to one contact, sent or not, be it a person or
            another program that answers whatever it is sent; then a person has to answer.
    """

    def __init__(
        self,
        store: ReplyStore,
        assistant: Assistant,
        *,
        provider: str,
        clock: Clock,
        on_queued: Callable[[], None],
        context_messages: int,
        lease: timedelta,
        pause: timedelta = timedelta(),
        max_attempts: int = 8,
        max_answers: int = 60,
        concurrency: int = 32,
        poll_seconds: float = 0.5,
        tracing: Tracing | None = None,
    ) -> None:
        self._tracing = tracing or NoTracing()
        self._store = store
        self._assistant = assistant
        self._provider = provider
        self._clock = clock
        self._on_queued = on_queued
        self._context_messages = context_messages
        self._lease = lease
        self._pause_seconds = pause.total_seconds()
        self._max_attempts = max_attempts
        self._max_answers = max_answers
        self._concurrency = concurrency
        self._poll_seconds = poll_seconds
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """A message was stored: look once it is due. One that is due earlier waits for a poll."""
        asyncio.get_running_loop().call_later(self._pause_seconds, self._woken.set)

    async def run(self) -> None:
        """Answer for ever. When cancelled, what is half done is given back at once."""
        await take_due(
            self._due,
            self._take,
            concurrency=self._concurrency,
            poll_seconds=self._poll_seconds,
            woken=self._woken,
        )

    async def _due(self, limit: int) -> Sequence[ReplyTask]:
        claim = self._store.claim_replies(
            limit=limit,
            lease=self._lease,
            context=self._context_messages,
            max_answers=self._max_answers,
        )
        try:
            return await claimed(claim, self._give_back)
        except UnavailableError:
            log.warning("replies wait for the database")
            return ()

    async def _give_back(self, tasks: Sequence[ReplyTask]) -> None:
        for task in tasks:
            await self._store.give_back(task, self._clock())

    async def _take(self, task: ReplyTask) -> None:
        with self._tracing.span("answer", parent=task.traceparent):
            await self._answer(task)

    async def _answer(self, task: ReplyTask) -> None:
        try:
            text = await self._written(task)
        except asyncio.CancelledError:
            await self._store.give_back(task, self._clock())
            raise
        try:
            await drained(self._settle(task, text))
        except UnavailableError:
            log.warning("a reply could not be stored; it is made again when its lease ends")
        except Exception:
            log.exception("a reply could not be stored in an unforeseen way")
            # Not for ever: each time the model is asked again.
            with contextlib.suppress(UnavailableError):
                await drained(self._later(task))

    async def _written(self, task: ReplyTask) -> str | None:
        """The answer; "" for none, None when it has to be tried again."""
        if task.too_many:
            log.warning("a contact gets no more answers this hour; the message waits for a person")
            return ""
        try:
            return await self._assistant.answer(task.turns)
        except InvalidInputError:
            return ""
        except UnavailableError:
            return None
        except Exception:
            log.exception("the assistant failed in an unforeseen way")
            return None

    async def _settle(self, task: ReplyTask, text: str | None) -> None:
        if text is None:
            await self._later(task)
        elif not text:
            await self._store.drop(task)
        else:
            answer = NewMessage(
                recipient=task.recipient,
                contact_address=task.contact_address,
                own_address=task.own_address,
                provider=self._provider,
                author=Author.ASSISTANT,
                body=text,
                traceparent=current(),
            )
            message = await self._store.answer(task, answer)
            if message is not None:
                log.info("answered", message_id=message.id)
                self._on_queued()

    async def _later(self, task: ReplyTask) -> None:
        if task.attempt >= self._max_attempts:
            log.error("no answer after several attempts; the message waits for a person")
            await self._store.drop(task)
            return
        pause = min(_FIRST_RETRY_SECONDS * 2 ** (task.attempt - 1), _MAX_RETRY_SECONDS)
        # Replicas whose assistant failed at the same moment should not return together.
        pause *= random.uniform(0.75, 1.25)  # noqa: S311 - Spreading load needs no secrecy.
        await self._store.give_back(task, self._clock() + timedelta(seconds=pause))
