"""The OpenAPI document: what FastAPI finds out by itself, and every answer it can't know of."""

import json
from collections.abc import Iterator
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from services.webhook.api.door import REQUEST_ID_HEADER
from services.webhook.api.examples import ANSWERS, STREAM_EVENT
from services.webhook.api.models import StreamEvent
from services.webhook.api.problems import MEDIA_TYPE, title

Responses = dict[int | str, dict[str, Any]]

_REQUEST_ID = "2f1c4e6a93a54d2b8a551c1f0f6f7d10"
_INSTANCE = "urn:uuid:2f1c4e6a-93a5-4d2b-8a55-1c1f0f6f7d10"
_PROBLEM: dict[str, Any] = {
    "type": "object",
    "description": "An error, after RFC 9457.",
    "required": ["type", "title", "status", "detail", "instance", "request_id", "reason"],
    "properties": {
        "type": {"type": "string", "const": "about:blank"},
        "title": {"type": "string", "description": "The status in words."},
        "status": {"type": "integer"},
        "detail": {"type": "string", "description": "A sentence for people."},
        "instance": {"type": "string", "description": "This request, as a URI."},
        "request_id": {"type": "string", "description": "This request; the logs have it too."},
        "reason": {"type": "string", "description": "A stable word for programs."},
        "errors": {
            "type": "array",
            "description": "The fields at fault.",
            "items": {
                "type": "object",
                "required": ["field", "problem"],
                "properties": {"field": {"type": "string"}, "problem": {"type": "string"}},
            },
        },
        "rule": {"type": "string", "description": "The rule that forbids a message."},
        "until": {
            "type": "string",
            "format": "date-time",
            "description": "Until when it forbids it, where that is known.",
        },
    },
}
# What can happen to each request, and an example: reason, detail and more members.
_ERRORS: dict[int, tuple[str, str, dict[str, Any]]] = {
    400: (
        "INVALID_INPUT",
        "limit: Input should be less than or equal to 200",
        {"errors": [{"field": "limit", "problem": "Input should be less than or equal to 200"}]},
    ),
    401: ("UNAUTHENTICATED", "Send your key as X-API-Key.", {}),
    404: ("NOT_FOUND", "id: there is no message with this id", {}),
    408: ("TOO_SLOW", "The request took too long to arrive.", {}),
    409: (
        "POLICY_REFUSED",
        "to: this contact has not written yet; until they do, WhatsApp takes only templates",
        {"rule": "window"},
    ),
    413: ("TOO_LARGE", "The body is larger than 65536 bytes.", {}),
    415: ("UNSUPPORTED_MEDIA_TYPE", "The body must be application/json.", {}),
    422: (
        "IDEMPOTENCY_CONFLICT",
        "Idempotency-Key: it was used before with another request; use a new one",
        {},
    ),
    424: (
        "MEDIA_UNREADABLE",
        "media_url: the file can't be read now: its host can't be found; try again later",
        {"rule": "media_unreadable"},
    ),
    429: ("RATE_LIMITED", "This key has used up its requests.", {}),
    500: ("INTERNAL", "Something went wrong here; the log says what.", {}),
    503: ("UNAVAILABLE", "messaging can't be reached now; try again.", {}),
    504: ("DEADLINE_EXCEEDED", "messaging didn't answer in time.", {}),
}
_EVERY = (401, 429, 500, 503, 504)
_WITH_A_BODY = (408, 413, 415)
_RETRY = (424, 429, 503)
_HEADERS: dict[str, dict[str, Any]] = {
    "RateLimit": {
        "description": "What is left (`r`) and when all of it is back (`t`, seconds).",
        "schema": {"type": "string"},
        "example": '"default";r=599;t=1',
    },
    "RateLimit-Policy": {
        "description": "The key's quota (`q`) in a window (`w`, seconds).",
        "schema": {"type": "string"},
        "example": '"default";q=600;w=60',
    },
    REQUEST_ID_HEADER: {
        "description": "What the logs of all services call this request.",
        "schema": {"type": "string"},
        "example": _REQUEST_ID,
    },
    "Retry-After": {
        "description": "Seconds after which to try again.",
        "schema": {"type": "integer"},
        "example": 5,
    },
    "Location": {
        "description": "The message's own address.",
        "schema": {"type": "string"},
        "example": "/api/whatsapp/messages/04aea4ac627b47b0be05c2e53de54d67",
    },
    "ETag": {
        "description": "Names the content, which never changes.",
        "schema": {"type": "string"},
        "example": '"5f2b"',
    },
}


def answers(status: int, *errors: int, location: bool = False) -> Responses:
    """The answers of an operation, beside those that every operation has.

    Args:
        status: Of success.
        errors: Statuses of errors.
    """
    headers = _header_references("Location") if location else {}
    return {status: {"headers": headers}, **{error: _problem(error) for error in errors}}


def media_answers() -> Responses:
    """The answers of an operation that gives out a file."""
    file = {"schema": {"type": "string", "format": "binary"}}
    headers = _header_references("ETag")
    return {
        200: {"description": "The file.", "content": {"*/*": file}, "headers": headers},
        304: {"description": "The client has it.", "headers": headers},
        404: _problem(404),
    }


def stream_answers() -> Responses:
    """The answers of the stream."""
    example = f"data: {json.dumps(STREAM_EVENT)}\nid: AAAAAAAAAGc\n\n"
    content = {"schema": {"type": "string"}, "example": example}
    return {
        200: {
            "description": f"Server-sent events; `data` is a `{StreamEvent.__name__}`.",
            "content": {"text/event-stream": content},
        }
    }


def document(app: FastAPI) -> dict[str, Any]:
    """The document of all routes that `app` has by now."""
    found = get_openapi(
        title="Switchboard",
        version=app.version,
        summary="One API for WhatsApp and calls, whatever the provider.",
        description=(
            "Send your key as `X-API-Key`. Every error is a problem document (RFC 9457) with a"
            " stable `reason`. Lists are read page by page with `cursor`; times are RFC 3339, UTC."
        ),
        routes=app.routes,
    )
    schemas = found["components"]["schemas"]
    # FastAPI's own errors never leave this API.
    for name in ("HTTPValidationError", "ValidationError"):
        schemas.pop(name, None)
    event = StreamEvent.model_json_schema(
        mode="serialization", ref_template="#/components/schemas/{model}"
    )
    schemas.update(event.pop("$defs"))
    schemas |= {"StreamEvent": event, "Problem": _PROBLEM}
    found["components"]["headers"] = _HEADERS
    for method, operation in _operations(found):
        responses = operation["responses"]
        if "HTTPValidationError" in json.dumps(responses.get("422", {})):
            del responses["422"]
        if example := ANSWERS.get(operation["operationId"]):
            # Set here, because FastAPI leaves out of examples what is null.
            [success] = [answer for status, answer in responses.items() if status < "300"]
            success["content"]["application/json"]["example"] = example
        for parameter in operation.get("parameters", ()):
            parameter["schema"] = _without_null(parameter["schema"])
        errors = list(_EVERY)
        if operation.get("parameters") or "requestBody" in operation:
            errors.append(400)
        if method == "post":
            errors += _WITH_A_BODY
        for status in errors:
            responses.setdefault(str(status), _problem(status))
        for status, response in responses.items():
            headers = response.setdefault("headers", {})
            headers |= _header_references(REQUEST_ID_HEADER)
            if status not in ("401", "408", "413", "415"):
                headers |= _header_references("RateLimit", "RateLimit-Policy")
        operation["responses"] = dict(sorted(responses.items()))
    return found


def _operations(found: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for path in found["paths"].values():
        yield from path.items()


def _without_null(schema: dict[str, Any]) -> dict[str, Any]:
    """A parameter that is not there is no null: it has no way to be one."""
    kinds = [kind for kind in schema.get("anyOf", ()) if kind != {"type": "null"}]
    if len(kinds) != 1:
        return schema
    return {**{name: value for name, value in schema.items() if name != "anyOf"}, **kinds[0]}


def _problem(status: int) -> dict[str, Any]:
    reason, detail, members = _ERRORS[status]
    example = {
        "type": "about:blank",
        "title": title(status),
        "status": status,
        "detail": detail,
        "instance": _INSTANCE,
        "request_id": _REQUEST_ID,
        "reason": reason,
        **members,
    }
    schema = {"$ref": "#/components/schemas/Problem"}
    response: dict[str, Any] = {
        "description": title(status),
        "content": {MEDIA_TYPE: {"schema": schema, "example": example}},
    }
    if status in _RETRY:
        response["headers"] = _header_references("Retry-After")
    return response


def _header_references(*names: str) -> dict[str, Any]:
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}
