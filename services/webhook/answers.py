"""What a webhook is answered with, and the word that counts each kind."""

from dataclasses import dataclass

from starlette.types import Send

from services.common.http_direct import WholeRequest
from services.common.tracing import request_id

MAX_BODY_BYTES = 64 * 1024
MAX_PARAMETERS = 1000
"""Far above any real webhook's, low enough that an unsigned request costs little."""

EMPTY_TWIML = b'<?xml version="1.0" encoding="UTF-8"?><Response/>'
_TWIML = (b"content-type", b"text/xml; charset=utf-8")
# Made once: nearly every answer is this one.
_EMPTY_HEAD = b"HTTP/1.1 200 OK\r\n%b: %b\r\ncontent-length: %d\r\n" % (*_TWIML, len(EMPTY_TWIML))


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that is no success.

    Attributes:
        outcome: Label in metrics and logs.
        text: For whoever reads Twilio's debugger.
    """

    outcome: str
    status: int
    text: str
    headers: tuple[tuple[bytes, bytes], ...] = ()


class RefusedError(Exception):
    """Nothing was stored; the sender gets `answer`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.outcome)
        self.answer = answer


METHOD = Answer(
    "method_not_allowed",
    405,
    "Only POST is taken here: set the webhook's method to HTTP POST.",
    ((b"allow", b"POST"),),
)
MISSING = Answer("missing_signature", 400, "The X-Twilio-Signature header is missing.")
INVALID = Answer(
    "invalid_signature",
    403,
    "The signature doesn't match. PUBLIC_HOST and the address configured at Twilio must be the"
    " same, and TWILIO_AUTH_TOKEN the account's.",
)
NO_KEY = Answer("no_key", 500, "No key is configured, so nothing can be verified.")
MEDIA_TYPE = Answer(
    "unsupported_media_type", 415, "The body must be application/x-www-form-urlencoded."
)
TOO_LARGE = Answer(
    "too_large",
    413,
    f"The body is larger than {MAX_BODY_BYTES} bytes.",
    ((b"connection", b"close"),),
)
TOO_SLOW = Answer(
    "too_slow",
    408,
    "The request took too long to arrive.",
    ((b"connection", b"close"),),
)
TOO_MANY = Answer("malformed", 400, f"There are more than {MAX_PARAMETERS} parameters.")
UNAVAILABLE = Answer(
    "unavailable",
    503,
    "The event can't be stored now; send it again.",
    ((b"retry-after", b"5"),),
)
FAILED = Answer("error", 500, "Something went wrong here; the log says what.")

OUTCOMES = (
    "journaled",
    "spilled",
    "malformed",
    "rate_limited",
    "disconnected",
    *(
        answer.outcome
        for answer in (
            METHOD,
            MISSING,
            INVALID,
            NO_KEY,
            MEDIA_TYPE,
            TOO_LARGE,
            TOO_SLOW,
            UNAVAILABLE,
            FAILED,
        )
    ),
)


def malformed(problem: str) -> Answer:
    """The parameters don't identify an event."""
    return Answer("malformed", 400, f"{problem}.")


def rate_limited(seconds: float) -> Answer:
    """The sender has shown too many bad signatures.

    Args:
        seconds: Until its limit ends.
    """
    return Answer(
        "rate_limited",
        429,
        "Too many requests without a valid signature.",
        ((b"retry-after", str(int(seconds) + 1).encode()),),
    )


def elsewhere(address: str) -> Answer:
    """The event can't be stored, but somebody listens: what they hear is at `address`."""
    return Answer(
        UNAVAILABLE.outcome,
        302,
        UNAVAILABLE.text,
        ((b"location", address.encode()), (b"cache-control", b"no-store")),
    )


def answer_nothing_to_do(request: WholeRequest) -> None:
    """Thank for an event with empty TwiML."""
    request.answer(_EMPTY_HEAD, EMPTY_TWIML)


async def send_twiml(send: Send, twiml: bytes) -> None:
    """Answer with instructions."""
    length = (b"content-length", str(len(twiml)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [_TWIML, length]})
    await send({"type": "http.response.body", "body": twiml})


async def send_answer(send: Send, answer: Answer) -> None:
    """Answer with anything but success. Twilio's debugger shows the headers."""
    body = answer.text.encode()
    headers = [
        (b"x-request-id", request_id().encode()),
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        *answer.headers,
    ]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
