"""What the bridge says of its session, and whether messages may be handed to it."""

import asyncio
import contextlib
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import structlog

from services.messaging.ports.clock import Clock
from services.messaging.ports.provider_status import Pairing, ProviderCondition
from services.messaging.providers.baileys.disk import VARIABLE, QueueUnusableError
from services.messaging.providers.baileys.folder import QueueFolder
from services.messaging.providers.baileys.parsing import BadDocumentError
from services.messaging.providers.baileys.state import SessionState, State, parse_state

log = structlog.get_logger(__name__)

STALE: Final = timedelta(seconds=30)
SILENT: Final = timedelta(seconds=90)
RECONNECTING: Final = timedelta(seconds=20)
"""So long a session that connects is waited for, as if it were open: most are back at once."""
_CLOCK_SKEW: Final = timedelta(seconds=60)

NOT_LOOKED: Final = "not_looked"


@dataclass(frozen=True, slots=True)
class Obstacle:
    """Why nothing can be sent now: a word for programs, and a sentence."""

    code: str
    words: str


class BridgeSession:
    """Looks at `state.json` regularly.

    Args:
        account: The number that the session must be, in E.164.
        patience: How long a message may wait for its turn in the bridge's pace.
    """

    def __init__(
        self,
        folder: QueueFolder,
        *,
        account: str,
        clock: Clock,
        patience: timedelta = timedelta(seconds=30),
        poll: timedelta = timedelta(seconds=0.5),
    ) -> None:
        self._folder = folder
        self._account = account
        self._clock = clock
        self._patience = patience
        self._poll_seconds = poll.total_seconds()
        self._state: State | None = None
        self._unreadable: Obstacle | None = Obstacle(NOT_LOOKED, "its state was not read yet")
        self._bad_files = 0
        self._told: str | None = None

    async def run(self) -> None:
        """Look for ever; may be cancelled at any time."""
        with contextlib.suppress(QueueUnusableError):
            await asyncio.to_thread(self._folder.create)
        while True:
            await self.look()
            await asyncio.sleep(self._poll_seconds)

    async def look(self) -> None:
        """Read the state once."""
        state, unreadable = None, None
        try:
            content, self._bad_files = await asyncio.to_thread(self._read)
            if content is None:
                unreadable = Obstacle(
                    "bridge_missing", f"the bridge has never run: no state.json in {VARIABLE}"
                )
            else:
                state = parse_state(content)
        except QueueUnusableError as error:
            unreadable = Obstacle(error.code, str(error))
        except BadDocumentError as error:
            unreadable = Obstacle("bridge_state", f"state.json can't be read: {error}")
        # Together: between the two nobody may take it that nothing is in the way.
        self._state, self._unreadable = state, unreadable
        self._tell()

    def obstacle(self) -> Obstacle | None:
        """Why nothing can be sent now; None when messages may be handed over."""
        state = self._state
        if state is None:
            return self._unreadable
        now = self._clock()
        age = now - state.written_at
        if age > STALE:
            return Obstacle(
                "bridge_stopped", f"the bridge isn't running: its state is {_span(age)} old"
            )
        if -age > _CLOCK_SKEW:
            return Obstacle("bridge_clock", "the bridge's clock is ahead of ours")
        reconnects = state.state is SessionState.CONNECTING and now - state.since <= RECONNECTING
        if state.state is not SessionState.OPEN and not reconnects:
            return Obstacle(f"bridge_{state.state}", f"{_WORDS[state.state]}: {state.reason}")
        if state.account is None and reconnects:
            # It has just been started, and hasn't read yet whose session it has.
            return Obstacle("bridge_connecting", f"connecting: {state.reason}")
        if state.account != self._account:
            return Obstacle(
                "wrong_account", "the session belongs to another number than BAILEYS_NUMBER"
            )
        if reconnects:
            return None
        if state.last_frame_at is None or now - state.last_frame_at > SILENT:
            return Obstacle("bridge_silent", f"WhatsApp has been silent for {_span(SILENT)}")
        return None

    def condition(self) -> ProviderCondition:
        """The same for the status of the provider, with what is worth knowing besides."""
        state = self._state
        restricted = state is not None and state.state is SessionState.RESTRICTED
        latency = None
        if state is not None and state.ack_latency_ms is not None:
            latency = timedelta(milliseconds=state.ack_latency_ms)
        obstacle = self.obstacle()
        if obstacle is not None:
            return ProviderCondition(
                False, obstacle.words, self._pairing(), restricted=restricted, ack_latency=latency
            )
        warnings = []
        if self._bad_files:
            warnings.append(
                f"files that can't be read lie in {VARIABLE}, in a folder bad: {self._bad_files}"
            )
        if state is not None and (waits_since := state.ack_pending_since) is not None:
            waits = self._clock() - waits_since
            if waits > STALE:
                warnings.append(f"WhatsApp has not acknowledged a message for {_span(waits)}")
        return ProviderCondition(
            True, "; ".join(warnings), ack_latency=latency, capacity=self._capacity()
        )

    def _capacity(self) -> int | None:
        """How many messages can have their turn before they are taken back."""
        longest = self._state.pace.max_seconds if self._state else 0
        return max(1, int(self._patience.total_seconds() / longest)) if longest else None

    def _pairing(self) -> Pairing | None:
        state = self._state
        if state is None or state.pairing is None or state.state is not SessionState.PAIRING:
            return None
        pairing = state.pairing
        return Pairing(pairing.qr or "", pairing.code or "", pairing.expires_at)

    def _read(self) -> tuple[bytes | None, int]:
        return self._folder.read_state(), self._folder.count_bad()

    def _tell(self) -> None:
        """Log each change once."""
        obstacle = self.obstacle()
        code = obstacle.code if obstacle else None
        if code == self._told:
            return
        self._told = code
        if obstacle is None:
            log.info("messages can be handed to the Baileys bridge")
        else:
            log.warning("nothing can be sent by Baileys", code=code, reason=obstacle.words)


_WORDS: Final = {
    SessionState.CONNECTING: "connecting",
    SessionState.PAIRING: "waiting to be paired with a phone",
    SessionState.LOGGED_OUT: "logged out",
    SessionState.RESTRICTED: "restricted by WhatsApp",
    SessionState.BLOCKED: "blocked",
}


def _span(span: timedelta) -> str:
    seconds = int(span.total_seconds())
    return f"{seconds} seconds" if seconds < 300 else f"{seconds // 60} minutes"
