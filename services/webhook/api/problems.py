"""Every error as a problem document (RFC 9457), with nothing of the inside in it."""

import json
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, NoReturn

import grpc
import grpc.aio
import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from google.rpc import error_details_pb2, status_pb2
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.common.errors import (
    InvalidInputError,
    NotFoundError,
    UnauthenticatedError,
    UnavailableError,
    error_kinds,
)
from services.common.tracing import request_id
from services.webhook.api.requests import PATTERNS_IN_WORDS

log = structlog.get_logger(__name__)

MEDIA_TYPE = "application/problem+json"

# That messaging doesn't take our token is no error of the caller's.
_SHOWN = {kind.reason: kind for kind in error_kinds() if kind is not UnauthenticatedError}
_FRAMEWORK_REASONS = {
    404: NotFoundError.reason,
    405: "METHOD_NOT_ALLOWED",
    413: "TOO_LARGE",
}
# As RFC 9110 has them; Python still has their older names.
_TITLES = {413: "Content Too Large", 422: "Unprocessable Content"}
_RETRY_SECONDS = "5"
# Names what concerns the body as a whole; `body` is one of its fields.
_WHOLE = "request"
# For what the library says in words of Python.
_WORDS = {
    "missing": "is required",
    "extra_forbidden": "is not a field of this request",
    "json_invalid": "is not JSON",
    **dict.fromkeys(("model_attributes_type", "model_type", "dict_type"), "must be a JSON object"),
}
_MAX_ERRORS = 20
_MAX_NAME = 100


@dataclass(frozen=True, slots=True)
class FieldError:
    """What is wrong with one field of a request."""

    field: str
    problem: str


class ProblemError(Exception):
    """An answer that is an error.

    Args:
        reason: Stable upper-case word for programs.
        detail: A sentence for people.
        errors: The fields at fault.
        members: More members of the document.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        members: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.reason = reason
        self.detail = detail
        self.errors = errors
        self.members = members or {}
        self.headers = headers or {}

    def response(self) -> Response:
        """The document, as the answer to the current request (`request_id`)."""
        own_id = request_id()
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": title(self.status),
            "status": self.status,
            "detail": self.detail,
            # A trace's id has the size and the look of a UUID.
            "instance": uuid.UUID(own_id).urn,
            "request_id": own_id,
            "reason": self.reason,
            **self.members,
        }
        if self.errors:
            document["errors"] = [
                {"field": one.field, "problem": one.problem} for one in self.errors[:_MAX_ERRORS]
            ]
        # A field's name may hold half of a surrogate pair, which only ASCII can carry.
        body = json.dumps(document, ensure_ascii=True).encode()
        return Response(body, self.status, self.headers, MEDIA_TYPE)


def title(status: int) -> str:
    """A status in words."""
    return _TITLES.get(status) or HTTPStatus(status).phrase


def invalid(field: str, problem: str) -> ProblemError:
    """The problem of one malformed field."""
    field = field[:_MAX_NAME]
    return ProblemError(
        InvalidInputError.http_status,
        InvalidInputError.reason,
        f"{field}: {problem}",
        errors=[FieldError(field, problem)],
    )


def raise_problem(error: grpc.aio.AioRpcError, fields: Mapping[str, str]) -> NoReturn:
    """Raise what a failed call to messaging means for an API client.

    Args:
        fields: Names of the API's fields by those of the call.

    Raises:
        ProblemError: Always.
    """
    info, violations = _details(error)
    kind = _SHOWN.get(info.reason) if info else None
    if kind is None or info is None:
        raise _without_details(error) from error
    field, colon, text = (error.details() or kind.reason).partition(": ")
    detail = f"{fields.get(field, field)}{colon}{text}"
    errors = [
        FieldError(fields.get(violation.field, violation.field), violation.description)
        for violation in violations
    ]
    if errors:
        detail = "; ".join(f"{one.field}: {one.problem}" for one in errors)
    members = {name: info.metadata[name] for name in ("rule", "until") if name in info.metadata}
    headers = {"retry-after": _RETRY_SECONDS} if kind.retryable else {}
    raise ProblemError(
        kind.http_status, kind.reason, detail, errors=errors, members=members, headers=headers
    ) from error


def lost_on_the_way(error: grpc.aio.AioRpcError) -> bool:
    """Whether no answer came, rather than one that says no: that one has details."""
    lost = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
    return error.code() in lost and _details(error)[0] is None


def _details(error: grpc.aio.AioRpcError) -> tuple[Any, list[Any]]:
    """The ErrorInfo, or None, and the fields at fault."""
    packed = dict(error.trailing_metadata() or ()).get("grpc-status-details-bin")
    info = None
    violations: list[Any] = []
    if isinstance(packed, bytes):
        for detail in status_pb2.Status.FromString(packed).details:
            error_info, bad_request = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
            if detail.Unpack(error_info):
                info = error_info
            elif detail.Unpack(bad_request):
                violations += bad_request.field_violations
    return info, violations


def _without_details(error: grpc.aio.AioRpcError) -> ProblemError:
    code = error.code()
    if code is grpc.StatusCode.UNAUTHENTICATED:
        log.error("messaging refuses our GRPC_TOKEN: set the same one for both")
    else:
        log.warning("messaging refused a call", code=code.name, text=error.details())
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return ProblemError(504, "DEADLINE_EXCEEDED", "messaging didn't answer in time.")
    if code in (
        grpc.StatusCode.UNAVAILABLE,
        grpc.StatusCode.CANCELLED,
        # As good as away until somebody mends it; the caller has nothing to mend.
        grpc.StatusCode.UNAUTHENTICATED,
        # It runs an older release than this edge.
        grpc.StatusCode.UNIMPLEMENTED,
    ):
        return ProblemError(
            503,
            UnavailableError.reason,
            "messaging can't be reached now; try again.",
            headers={"retry-after": _RETRY_SECONDS},
        )
    return internal_problem()


def internal_problem() -> ProblemError:
    """What is said of an error that nobody foresaw."""
    return ProblemError(500, "INTERNAL", "Something went wrong here; the log says what.")


def install(app: FastAPI) -> None:
    """Make every error of `app` and of the framework a problem document."""

    async def on_problem(request: Request, error: Exception) -> Response:
        problem = error if isinstance(error, ProblemError) else internal_problem()
        return problem.response()

    async def on_http(request: Request, error: Exception) -> Response:
        problem = internal_problem()
        if isinstance(error, HTTPException) and error.status_code == 400:
            problem = invalid(_WHOLE, "can't be read as JSON")
        elif isinstance(error, HTTPException):
            problem = ProblemError(
                error.status_code,
                _FRAMEWORK_REASONS.get(error.status_code, "INVALID_REQUEST"),
                _http_detail(error),
                headers=error.headers,
            )
        return problem.response()

    async def on_validation(request: Request, error: Exception) -> Response:
        found = error.errors() if isinstance(error, RequestValidationError) else ()
        # Of thousands nobody reads more, and each takes its time.
        errors = [_field_error(one) for one in found[:_MAX_ERRORS]]
        problem = ProblemError(
            InvalidInputError.http_status,
            InvalidInputError.reason,
            "; ".join(f"{one.field}: {one.problem}" for one in errors),
            errors=errors,
        )
        return problem.response()

    app.add_exception_handler(ProblemError, on_problem)
    app.add_exception_handler(Exception, on_problem)
    app.add_exception_handler(HTTPException, on_http)
    app.add_exception_handler(RequestValidationError, on_validation)


def _http_detail(error: HTTPException) -> str:
    if error.status_code == 404:
        return "There is nothing at this address."
    if error.status_code == 405:
        return "This address doesn't take that method."
    return str(error.detail)


def _field_error(found: Any) -> FieldError:
    name = ".".join(str(one) for one in found["loc"][1:])
    if found["type"] == "json_invalid" or not name:
        name = _WHOLE
    problem = _WORDS.get(found["type"], found["msg"].removeprefix("Value error, "))
    if found["type"] == "string_pattern_mismatch":
        problem = PATTERNS_IN_WORDS.get(found["ctx"]["pattern"], problem)
    return FieldError(name[:_MAX_NAME], problem)
