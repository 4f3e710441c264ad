"""Looking at the pretend vendors of a call, and setting how long they take."""

import json
from collections import deque
from typing import Annotated, Any

from fastapi import APIRouter, Query

from sandbox.google_account import GoogleAccount
from sandbox.state import SandboxState, VendorCall, VendorName
from sandbox.vendors import Latencies, Vendors


class VendorControl:
    """Routes below /sandbox."""

    def __init__(
        self, state: SandboxState, vendors: Vendors, google_account: GoogleAccount
    ) -> None:
        self._state = state
        self._vendors = vendors
        self._google_account = google_account

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/sandbox")
        router.add_api_route("/vendors/calls", self.calls, methods=["GET"])
        router.add_api_route("/latencies", self.latencies, methods=["GET"])
        router.add_api_route("/latencies", self.set_latencies, methods=["PUT"])
        router.add_api_route("/google/account", self.account, methods=["GET"])
        return router

    async def calls(
        self, vendor: Annotated[VendorName | None, Query()] = None
    ) -> list[VendorCall] | deque[VendorCall]:
        """The latest calls of the vendors, or of one of them, the oldest first."""
        made = self._state.vendor_calls
        return made if vendor is None else [call for call in made if call.vendor == vendor]

    async def latencies(self) -> Latencies:
        """How long the vendors take."""
        return self._vendors.latencies

    async def set_latencies(self, latencies: Latencies) -> Latencies:
        """Set all of them; those not named are 0."""
        self._vendors.latencies = latencies
        return latencies

    async def account(self) -> dict[str, Any]:
        """The service account that the pretend Google knows, with its key."""
        account: dict[str, Any] = json.loads(self._google_account.json)
        return account
