"""The sandbox's WhatsApp as tests drive it: its contacts, what they write and what they see."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx

_BETWEEN_TRIES_SECONDS = 0.05


class WhatsApp:
    """Its control interface, which may be away for a while: a phone, too, tries again."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http

    async def add_contact(self, phone: str, **habits: Any) -> None:
        """A contact, by the digits of its number."""
        await self._ask("POST", "/contacts", {"phone": f"+{phone}", **habits})

    async def write(self, phone: str, message_id: str, text: str) -> None:
        """A contact writes; returns once WhatsApp has it."""
        writing = {"type": "text", "text": text, "id": message_id}
        while True:
            with contextlib.suppress(httpx.HTTPError):
                await self._ask("POST", f"/contacts/{phone}/messages", writing)
                return
            await asyncio.sleep(_BETWEEN_TRIES_SECONDS)

    async def shown(self, phone: str) -> list[dict[str, Any]]:
        """What a contact's phone shows."""
        found: list[dict[str, Any]] = (await self._ask("GET", f"/contacts/{phone}"))["received"]
        return found

    async def state(self) -> dict[str, Any]:
        """What the server knows."""
        return await self._ask("GET", "/state")

    async def _ask(
        self, method: str, path: str, body: dict[str, Any] | None = None
    ) -> dict[str, Any]:
        response = await self._http.request(method, path, json=body)
        response.raise_for_status()
        answer: dict[str, Any] = response.json()
        return answer


@asynccontextmanager
async def whatsapp_at(control: str | None) -> AsyncIterator[WhatsApp]:
    """The server whose control interface is at an origin."""
    async with httpx.AsyncClient(base_url=control or "", timeout=5, trust_env=False) as http:
        yield WhatsApp(http)
