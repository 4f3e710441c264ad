"""The form that creates a message, checked in the order Twilio checks it."""

import json
import re

import httpx
from starlette.datastructures import MultiDict

from sandbox.settings import SandboxSettings
from sandbox.state import Media, Message, SandboxState, new_sid
from sandbox.twilio_errors import TwilioError

E164 = r"\+[1-9][0-9]{6,14}"
# Since 2026 a WhatsApp user may have a business-scoped id instead of a visible number.
USER_ID = r"[A-Z]{2}\.(?:ENT\.)?[A-Za-z0-9]+"

_MAX_BODY = 1600
_MAX_MEDIA = 10
_MAX_PORT = 65535


def new_message(form: MultiDict, settings: SandboxSettings, state: SandboxState) -> Message:
    """The message that this form asks for.

    Raises:
        TwilioError: Twilio would refuse it.
    """
    recipient, sender = form.get("To", ""), form.get("From", "")
    _check_addresses(recipient, sender, settings)
    body, content_sid = form.get("Body", ""), form.get("ContentSid") or None
    media_urls = [url for url in form.getlist("MediaUrl") if url]
    if content_sid is not None:
        body = _template(content_sid, form.get("ContentVariables", ""))
    elif not body.strip() and not media_urls:
        raise TwilioError(400, 21602)
    if len(body) > _MAX_BODY:
        raise TwilioError(400, 21617)
    if len(media_urls) > _MAX_MEDIA:
        raise TwilioError(400, 21623)
    if not all(_is_web_address(url) for url in media_urls):
        raise TwilioError(400, 21620)
    callback = form.get("StatusCallback") or None
    if callback is not None and not _is_web_address(callback):
        raise TwilioError(400, 21609, f"The 'StatusCallback' URL {callback} is not a valid URL.")
    now = state.now()
    return Message(
        sid=new_sid("SM"),
        direction="outbound-api",
        sender=sender,
        recipient=recipient,
        body=body,
        created_at=now,
        updated_at=now,
        status="queued",
        status_callback=callback,
        content_sid=content_sid,
        media=[
            Media(sid=new_sid("ME"), content_type="image/png", created_at=now) for _ in media_urls
        ],
    )


def _check_addresses(recipient: str, sender: str, settings: SandboxSettings) -> None:
    if not recipient:
        raise TwilioError(400, 21604)
    if not sender:
        raise TwilioError(400, 21603)
    if not re.fullmatch(rf"(?:whatsapp:)?{E164}|whatsapp:{USER_ID}", recipient):
        raise TwilioError(400, 21211, f"Invalid 'To' Phone Number: {recipient}")
    if not re.fullmatch(rf"(?:whatsapp:)?{E164}", sender):
        raise TwilioError(400, 21212, f"Invalid From Number (caller ID): {sender}")
    if recipient.startswith("whatsapp:") != sender.startswith("whatsapp:"):
        raise TwilioError(400, 21910)
    if sender.startswith("whatsapp:") and sender != settings.whatsapp_number:
        raise TwilioError(400, 63007)
    if sender != settings.whatsapp_number:
        raise TwilioError(
            400,
            21606,
            f"The 'From' phone number provided ({sender}) is not a valid message-capable "
            "Twilio phone number for this destination.",
        )


def _template(content_sid: str, variables: str) -> str:
    if not re.fullmatch(r"HX[0-9a-fA-F]{32}", content_sid):
        raise TwilioError(400, 21655)
    try:
        values = json.loads(variables or "{}")
    except ValueError as error:
        raise TwilioError(400, 21656) from error
    if not isinstance(values, dict) or not all(isinstance(v, str) for v in values.values()):
        raise TwilioError(400, 21656)
    return " ".join([f"Template {content_sid}", *(f"{k}={v}" for k, v in sorted(values.items()))])


def _is_web_address(url: str) -> bool:
    try:
        parsed = httpx.URL(url)
        # What httpx lets through, but no connection can be made to.
        parsed.host.encode("idna")
        reachable = parsed.port is None or 0 < parsed.port <= _MAX_PORT
    except (httpx.InvalidURL, UnicodeError):
        return False
    printable = re.fullmatch(r"[!-~]+", url) is not None
    return printable and reachable and parsed.scheme in {"http", "https"} and bool(parsed.host)
