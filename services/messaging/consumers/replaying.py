"""A part of the journal once more, without acknowledging anything.

Two streams are read as one, in the order in which events came to them: what webhooks brought, and
what messaging did. Nothing depends on that order being exact but how much counts as unread. The ids
of conversations come first of all.
"""

import asyncio
import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from services.common.journal.events import EventKind
from services.common.journal.reading import count_events, in_order, read_events, sequence_at
from services.common.journal.streams import ACTS_STREAM, INGEST_STREAM
from services.messaging.consumers.act_events import decode_act
from services.messaging.consumers.decoding import PoisonError, Translator, decode
from services.messaging.consumers.replay_groups import Content, in_groups
from services.messaging.consumers.replay_progress import ReplayProgress
from services.messaging.consumers.replay_storing import ReplayStoring
from services.messaging.consumers.voice_decoding import VoiceTranslator, decode_voice
from services.messaging.ports.acts import Opened

ACT: Final = "act"
"""The kind of what messaging did, beside the kinds of webhooks."""

_VOICE: Final = "ingest.voice."
_OPENED: Final = EventKind.CONVERSATION_OPENED.subject

CALL: Final = "call"
"""The kind of all that webhooks brought about calls."""


@dataclass(frozen=True, slots=True)
class _Part:
    """A part of a stream."""

    stream: str
    subject: str | None
    first: int
    last: int


class Replay:
    """Reads a part of the journal and has it stored.

    Args:
        translators: By the name of the provider.
        voice_translators: Likewise, of events of calls.
        progress: Kept up to date.
    """

    def __init__(
        self,
        js: JetStreamContext,
        storing: ReplayStoring,
        translators: Mapping[str, Translator],
        *,
        voice_translators: Mapping[str, VoiceTranslator],
        progress: ReplayProgress,
        batch_size: int = 500,
    ) -> None:
        self._js = js
        self._storing = storing
        self._translators = translators
        self._voice_translators = voice_translators
        self._progress = progress
        self._batch_size = batch_size
        self._opened_before: datetime | None = None

    async def run(
        self,
        *,
        since: datetime,
        until: datetime | None,
        kind: str | None,
        stop: asyncio.Event,
    ) -> None:
        """Replay what came into the journal from `since` on, and, if given, before `until`.

        Without `until` it ends where the journal ends now. When `stop` is set, it ends after
        the batch in hand.

        Args:
            kind: "act", "call", or of webhooks about messages the last part of the subject:
                "message" or "status"; None for all.

        Raises:
            UnavailableError: The journal or the database doesn't answer for minutes.
            nats.errors.Error: The journal doesn't answer at the beginning.
        """
        parts = []
        if kind != ACT:
            parts.append(await self._part(INGEST_STREAM, _subject(kind), since, until))
        if kind in (None, ACT):
            # Older journals don't have it.
            with contextlib.suppress(NotFoundError):
                acts = await self._part(ACTS_STREAM, None, since, until)
                # Otherwise the first event of a conversation would give it another id. These come
                # to the journal a little later than what began the conversation.
                last = (await self._js.stream_info(ACTS_STREAM)).state.last_seq
                self._opened_before = until
                if not await self._read([replace(acts, subject=_OPENED, last=last)], stop):
                    return
                parts.append(acts)
        if await self._read(parts, stop) and await self._storing.adopt_orphans(stop):
            self._progress.complete = True

    async def _part(
        self, stream: str, subject: str | None, since: datetime, until: datetime | None
    ) -> _Part:
        first = await sequence_at(self._js, stream, since)
        last = (await self._js.stream_info(stream)).state.last_seq
        if until is not None:
            last = min(last, await sequence_at(self._js, stream, until) - 1)
        self._progress.total += await count_events(
            self._js, stream, first=first, last=last, subject=subject
        )
        return _Part(stream, subject, first, last)

    async def _read(self, parts: Sequence[_Part], stop: asyncio.Event) -> bool:
        """Whether all was read; it wasn't when stopped."""
        first_of_all = all(part.subject == _OPENED for part in parts)
        async with contextlib.AsyncExitStack() as closing:
            readings = [
                await closing.enter_async_context(
                    contextlib.aclosing(
                        read_events(
                            self._js,
                            part.stream,
                            first=part.first,
                            last=part.last,
                            subject=part.subject,
                            batch_size=self._batch_size,
                        )
                    )
                )
                for part in parts
            ]
            batches = await closing.enter_async_context(contextlib.aclosing(in_order(*readings)))
            async for batch in batches:
                if stop.is_set() or not await self._take(batch, stop, first_of_all):
                    return False
        return not stop.is_set()

    async def _take(self, batch: Sequence[Msg], stop: asyncio.Event, first_of_all: bool) -> bool:
        """Whether a batch was taken in; it wasn't when stopped while waiting for the database."""
        events: list[tuple[Msg, Content]] = []
        for message in batch:
            if message.subject == _OPENED and not first_of_all:
                continue
            try:
                content = self._decode(message)
            except PoisonError as error:
                self._storing.skip(message, str(error))
                continue
            if not self._is_later(content):
                events.append((message, content))
        for together in in_groups(events):
            if not await self._storing.store(together, stop):
                return False
        if first_of_all:
            # These are met again, and counted, in their place.
            return True
        self._progress.read += len(batch)
        self._progress.oldest = self._progress.oldest or batch[0].metadata.timestamp
        self._progress.position = batch[-1].metadata.timestamp
        return True

    def _is_later(self, content: Content) -> bool:
        """Whether a conversation was begun after the time that is replayed."""
        return (
            isinstance(content, Opened)
            and self._opened_before is not None
            and content.at >= self._opened_before
        )

    def _decode(self, message: Msg) -> Content:
        if message.metadata.stream == ACTS_STREAM:
            return decode_act(message.headers, message.data)
        if message.subject.startswith(_VOICE):
            return decode_voice(message.headers, message.data, self._voice_translators)
        return decode(message.headers, message.data, self._translators)


def _subject(kind: str | None) -> str | None:
    """Of webhooks; None for all of them."""
    if kind == CALL:
        return f"{_VOICE}>"
    return None if kind is None else f"ingest.whatsapp.{kind}"
