"""Messages that a contact writes, and the form in which Twilio passes them on."""

import re
from datetime import datetime

from sandbox.message_form import E164, USER_ID
from sandbox.message_json import message_path
from sandbox.settings import SandboxSettings
from sandbox.state import Media, Message, StatusChange, new_sid
from sandbox.twilio_errors import API_VERSION


def contact_address(phone: str) -> str | None:
    """A contact's WhatsApp address from a number or a user id; None if it is neither."""
    bare = phone.removeprefix("whatsapp:")
    return f"whatsapp:{bare}" if re.fullmatch(f"{E164}|{USER_ID}", bare) else None


def inbound_message(
    contact: str,
    body: str,
    content_types: list[str],
    settings: SandboxSettings,
    now: datetime,
) -> Message:
    """A message from a contact to our number, as Twilio holds it."""
    return Message(
        sid=new_sid("SM"),
        direction="inbound",
        sender=contact,
        recipient=settings.whatsapp_number,
        body=body,
        created_at=now,
        sent_at=now,
        updated_at=now,
        status="received",
        statuses=[StatusChange(status="received", at=now)],
        media=[
            Media(sid=new_sid("ME"), content_type=content_type, created_at=now)
            for content_type in content_types
        ],
    )


def inbound_parameters(
    message: Message, profile_name: str, settings: SandboxSettings, base_url: str
) -> dict[str, str]:
    """The form fields of the webhook, from Twilio's "Request to your webhook URL" page."""
    contact = message.sender.removeprefix("whatsapp:")
    # Who shows no number has no WaId, but a user id.
    identity = {"WaId": contact[1:]} if contact.startswith("+") else {"ExternalUserId": contact}
    parameters = {
        "SmsMessageSid": message.sid,
        "NumMedia": str(len(message.media)),
        "ProfileName": profile_name,
        "MessageType": _message_type(message),
        "SmsSid": message.sid,
        **identity,
        "SmsStatus": "received",
        "Body": message.body,
        "To": message.recipient,
        "NumSegments": "1",
        "ReferralNumMedia": "0",
        "MessageSid": message.sid,
        "AccountSid": settings.account_sid,
        "From": message.sender,
        "ApiVersion": API_VERSION,
    }
    for number, media in enumerate(message.media):
        path = f"{message_path(settings.account_sid, message.sid)}/Media/{media.sid}"
        parameters[f"MediaUrl{number}"] = base_url + path
        parameters[f"MediaContentType{number}"] = media.content_type
    return parameters


def _message_type(message: Message) -> str:
    if not message.media:
        return "text"
    kind = message.media[0].content_type.partition("/")[0]
    return kind if kind in {"image", "audio", "video"} else "document"
