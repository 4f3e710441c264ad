"""One call from ringing to its end: TwiML is fetched, played, and answered by the caller."""

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Any
from urllib.parse import urljoin

from sandbox.faults import FaultBoard
from sandbox.phone.audio import AudioCache
from sandbox.phone.call import Entry, Kind, PhoneCall
from sandbox.phone.line import HungUpError, Line
from sandbox.phone.recordings import Recordings
from sandbox.phone.scenario import Scenario, Turn
from sandbox.phone.twiml import TOO_MANY_REDIRECTS, TwimlError
from sandbox.phone.webhooks import Document, Webhooks

_RING_SECONDS = 1.0
_APPLICATION_ERROR = "We are sorry, an application error has occurred. Goodbye."
_APPLICATION_ERROR_SECONDS = 4.0
# So that the request is on its way when the caller hangs up.
_IMPATIENCE_SECONDS = 0.05
# Documents in a row of which nothing is heard: nobody would wait so long.
_MOST_SILENT = 10

Background = Callable[["asyncio.Future[Any]"], None]


class Session:
    """What the verbs of a call work on.

    Attributes:
        turn: How many turns the caller has had.
        ended_speaking: When the caller's last recording ended, until something is heard.
    """

    def __init__(
        self,
        call: PhoneCall,
        scenario: Scenario,
        line: Line,
        webhooks: Webhooks,
        audio: AudioCache,
        recordings: Recordings,
        faults: FaultBoard,
        now: Callable[[], datetime],
        background: Background,
    ) -> None:
        self.call = call
        self.scenario = scenario
        self.line = line
        self.webhooks = webhooks
        self.audio = audio
        self.recordings = recordings
        self.faults = faults
        self.now = now
        self.background = background
        self.turn = 0
        self.ended_speaking: float | None = None
        self.silent_documents = 0

    def note(self, kind: Kind, **fields: Any) -> Entry:
        """Put something on the timeline."""
        entry = Entry(ms=round(self.line.now * 1000), kind=kind, **fields)
        self.call.add(entry)
        return entry

    def heard(self, kind: Kind, **fields: Any) -> Entry:
        """Put a sound on the timeline; the first after the caller's words has its gap."""
        gap = None
        if self.ended_speaking is not None:
            gap = round((self.line.now - self.ended_speaking) * 1000)
            self.ended_speaking = None
        self.silent_documents = 0
        return self.note(kind, gap_ms=gap, **fields)

    def next_turn(self) -> Turn | None:
        """What the caller does now; None when they have nothing more to do and hang up."""
        number, self.turn = self.turn, self.turn + 1
        if number < len(self.scenario.turns):
            return self.scenario.turns[number]
        return Turn() if self.scenario.stays else None

    async def ring(self) -> None:
        """Let it ring."""
        self.note("ringing", text=self.call.caller)
        await self.line.pass_time(_RING_SECONDS)

    async def play_sound(self, seconds: float) -> None:
        """Let the caller hear something, to its end if they want to."""
        hang_up = self.scenario.hang_up
        if hang_up and hang_up.playing is not None and hang_up.playing <= self.turn:
            await self.line.pass_time(seconds / 2)
            self.hang_up("caller")
        await self.line.pass_time(seconds)

    def hang_up(self, who: str) -> None:
        """End the line.

        Raises:
            HungUpError: Always.
        """
        if not self.line.is_dead:
            self.note("hung_up", text=who)
        self.line.hang_up()
        raise HungUpError

    async def fetch(
        self, url: str, method: str = "POST", extra: dict[str, str] | None = None
    ) -> Document:
        """Ask the application what follows.

        Raises:
            TwimlError: It doesn't say, or not so that Twilio understands it.
            HungUpError: The caller didn't wait.
        """
        self.silent_documents += 1
        if self.silent_documents > _MOST_SILENT:
            raise TwimlError(TOO_MANY_REDIRECTS, f"nothing was heard of the last {_MOST_SILENT}")
        hang_up = self.scenario.hang_up
        impatient = hang_up is not None and hang_up.waiting == self.turn
        if impatient:
            self.line.hang_up_at = self.line.now + _IMPATIENCE_SECONDS
        parameters = self.webhooks.base(self.call) | (extra or {})
        started, status = self.line.now, None
        asked = self.webhooks.document(url, method, parameters)
        try:
            document, status = await self.line.ask(asked, self.background)
        finally:
            self.note("webhook", url=url, status=status, seconds=self.line.now - started)
        return document

    def resolve(self, document: Document, url: str) -> str:
        """An address as the document means it."""
        return urljoin(document.url, url)

    async def apologize(self, error: TwimlError) -> None:
        """Twilio's own words after something went wrong."""
        self.call.error_code = error.code
        self.note("error", code=error.code, text=str(error))
        self.heard("saying", text=_APPLICATION_ERROR, seconds=_APPLICATION_ERROR_SECONDS)
        await self.line.pass_time(_APPLICATION_ERROR_SECONDS)
