"""What becomes of a message after Twilio accepted it."""

import asyncio
import logging
from collections.abc import Coroutine
from dataclasses import dataclass
from datetime import timedelta

from sandbox.callbacks import Courier
from sandbox.faults import FailedMessages, FaultBoard
from sandbox.settings import SandboxSettings
from sandbox.state import Message, SandboxState, Status, StatusChange
from sandbox.twilio_errors import API_VERSION, describe

logger = logging.getLogger(__name__)

_WINDOW = timedelta(hours=24)
_OUTSIDE_WINDOW = 63016


@dataclass(frozen=True)
class _Step:
    after: float
    status: Status
    error_code: int | None = None


class Lives:
    """Moves messages from sent to read, and tells the application by callbacks."""

    def __init__(
        self,
        settings: SandboxSettings,
        state: SandboxState,
        faults: FaultBoard,
        courier: Courier,
    ) -> None:
        self._settings = settings
        self._state = state
        self._faults = faults
        self._courier = courier
        self._tasks: set[asyncio.Task[None]] = set()

    async def begin(self, message: Message) -> None:
        """Start a message's life; returns when its early callbacks, if any, were answered."""
        strike, now = self._faults.strike, self._faults.now
        steps = self._steps(message)
        silent = strike(now.no_callbacks) is not None or message.status_callback is None
        duplicates = strike(now.duplicate_callbacks)
        copies = 0 if silent else duplicates.copies if duplicates else 1
        reordered = strike(now.reordered_callbacks)
        early = strike(now.early_callbacks)
        if early:
            for step in [step for step in steps if step.status in early.statuses]:
                steps.remove(step)
                await self._call_back(message, self._reach(message, step), copies)
        if reordered:
            order = reordered.order or [step.status for step in reversed(steps)]
            self._spawn(self._live_reordered(message, steps, copies, order))
        else:
            self._spawn(self._live(message, steps, copies))

    async def force(
        self, message: Message, statuses: list[Status], error_code: int | None, copies: int
    ) -> list[StatusChange]:
        """Make these callbacks now, one after the other, whatever the faults say."""
        changes = []
        for status in statuses:
            change = message.reach(status, self._state.now(), error_code)
            await self._call_back(message, change, copies)
            changes.append(change)
        return changes

    async def settled(self) -> None:
        """Wait until every message has come to its end and every callback was answered."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    async def cancel(self) -> None:
        """Drop whatever was still to happen."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _steps(self, message: Message) -> list[_Step]:
        settings = self._settings
        failure = self._faults.strike(self._faults.now.failed_messages)
        if failure is None and settings.enforce_window and not self._may_write(message):
            failure = FailedMessages(error_code=_OUTSIDE_WINDOW)
        if failure is None:
            return [
                _Step(settings.sent_after, "sent"),
                _Step(settings.delivered_after, "delivered"),
                _Step(settings.read_after, "read"),
            ]
        if failure.status == "failed":
            return [_Step(settings.sent_after, "failed", failure.error_code)]
        return [
            _Step(settings.sent_after, "sent"),
            _Step(settings.delivered_after, "undelivered", failure.error_code),
        ]

    def _may_write(self, message: Message) -> bool:
        if message.content_sid is not None:
            return True
        heard = self._state.last_heard_from(message.contact)
        return heard is not None and self._state.now() - heard <= _WINDOW

    async def _live(self, message: Message, steps: list[_Step], copies: int) -> None:
        started = asyncio.get_running_loop().time()
        for step in steps:
            await self._sleep_until(started + step.after)
            change = self._reach(message, step)
            # Not awaited: a slow answer to one callback doesn't hold up the next.
            self._spawn(self._call_back(message, change, copies))

    async def _live_reordered(
        self, message: Message, steps: list[_Step], copies: int, order: list[Status]
    ) -> None:
        started = asyncio.get_running_loop().time()
        changes = []
        for step in steps:
            await self._sleep_until(started + step.after)
            changes.append(self._reach(message, step))
        rank: dict[str, int] = {status: index for index, status in enumerate(order)}
        for change in sorted(changes, key=lambda change: rank.get(change.status, len(rank))):
            await self._call_back(message, change, copies)

    def _reach(self, message: Message, step: _Step) -> StatusChange:
        return message.reach(step.status, self._state.now(), step.error_code)

    async def _call_back(self, message: Message, change: StatusChange, copies: int) -> None:
        if message.status_callback is not None and copies:
            change.callbacks += await self._courier.deliver(
                "status",
                message.status_callback,
                self._parameters(message, change).items(),
                copies,
            )

    def _parameters(self, message: Message, change: StatusChange) -> dict[str, str]:
        """The fields of a WhatsApp status callback."""
        parameters = {
            "ChannelPrefix": "whatsapp",
            "ApiVersion": API_VERSION,
            "MessageStatus": change.status,
            "SmsSid": message.sid,
            "SmsStatus": change.status,
            "ChannelInstallSid": "XE" + self._settings.account_sid.removeprefix("AC"),
            "To": message.recipient,
            "From": message.sender,
            "MessageSid": message.sid,
            "AccountSid": self._settings.account_sid,
            "ChannelToAddress": message.recipient.removeprefix("whatsapp:"),
        }
        if change.status in {"delivered", "read", "failed", "undelivered"}:
            parameters["EventType"] = change.status.upper()
        if change.error_code is not None:
            parameters["ErrorCode"] = str(change.error_code)
            parameters["ErrorMessage"] = describe(change.error_code)
            parameters["ChannelStatusMessage"] = describe(change.error_code)
        return parameters

    @staticmethod
    async def _sleep_until(moment: float) -> None:
        await asyncio.sleep(max(0, moment - asyncio.get_running_loop().time()))

    def _spawn(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("A message's life ended in an error", exc_info=error)
