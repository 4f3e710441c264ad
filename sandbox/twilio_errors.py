"""Twilio's error codes and the bodies they come in."""

from starlette.responses import JSONResponse

API_VERSION = "2010-04-01"

# From Twilio's error and warning dictionary.
_DESCRIPTIONS = {
    20003: "Authenticate",
    20429: "Too Many Requests",
    20500: "Internal Server Error",
    21211: "Invalid 'To' Phone Number",
    21602: "Message body is required.",
    21603: "A 'From' phone number is required.",
    21604: "A 'To' phone number is required.",
    21610: "Attempt to send to unsubscribed recipient",
    21611: "This 'From' number has exceeded the maximum number of queued messages",
    21617: "The concatenated message body exceeds the 1600 character limit.",
    21620: "Invalid media URL(s)",
    21623: "Number of media files exceeds allowed limit",
    21655: "The ContentSid is Invalid",
    21656: "The ContentVariables Parameter is invalid",
    21910: "Invalid From and To pair. From and To should be of the same channel",
    30001: "Queue overflow",
    63003: "Channel could not find To address",
    63007: "Twilio could not find a Channel with the specified From address",
    63014: "Message failed to send because it was blocked by a user action",
    63016: (
        "Failed to send freeform message because you are outside the allowed window. "
        "If you are using WhatsApp, please use a Message Template."
    ),
    63018: "Rate limit exceeded for Channel",
}


def describe(code: int) -> str:
    """What an error code means."""
    return _DESCRIPTIONS.get(code, f"Error {code}")


class TwilioError(Exception):
    """A refusal in Twilio's shape."""

    def __init__(
        self,
        status: int,
        code: int,
        message: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message or describe(code))
        self.status = status
        self.code = code
        self.headers = headers

    def response(self) -> JSONResponse:
        """The answer as Twilio gives it."""
        return JSONResponse(
            {
                "code": self.code,
                "message": str(self),
                "more_info": f"https://www.twilio.com/docs/errors/{self.code}",
                "status": self.status,
            },
            status_code=self.status,
            headers=self.headers,
        )


def not_found(path: str) -> TwilioError:
    """What Twilio answers for a resource it doesn't have."""
    return TwilioError(404, 20404, f"The requested resource {path} was not found")
