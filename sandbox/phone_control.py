"""The sandbox's own API for calls: make one, watch it, end it."""

from typing import Annotated

from fastapi import APIRouter, HTTPException, Query

from sandbox.phone.call import Entry, PhoneCall
from sandbox.phone.exchange import Exchange
from sandbox.phone.recordings import Recording, Recordings
from sandbox.phone.scenario import Scenario


class PhoneControl:
    """Routes below /sandbox."""

    def __init__(self, exchange: Exchange, recordings: Recordings) -> None:
        self._exchange = exchange
        self._recordings = recordings

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/sandbox")
        router.add_api_route("/calls", self.begin, methods=["POST"], status_code=201)
        router.add_api_route("/calls", self.calls, methods=["GET"])
        router.add_api_route("/calls/{sid}", self.call, methods=["GET"])
        router.add_api_route("/calls/{sid}/timeline", self.timeline, methods=["GET"])
        router.add_api_route("/calls/{sid}/hang-up", self.hang_up, methods=["POST"])
        router.add_api_route("/recordings", self.recordings, methods=["GET"])
        return router

    async def begin(self, scenario: Scenario) -> PhoneCall:
        """Call our number; returns at once."""
        return self._exchange.begin(scenario)

    async def calls(self) -> list[PhoneCall]:
        """Every call, the oldest first."""
        return list(self._exchange.calls.values())

    async def call(self, sid: str) -> PhoneCall:
        """One call, with all that has happened."""
        found = self._exchange.calls.get(sid)
        if found is None:
            raise HTTPException(404, f"sid: there is no call {sid}")
        return found

    async def timeline(
        self,
        sid: str,
        after: Annotated[int, Query(ge=0, description="So many entries are known.")] = 0,
        wait: Annotated[float, Query(ge=0, le=60, description="Seconds to wait for one.")] = 0,
    ) -> list[Entry]:
        """What has happened since; waits for something to happen, unless the call has ended."""
        return await (await self.call(sid)).after(after, wait)

    async def hang_up(self, sid: str) -> PhoneCall:
        """The caller hangs up, now."""
        call = await self.call(sid)
        self._exchange.end(call)
        return call

    async def recordings(self) -> list[Recording]:
        """What was recorded, the oldest first."""
        return self._recordings.all()
