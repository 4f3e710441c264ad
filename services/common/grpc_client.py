"""Channels to our own services: the token and a deadline on every call."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from services.common.tracing import TRACEPARENT, current


class _UnaryDefaults(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the token, the request's context, and a deadline where the caller gave none.

    A call without a deadline may hang for ever.
    """

    def __init__(self, token: str, default_seconds: float) -> None:
        self._token = token
        self._default_seconds = default_seconds

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        timeout = client_call_details.timeout or self._default_seconds
        details = _with_token(client_call_details, self._token, timeout)
        return await continuation(details, request)


class _StreamDefaults(grpc.aio.UnaryStreamClientInterceptor):
    """Adds token and context. A stream may last, so its deadline is the caller's matter."""

    def __init__(self, token: str) -> None:
        self._token = token

    async def intercept_unary_stream(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        timeout = client_call_details.timeout
        details = _with_token(client_call_details, self._token, timeout)
        return await continuation(details, request)


def _with_token(
    details: grpc.aio.ClientCallDetails, token: str, timeout: float | None
) -> grpc.aio.ClientCallDetails:
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("authorization", f"Bearer {token}")
    if traceparent := current():
        metadata.add(TRACEPARENT, traceparent)
    return grpc.aio.ClientCallDetails(
        method=details.method,
        timeout=timeout,
        metadata=metadata,
        credentials=details.credentials,
        wait_for_ready=details.wait_for_ready,
    )


# Several times what messaging's largest pages have, of which it says where they end.
_MOST_ANSWER_BYTES = 4 * 1024 * 1024


def open_channel(address: str, token: str, default_seconds: float = 10.0) -> grpc.aio.Channel:
    """A channel to `host:port` of one of our services."""
    return grpc.aio.insecure_channel(
        address,
        interceptors=[
            _UnaryDefaults(token, default_seconds),
            _StreamDefaults(token),
        ],
        options=[
            # A name may stand for several replicas: each call goes to the next one that answers.
            ("grpc.lb_policy_name", "round_robin"),
            # Our services are reached directly, whatever proxy leads outside.
            ("grpc.enable_http_proxy", 0),
            ("grpc.max_receive_message_length", _MOST_ANSWER_BYTES),
            # By default one that was away for long is looked for only every two minutes.
            ("grpc.initial_reconnect_backoff_ms", 250),
            ("grpc.max_reconnect_backoff_ms", 2000),
        ],
    )
