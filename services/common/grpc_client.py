"""Channels to our own services: the token and a deadline on every call."""

from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio


class _CallDefaults(grpc.aio.UnaryUnaryClientInterceptor):
    """Adds the token, and a deadline where the caller gave none.

    A call without a deadline may hang for ever.
    """

    def __init__(self, token: str, default_seconds: float) -> None:
        self._authorization = ("authorization", f"Bearer {token}")
        self._default_seconds = default_seconds

    async def intercept_unary_unary(
        self,
        continuation: Callable[[grpc.aio.ClientCallDetails, Any], Any],
        client_call_details: grpc.aio.ClientCallDetails,
        request: Any,
    ) -> Any:
        metadata = grpc.aio.Metadata(*(client_call_details.metadata or ()))
        metadata.add(*self._authorization)
        details = grpc.aio.ClientCallDetails(
            method=client_call_details.method,
            timeout=client_call_details.timeout or self._default_seconds,
            metadata=metadata,
            credentials=client_call_details.credentials,
            wait_for_ready=client_call_details.wait_for_ready,
        )
        return await continuation(details, request)


def open_channel(address: str, token: str, default_seconds: float = 10.0) -> grpc.aio.Channel:
    """A channel to `host:port` of one of our services."""
    return grpc.aio.insecure_channel(
        address,
        interceptors=[_CallDefaults(token, default_seconds)],
        # Our services are reached directly, whatever proxy leads outside.
        options=[("grpc.enable_http_proxy", 0)],
    )
