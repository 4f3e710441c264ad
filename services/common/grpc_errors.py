"""Errors as gRPC statuses, with `google.rpc` details."""

from typing import Any

import grpc
import grpc.aio
import structlog
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2

from services.common.errors import InvalidInputError, SwitchboardError

log = structlog.get_logger(__name__)

_DOMAIN = "switchboard"


def code_of(error: Exception) -> str:
    """The name of the status that an exception becomes."""
    return error.grpc_code if isinstance(error, SwitchboardError) else "INTERNAL"


async def fail(context: grpc.aio.ServicerContext[Any, Any], error: Exception, method: str) -> None:
    """End a call with whatever was raised; only of what we foresaw does the client see the text.

    Raises:
        grpc.aio.AbortError: Always.
    """
    if isinstance(error, grpc.aio.AbortError):
        raise error
    if isinstance(error, SwitchboardError):
        await abort(context, error)
    log.error("unhandled error", method=method, exc_info=error)
    await context.abort(grpc.StatusCode.INTERNAL, "internal error, see the log")


def refuse(handler: Any, error: SwitchboardError) -> Any:
    """A handler of the same form as another, which ends every call with an error."""

    async def refuse(request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        await abort(context, error)

    if handler.request_streaming and handler.response_streaming:
        return grpc.stream_stream_rpc_method_handler(refuse)
    if handler.request_streaming:
        return grpc.stream_unary_rpc_method_handler(refuse)
    if handler.response_streaming:
        return grpc.unary_stream_rpc_method_handler(refuse)
    return grpc.unary_unary_rpc_method_handler(refuse)


async def abort(context: grpc.aio.ServicerContext[Any, Any], error: SwitchboardError) -> None:
    """End a call with an error's code, its text and `google.rpc` details.

    Raises:
        grpc.aio.AbortError: Always.
    """
    code = grpc.StatusCode[error.grpc_code]
    info = error_details_pb2.ErrorInfo(
        reason=error.reason, domain=_DOMAIN, metadata=error.metadata()
    )
    details = [_packed(info)]
    if isinstance(error, InvalidInputError):
        violation = error_details_pb2.BadRequest.FieldViolation(
            field=error.field, description=error.problem
        )
        details.append(_packed(error_details_pb2.BadRequest(field_violations=[violation])))
    status = status_pb2.Status(code=code.value[0], message=str(error), details=details)
    await context.abort(
        code,
        str(error),
        trailing_metadata=(("grpc-status-details-bin", status.SerializeToString()),),
    )


def _packed(message: Any) -> any_pb2.Any:
    packed = any_pb2.Any()
    packed.Pack(message)
    return packed
