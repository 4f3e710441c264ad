"""The pretend telephone exchange: calls to our number, several at a time."""

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Any

from sandbox.callbacks import Courier
from sandbox.faults import CallStatuses, FaultBoard
from sandbox.phone.audio import AudioCache
from sandbox.phone.call import PhoneCall
from sandbox.phone.interpreter import converse
from sandbox.phone.line import HungUpError, Line
from sandbox.phone.recordings import Recordings
from sandbox.phone.scenario import Scenario
from sandbox.phone.session import Session
from sandbox.phone.twiml import TwimlError
from sandbox.phone.webhooks import Webhooks
from sandbox.settings import SandboxSettings
from sandbox.state import new_sid

logger = logging.getLogger(__name__)

# With the connection overrides that docs/operations.md asks for.
INCOMING_PATH = "/webhook/incoming_call#ct=2000&rc=2&rp=all"
STATUS_PATH = "/webhook/call_status#rc=3&rp=all"


class Exchange:
    """Makes calls, and keeps what happened in them."""

    def __init__(
        self,
        settings: SandboxSettings,
        faults: FaultBoard,
        courier: Courier,
        audio: AudioCache,
        recordings: Recordings,
        now: Callable[[], datetime],
    ) -> None:
        self._settings = settings
        self._faults = faults
        self._courier = courier
        self._audio = audio
        self._recordings = recordings
        self._now = now
        self._lines: dict[str, Line] = {}
        self._tasks: set[asyncio.Future[Any]] = set()
        self.calls: dict[str, PhoneCall] = {}

    def begin(self, scenario: Scenario) -> PhoneCall:
        """Call our number; the call goes on by itself."""
        call = PhoneCall(
            sid=new_sid("CA"),
            caller=scenario.caller,
            called=self._settings.called_number,
            created_at=self._now(),
        )
        self.calls[call.sid] = call
        line = self._lines[call.sid] = Line(scenario.speed)
        webhooks = Webhooks(
            self._courier, self._faults, self._settings.account_sid, scenario.forwarded_from
        )
        session = Session(
            call=call,
            scenario=scenario,
            line=line,
            webhooks=webhooks,
            audio=self._audio,
            recordings=self._recordings,
            faults=self._faults,
            now=self._now,
            background=self._keep,
        )
        self._keep(asyncio.create_task(self._live(session)))
        return call

    def end(self, call: PhoneCall) -> None:
        """The caller hangs up, now."""
        self._lines[call.sid].hang_up()

    async def settled(self) -> None:
        """Wait until every call has ended and every callback was answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Drop all calls and whatever was still to happen."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self.calls.clear()
        self._lines.clear()
        self._audio.clear()
        self._recordings.clear()

    async def _live(self, session: Session) -> None:
        call, line = session.call, session.line
        answered = line.now
        try:
            await session.ring()
            answered = line.now
            hang_up = session.scenario.hang_up
            if hang_up and hang_up.after_seconds is not None:
                line.hang_up_at = answered + hang_up.after_seconds
            try:
                await converse(session, self._settings.signed_origin + INCOMING_PATH)
            except TwimlError as error:
                await session.apologize(error)
        except HungUpError:
            if not any(entry.kind == "hung_up" for entry in call.timeline):
                session.note("hung_up", text="caller")
        if call.status in ("ringing", "in-progress"):
            call.status = "completed"
        call.seconds = round(line.now - answered, 3)
        fault = self._faults.strike(self._faults.now.call_statuses) or CallStatuses()
        session.note("ended", status=call.status, seconds=call.seconds)
        await self._report(session, fault)

    async def _report(self, session: Session, fault: CallStatuses) -> None:
        """Tell how the call stands, as Twilio tells it of calls that come in: at their end."""
        url = self._settings.signed_origin + STATUS_PATH
        numbers = {"ringing": 0, "in-progress": 1}
        for name in fault.order:
            status = session.call.status if name == "completed" else name
            parameters = session.webhooks.status(
                session.call, status, numbers.get(name, 2), self._now()
            )
            told = await session.webhooks.tell(url, parameters, fault.copies)
            session.note("status_callback", text=status, status=told[-1].response_status)

    def _keep(self, task: "asyncio.Future[Any]") -> None:
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: "asyncio.Future[Any]") -> None:
        self._tasks.discard(task)
        if task.cancelled():
            return
        error = task.exception()
        if error is not None and not isinstance(error, TwimlError):
            logger.error("A call ended in an error", exc_info=error)
