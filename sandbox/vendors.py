"""What all pretend vendors have in common: how long they take, how they fail, what they note."""

import asyncio
import time
from collections.abc import Callable
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from sandbox.connection import NoResponse, cut, hang, stays
from sandbox.faults import FaultBoard, VendorFault
from sandbox.state import SandboxState, VendorCall, VendorName

Seconds = Annotated[float, Field(ge=0, le=600)]


class Latencies(BaseModel):
    """How long the vendors take to answer, in seconds."""

    model_config = ConfigDict(extra="forbid")

    transcription: Seconds = 0
    answer: Seconds = Field(0, description="Until the language model begins to write.")
    answer_word: Seconds = Field(0, description="Between two words of a streamed answer.")
    speech: Seconds = Field(0, description="OpenAI's speech, whatever the text.")
    google_token: Seconds = 0
    google_speech: Seconds = Field(0, description="Google's speech, whatever the text.")
    speech_character: Seconds = Field(0, description="Either's speech, for each character.")
    recording: Seconds = Field(0, description="Twilio's, until a recording is sent.")


class Vendors:
    """Latencies, faults and the log of the vendors.

    Attributes:
        latencies: As they are now.
    """

    def __init__(
        self,
        latencies: Latencies,
        state: SandboxState,
        faults: FaultBoard,
        closing: asyncio.Event,
    ) -> None:
        self.latencies = latencies
        self._usual = latencies
        self._state = state
        self._faults = faults
        self._closing = closing

    def reset(self) -> None:
        """Take as long as the settings say."""
        self.latencies = self._usual

    def note(self, vendor: VendorName, about: str) -> VendorCall:
        """Log a call before anything is done about it."""
        call = VendorCall(at=self._state.now(), vendor=vendor, about=about)
        self._state.vendor_calls.append(call)
        return call

    async def serve(
        self,
        request: Request,
        call: VendorCall,
        seconds: float,
        refusal: Callable[[VendorFault], Exception],
        make: Callable[[], Response],
    ) -> Response:
        """Answer after `seconds`, unless a fault strikes.

        Args:
            refusal: The vendor's way to say what a fault is.
            make: The answer.
        """
        started = time.monotonic()
        fault = self._faults.strike(getattr(self._faults.now, call.vendor, None))
        kind = fault.kind if fault else None
        call.outcome = "refused" if fault and kind != "slow" else "answered"
        try:
            if fault and kind == "slow":
                seconds += fault.seconds
            if fault and kind in ("error", "rate_limited"):
                raise refusal(fault)
            if kind == "hang":
                return await hang(request, self._closing)
            if not await stays(request, seconds):
                call.outcome = "abandoned"
                return NoResponse()
            if kind == "cut":
                return cut(request)
            if kind == "garbage":
                return Response(b"<html>Bad gateway</html>", media_type="text/html")
            return make()
        except asyncio.CancelledError:
            call.outcome = "abandoned"
            raise
        finally:
            call.seconds = round(time.monotonic() - started, 3)
