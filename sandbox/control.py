"""The sandbox's own API: play the contact, look at everything, switch faults."""

from collections import deque
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query
from pydantic import BaseModel, ConfigDict, Field

from sandbox.callbacks import Courier
from sandbox.faults import FaultBoard, Faults
from sandbox.inbound import contact_address, inbound_message, inbound_parameters
from sandbox.life import Lives
from sandbox.phone.exchange import Exchange
from sandbox.settings import SandboxSettings
from sandbox.state import (
    Delivery,
    Message,
    OpenAIRequest,
    RequestRecord,
    SandboxState,
    Status,
    StatusChange,
)
from sandbox.vendors import Vendors

_INCOMING_PATH = "/webhook/whatsapp/incoming"


class MediaItem(BaseModel):
    """A file that the contact sends along."""

    model_config = ConfigDict(extra="forbid")

    content_type: str = "image/png"


class ContactMessage(BaseModel):
    """What the contact writes."""

    model_config = ConfigDict(extra="forbid")

    body: str = ""
    profile_name: str = "Sandbox Contact"
    media: list[MediaItem] = Field([], max_length=10)
    parameters: dict[str, str | list[str] | None] = Field(
        {}, description="Form fields to add or replace; null leaves the field out."
    )
    copies: int = Field(1, ge=1, le=1000, description="How often Twilio delivers the webhook.")
    deliver: bool = Field(True, description="False: the webhook is lost; only Twilio knows.")


class Written(BaseModel):
    """What became of it; the webhook fields speak of the last copy."""

    sid: str
    webhook_status: int | None
    webhook_attempts: int
    webhook_error: str | None
    webhooks: list[Delivery]


class ForcedStatus(BaseModel):
    """Status callbacks to make now, one after the other, in this order."""

    model_config = ConfigDict(extra="forbid")

    status: Status | list[Status]
    error_code: int | None = Field(None, ge=10000, le=99999)
    copies: int = Field(1, ge=1, le=1000)


class Control:
    """Routes below /sandbox. Without authentication: only this machine reaches them."""

    def __init__(
        self,
        settings: SandboxSettings,
        state: SandboxState,
        faults: FaultBoard,
        courier: Courier,
        lives: Lives,
        exchange: Exchange,
        vendors: Vendors,
        base_url: str,
    ) -> None:
        self._settings = settings
        self._state = state
        self._faults = faults
        self._courier = courier
        self._lives = lives
        self._exchange = exchange
        self._vendors = vendors
        self._base_url = base_url

    def router(self) -> APIRouter:
        """The routes."""
        router = APIRouter(prefix="/sandbox")
        router.add_api_route("/health", self.health, methods=["GET"])
        router.add_api_route("/contacts/{phone}/messages", self.write, methods=["POST"])
        router.add_api_route("/messages", self.messages, methods=["GET"])
        router.add_api_route("/messages/{sid}/status", self.force_status, methods=["POST"])
        router.add_api_route("/requests", self.requests, methods=["GET"])
        router.add_api_route("/openai/requests", self.openai_requests, methods=["GET"])
        router.add_api_route("/faults", self.faults, methods=["GET"])
        router.add_api_route("/faults", self.set_faults, methods=["PUT"])
        router.add_api_route("/faults", self.clear_faults, methods=["DELETE"])
        router.add_api_route("/reset", self.reset, methods=["POST"])
        return router

    async def health(self) -> dict[str, Any]:
        """Whether the sandbox is up."""
        return {"status": "ok", "messages": len(self._state.messages)}

    async def write(self, phone: str, written: ContactMessage) -> Written:
        """The contact writes to our number; returns when the webhook was answered."""
        message = inbound_message(
            _address("phone", phone),
            written.body,
            [item.content_type for item in written.media],
            self._settings,
            self._state.now(),
        )
        self._state.add(message)
        if written.deliver:
            parameters = inbound_parameters(
                message, written.profile_name, self._settings, self._base_url
            )
            message.webhooks += await self._courier.deliver(
                "message",
                self._settings.signed_origin + _INCOMING_PATH,
                _changed(parameters, written.parameters),
                written.copies,
            )
        last = message.webhooks[-1] if message.webhooks else None
        return Written(
            sid=message.sid,
            webhook_status=last.response_status if last else None,
            webhook_attempts=sum(delivery.attempts for delivery in message.webhooks),
            webhook_error=last.error if last else None,
            webhooks=message.webhooks,
        )

    async def messages(self, contact: Annotated[str | None, Query()] = None) -> list[Message]:
        """Every message, the oldest first; with `contact`, those with this person."""
        messages = list(self._state.messages.values())
        if contact is None:
            return messages
        # A plus sign that wasn't escaped has become a space.
        address = _address("contact", contact.replace(" ", "+"))
        return [message for message in messages if message.contact == address]

    async def force_status(self, sid: str, forced: ForcedStatus) -> list[StatusChange]:
        """Make status callbacks for a message; returns when they were answered."""
        message = self._state.messages.get(sid)
        if message is None:
            raise HTTPException(404, f"sid: there is no message {sid}")
        if message.status_callback is None:
            raise HTTPException(409, f"sid: {sid} was created without a StatusCallback")
        statuses = forced.status if isinstance(forced.status, list) else [forced.status]
        return await self._lives.force(message, statuses, forced.error_code, forced.copies)

    async def requests(self) -> deque[RequestRecord]:
        """The latest requests to the pretend Twilio and OpenAI, the oldest first."""
        return self._state.requests

    async def openai_requests(self) -> deque[OpenAIRequest]:
        """The latest requests for an answer, the oldest first."""
        return self._state.openai_requests

    async def faults(self) -> Faults:
        """The switches, with the times that are left."""
        return self._faults.now

    async def set_faults(self, faults: Faults) -> Faults:
        """Set all switches; those not named are off."""
        self._faults.now = faults
        return faults

    async def clear_faults(self) -> Faults:
        """Switch everything off."""
        return await self.set_faults(Faults())

    async def reset(self) -> dict[str, Any]:
        """Start afresh: no messages, no calls, no faults, nothing pending, the usual latencies."""
        await self._lives.cancel()
        await self._exchange.cancel()
        self._state.clear()
        self._faults.now = Faults()
        self._vendors.reset()
        return await self.health()


def _address(field: str, phone: str) -> str:
    address = contact_address(phone)
    if address is None:
        raise HTTPException(
            422, f"{field}: {phone!r} is neither like +972501234567 nor like US.13491208655302"
        )
    return address


def _changed(
    parameters: dict[str, str], changes: dict[str, str | list[str] | None]
) -> list[tuple[str, str]]:
    pairs = [(name, value) for name, value in parameters.items() if name not in changes]
    for name, value in changes.items():
        values = [] if value is None else [value] if isinstance(value, str) else value
        pairs += [(name, each) for each in values]
    return pairs
