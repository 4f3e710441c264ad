"""Answers to what is no HTTP request, or no small one: no application has seen it."""

import json
import uuid

from services.common.errors import InvalidInputError

INVALID = "Invalid HTTP request received."
TOO_LARGE = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\n"
    b"content-length: 0\r\nconnection: close\r\n\r\n"
)


def bad_request(detail: str) -> bytes:
    """A problem document (RFC 9457), as every error has, where uvicorn's is a line of text."""
    own_id = uuid.uuid4()
    document = {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": detail,
        "instance": own_id.urn,
        "request_id": own_id.hex,
        "reason": InvalidInputError.reason,
    }
    body = json.dumps(document).encode()
    return (
        b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/problem+json\r\n"
        b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(body), body)
    )
