"""Writing as a contact of the sandbox, at Twilio or at WhatsApp."""

from typing import Any

import httpx

_READ_AFTER_MS = 1000


class ContactError(Exception):
    """The message didn't get away; the text says why."""


async def write_by_twilio(sandbox: str, text: str, contact: str) -> str:
    """Write to the pretend Twilio; returns the message's SID once the webhook was answered.

    Raises:
        ContactError: The sandbox or the webhook refused it.
    """
    written = await _post(f"{sandbox}/sandbox/contacts/{contact}/messages", {"body": text})
    if written["webhook_status"] != httpx.codes.OK:
        said = written["webhook_error"] or f"status {written['webhook_status']}"
        raise ContactError(f"the webhook didn't take the message: {said}")
    return str(written["sid"])


async def write_by_whatsapp(control: str, text: str, contact: str) -> str:
    """Write from a phone of the pretend WhatsApp, which reads the answer; returns WhatsApp's id.

    Raises:
        ContactError: It refused.
    """
    phone = contact.removeprefix("+")
    habits = {"name": "Sandbox Contact", "read_after_ms": _READ_AFTER_MS}
    known = await _request("PATCH", f"{control}/contacts/{phone}", habits)
    if known.status_code == httpx.codes.NOT_FOUND:
        await _post(f"{control}/contacts", {"phone": contact, **habits})
    message = {"type": "text", "text": text}
    return str((await _post(f"{control}/contacts/{phone}/messages", message))["id"])


async def _post(url: str, body: dict[str, Any]) -> dict[str, Any]:
    response = await _request("POST", url, body)
    if response.is_error:
        said = response.text
        if response.is_client_error:
            said = response.json().get("detail") or response.json().get("error")
        raise ContactError(f"the sandbox refused: {said}")
    answer: dict[str, Any] = response.json()
    return answer


async def _request(method: str, url: str, body: dict[str, Any]) -> httpx.Response:
    # The time is limited for the conversation as a whole.
    async with httpx.AsyncClient(timeout=None, trust_env=False) as client:  # noqa: S113
        try:
            return await client.request(method, url, json=body)
        except httpx.HTTPError as error:
            raise ContactError(f"the sandbox doesn't answer: {error}") from None
