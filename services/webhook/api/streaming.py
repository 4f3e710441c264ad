"""Answers that are passed on part by part."""

import contextlib
from collections.abc import AsyncIterator, Mapping

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send


class ClosingStream(StreamingResponse):
    """Closes what it reads from, also when the client is gone before the first part."""

    def __init__(
        self,
        parts: AsyncIterator[bytes],
        closing: contextlib.ExitStack,
        *,
        headers: Mapping[str, str],
    ) -> None:
        super().__init__(parts, headers=headers)
        self._closing = closing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        with self._closing:
            await super().__call__(scope, receive, send)
