"""A pretend call, and everything that happens in it."""

import asyncio
from datetime import datetime
from typing import Literal

from pydantic import BaseModel, Field, PrivateAttr

CallStatus = Literal["ringing", "in-progress", "completed", "busy", "no-answer"]

Kind = Literal[
    "ringing",
    "webhook",
    "playing",
    "saying",
    "pausing",
    "beep",
    "speaking",
    "silent",
    "pressing",
    "recorded",
    "recording_callback",
    "dialing",
    "dialed",
    "redirected",
    "error",
    "hung_up",
    "status_callback",
    "ended",
]


class Entry(BaseModel):
    """One thing that happened.

    Attributes:
        ms: Since the call began, as if all that is heard and said had taken its time.
        text: The words that were heard or said, or what went wrong.
        url: What was asked or played.
        status: What was answered, or how it ended; None when there was no answer, or none needed.
        seconds: How long it takes; of a request, which is noted when it is over, how long it took.
        gap_ms: For the first sound after the caller spoke: since the recording's end.
        code: Twilio's error code.
    """

    ms: int
    kind: Kind
    text: str | None = None
    url: str | None = None
    status: int | str | None = None
    seconds: float | None = None
    gap_ms: int | None = None
    code: int | None = None
    sid: str | None = None


class PhoneCall(BaseModel):
    """A call as Twilio holds it."""

    sid: str
    caller: str
    called: str
    created_at: datetime
    status: CallStatus = "ringing"
    seconds: float | None = Field(None, description="From answer to end.")
    error_code: int | None = Field(None, description="Of an application error, if one was heard.")
    timeline: list[Entry] = []

    _news: asyncio.Event = PrivateAttr(default_factory=asyncio.Event)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen, callbacks aside."""
        return any(entry.kind == "ended" for entry in self.timeline)

    def add(self, entry: Entry) -> None:
        """Note what happened, and tell who waits for it."""
        self.timeline.append(entry)
        self._news.set()
        self._news = asyncio.Event()

    async def after(self, count: int, seconds: float) -> list[Entry]:
        """Entries from number `count`; waits for one, unless the call has ended."""
        try:
            async with asyncio.timeout(seconds):
                while len(self.timeline) <= count and not self.has_ended:
                    await self._news.wait()
        except TimeoutError:
            pass
        return self.timeline[count:]
