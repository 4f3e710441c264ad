"""The errors a caller may meet, each mapped once to a gRPC code, an HTTP status and retrying."""

from datetime import datetime
from typing import ClassVar


class SwitchboardError(Exception):
    """An expected failure whose text may be shown to the caller.

    Attributes:
        reason: Stable upper-case word for programs, sent as `google.rpc.ErrorInfo.reason`.
        grpc_code: Name of the `grpc.StatusCode`.
        http_status: Status of the problem document.
        retryable: Whether the same request may succeed later.
    """

    reason: ClassVar[str] = "INTERNAL"
    grpc_code: ClassVar[str] = "INTERNAL"
    http_status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def metadata(self) -> dict[str, str]:
        """Machine-readable details for `google.rpc.ErrorInfo.metadata`."""
        return {}


class InvalidInputError(SwitchboardError):
    """A field of the request is missing or malformed."""

    reason = "INVALID_INPUT"
    grpc_code = "INVALID_ARGUMENT"
    http_status = 400

    def __init__(self, field: str, problem: str) -> None:
        super().__init__(f"{field}: {problem}")
        self.field = field
        self.problem = problem

    def metadata(self) -> dict[str, str]:
        return {"field": self.field}


class UnauthenticatedError(SwitchboardError):
    """The caller showed no valid credentials."""

    reason = "UNAUTHENTICATED"
    grpc_code = "UNAUTHENTICATED"
    http_status = 401


class NotFoundError(SwitchboardError):
    """What was asked for doesn't exist."""

    reason = "NOT_FOUND"
    grpc_code = "NOT_FOUND"
    http_status = 404


class IdempotencyConflictError(SwitchboardError):
    """The idempotency key was used before with another request."""

    reason = "IDEMPOTENCY_CONFLICT"
    grpc_code = "ALREADY_EXISTS"
    http_status = 422


class PolicyRefusedError(SwitchboardError):
    """A rule forbids this message now."""

    reason = "POLICY_REFUSED"
    grpc_code = "FAILED_PRECONDITION"
    http_status = 409

    def __init__(self, rule: str, explanation: str, until: datetime | None = None) -> None:
        super().__init__(explanation)
        self.rule = rule
        self.until = until

    def metadata(self) -> dict[str, str]:
        until = {"until": self.until.isoformat()} if self.until else {}
        return {"rule": self.rule, **until}


class PaceExceededError(PolicyRefusedError):
    """Too much is sent at once; `until` says when it may go on."""

    reason = "PACE_EXCEEDED"
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True


class MediaUnreadableError(PolicyRefusedError):
    """The host of the file that is to be sent doesn't answer now."""

    reason = "MEDIA_UNREADABLE"
    grpc_code = "UNAVAILABLE"
    http_status = 424
    retryable = True


class OverloadedError(SwitchboardError):
    """Too many requests at once."""

    reason = "OVERLOADED"
    grpc_code = "RESOURCE_EXHAUSTED"
    http_status = 429
    retryable = True


class UnavailableError(SwitchboardError):
    """A part that the request needs can't be reached now."""

    reason = "UNAVAILABLE"
    grpc_code = "UNAVAILABLE"
    http_status = 503
    retryable = True


def error_kinds() -> list[type[SwitchboardError]]:
    """Every kind of error above; each has a reason of its own."""
    return [
        kind
        for kind in globals().values()
        if isinstance(kind, type)
        and issubclass(kind, SwitchboardError)
        and kind is not SwitchboardError
    ]
