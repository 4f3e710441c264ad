"""Webhooks of messages as Twilio sends and signs them, made cheaply."""

import base64
import hmac
from urllib.parse import urlencode

PATH = "/webhook/whatsapp/incoming"
_SID = "SM" + "@" * 32
_CONTACT = "@" * 12


class Webhooks:
    """Requests that differ in their message's id and its sender.

    Args:
        origin: What Twilio is told to reach, and signs.
        token: It signs with this.
    """

    def __init__(self, origin: str, token: str) -> None:
        parameters = {
            "SmsMessageSid": _SID,
            "NumMedia": "0",
            "ProfileName": "Noa Levi",
            "MessageType": "text",
            "SmsSid": _SID,
            "WaId": _CONTACT,
            "SmsStatus": "received",
            "Body": "Hello, is the flat in Haifa still free? I could come and see it tomorrow.",
            "To": "whatsapp:+14155238886",
            "NumSegments": "1",
            "ReferralNumMedia": "0",
            "MessageSid": _SID,
            "AccountSid": "AC00000000000000000000000000000000",
            "ChannelMetadata": '{"type":"whatsapp","data":{"context":{"ProfileName":"Noa Levi"}}}',
            "From": f"whatsapp:+{_CONTACT}",
            "ApiVersion": "2010-04-01",
        }
        self._signed = (
            origin + PATH + "".join(name + parameters[name] for name in sorted(parameters))
        )
        self._body = urlencode(parameters, safe="@")
        self._head = (
            f"POST {PATH} HTTP/1.1\r\nHost: {origin.partition('//')[2]}\r\n"
            "Content-Type: application/x-www-form-urlencoded; charset=UTF-8\r\n"
            f"Content-Length: {len(self._body)}\r\n"
            "I-Twilio-Idempotency-Token: 2f7a5a9e-52a2-4b5c-9f3e-6f0f6d1f7c55\r\n"
            "User-Agent: TwilioProxy/1.1\r\nAccept: */*\r\n"
        )
        self._token = token.encode()

    def message(self, number: int, contact: str) -> bytes:
        """The whole request.

        Args:
            number: Another message has another.
            contact: Twelve digits of a telephone number, the country's code first.
        """
        sid = f"SM{number:032x}"
        signed = self._signed.replace(_SID, sid).replace(_CONTACT, contact)
        mac = base64.b64encode(hmac.digest(self._token, signed.encode(), "sha1")).decode()
        body = self._body.replace(_SID, sid).replace(_CONTACT, contact)
        return f"{self._head}X-Twilio-Signature: {mac}\r\n\r\n{body}".encode()
