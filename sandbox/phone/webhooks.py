"""Asking the application what a call does next, and telling it what happened."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from urllib.parse import urljoin

import httpx

from sandbox.callbacks import Courier
from sandbox.faults import FaultBoard
from sandbox.phone.call import PhoneCall
from sandbox.phone.recordings import Recording
from sandbox.phone.twiml import (
    NOT_XML,
    TOO_MANY_REDIRECTS,
    UNREACHABLE,
    WRONG_CONTENT_TYPE,
    TwimlError,
    Verb,
    parse_twiml,
)
from sandbox.state import Delivery
from sandbox.twilio_errors import API_VERSION

_MAX_REDIRECTS = 10
_KEEPING_METHOD = (307, 308)
_REDIRECTS = (301, 302, 303, *_KEEPING_METHOD)
_TWIML_TYPES = ("text/xml", "application/xml", "text/html")


@dataclass(frozen=True)
class Document:
    """TwiML, and the address that it came from."""

    url: str
    verbs: list[Verb]


class Webhooks:
    """The application's webhooks, as far as calls use them."""

    def __init__(
        self, courier: Courier, faults: FaultBoard, account_sid: str, forwarded_from: str | None
    ) -> None:
        self._courier = courier
        self._faults = faults
        self._account_sid = account_sid
        self._forwarded_from = forwarded_from

    async def document(
        self, url: str, method: str, parameters: Mapping[str, str]
    ) -> tuple[Document, int]:
        """What the application answers, redirects followed; and its status.

        Raises:
            TwimlError: There is no answer in time, or none that Twilio understands.
        """
        for _ in range(_MAX_REDIRECTS):
            duplicates = self._faults.strike(self._faults.now.duplicate_call_webhooks)
            copies = duplicates.copies if duplicates else 1
            delivery, response = await self._courier.ask(
                url, parameters.items(), method=method, copies=copies
            )
            if response is None:
                raise TwimlError(UNREACHABLE, f"{url}: {delivery.error}")
            if response.status_code not in _REDIRECTS:
                return Document(url, _verbs(url, response)), response.status_code
            url = urljoin(url, response.headers.get("Location", ""))
            if response.status_code not in _KEEPING_METHOD:
                method, parameters = "GET", {}
        raise TwimlError(TOO_MANY_REDIRECTS, url)

    async def tell(
        self, url: str, parameters: Mapping[str, str], copies: int = 1
    ) -> list[Delivery]:
        """Make a callback whose answer doesn't matter."""
        return await self._courier.deliver("call", url, parameters.items(), copies)

    def base(self, call: PhoneCall, status: str | None = None) -> dict[str, str]:
        """What every request about a call carries.

        From https://www.twilio.com/docs/voice/twiml#request-parameters.
        """
        parameters = {
            "AccountSid": self._account_sid,
            "ApiVersion": API_VERSION,
            "CallSid": call.sid,
            "CallStatus": status or call.status,
            "Called": call.called,
            "Caller": call.caller,
            "Direction": "inbound",
            "From": call.caller,
            "To": call.called,
        }
        if self._forwarded_from:
            parameters["ForwardedFrom"] = self._forwarded_from
        return parameters

    def status(self, call: PhoneCall, status: str, number: int, now: datetime) -> dict[str, str]:
        """A status callback.

        From https://www.twilio.com/docs/voice/api/call-resource#statuscallback.
        """
        parameters = self.base(call, status) | {
            "CallbackSource": "call-progress-events",
            "SequenceNumber": str(number),
            "Timestamp": format_datetime(now, usegmt=True),
        }
        if status == "completed":
            seconds = round(call.seconds or 0)
            parameters["CallDuration"] = str(seconds)
            parameters["Duration"] = str(-(-seconds // 60))
        return parameters

    def recording(self, call: PhoneCall, recording: Recording) -> dict[str, str]:
        """A recording status callback.

        From https://www.twilio.com/docs/voice/twiml/record#attributes-recording-status-callback.
        """
        parameters = {
            "AccountSid": self._account_sid,
            "CallSid": call.sid,
            "RecordingSid": recording.sid,
            "RecordingUrl": recording.url,
            "RecordingStatus": recording.status,
            "RecordingDuration": str(recording.seconds),
            "RecordingChannels": "1",
            "RecordingSource": "RecordVerb",
            "RecordingStartTime": format_datetime(recording.created_at, usegmt=True),
        }
        if recording.status == "absent":
            parameters["ErrorCode"] = "0"
        return parameters


def _verbs(url: str, response: httpx.Response) -> list[Verb]:
    if not 200 <= response.status_code < 300:
        raise TwimlError(UNREACHABLE, f"{url}: HTTP {response.status_code}")
    if not response.content:
        raise TwimlError(NOT_XML, f"{url}: the answer is empty")
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    if kind not in _TWIML_TYPES:
        raise TwimlError(WRONG_CONTENT_TYPE, f"{url}: {kind or 'none'}")
    return parse_twiml(response.content)
