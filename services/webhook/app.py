"""The edge's ASGI application: the webhooks, the API and audio."""

from collections.abc import Sequence

from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.http_server import behind_proxies
from services.common.tracing import Within, new_traceparent, request_id
from services.webhook.api import problems
from services.webhook.ingress import WebhookIngress

_API_PREFIX = "/api/"


class Edge(FastAPI):
    """The whole edge: a FastAPI application that hands webhooks and the API on by themselves.

    Its own stack, which does nothing for a webhook, would be the greatest share of one.

    Args:
        api: Everything under `/api/`.
        routers: What else is served.
        trusted_proxies: Comma-separated addresses whose `X-Forwarded-For` names the sender.
    """

    def __init__(
        self,
        *,
        ingress: WebhookIngress,
        api: ASGIApp | None = None,
        routers: Sequence[APIRouter] = (),
        trusted_proxies: str = "127.0.0.1",
    ) -> None:
        super().__init__(
            title="Switchboard",
            docs_url=None,
            redoc_url=None,
            openapi_url=None,
            redirect_slashes=False,
        )
        problems.install(self)
        self._ingress = ingress
        # The ingress asks who sent a request only when it refuses it.
        self._framework = behind_proxies(super().__call__, trusted_proxies)
        for router in routers:
            self.include_router(router)
        self._api = behind_proxies(api, trusted_proxies) if api is not None else None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._ingress.serves(scope["path"]):
            await self._ingress(scope, receive, send)
        elif (
            self._api is not None
            and scope["type"] == "http"
            and scope["path"].startswith(_API_PREFIX)
        ):
            # Not a route: a route's path stops at a line's end, and this one takes whatever comes.
            await self._api(scope, receive, send)
        else:
            with Within(new_traceparent()):
                await self._framework(scope, receive, _with_request_id(send))


def _with_request_id(send: Send) -> Send:
    """Adds the request's id to errors; audio, which caches keep for ever, belongs to none."""

    async def answer(message: Message) -> None:
        if message["type"] == "http.response.start" and message["status"] >= 400:
            own_id = (b"x-request-id", request_id().encode())
            message = {**message, "headers": [*message["headers"], own_id]}
        await send(message)

    return answer
