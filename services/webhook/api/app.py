"""The REST API as one ASGI application."""

import json
from collections.abc import Sequence

from fastapi import APIRouter, Depends, FastAPI, Security
from fastapi.security import APIKeyHeader
from prometheus_client import CollectorRegistry
from starlette.middleware.cors import CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp

from services.common.head_requests import answering_head
from services.common.tracing import Tracing
from services.webhook.api import problems
from services.webhook.api.calls import calls_router
from services.webhook.api.conversations import conversations_router
from services.webhook.api.door import OPENAPI_PATH, REQUEST_ID_HEADER, Door
from services.webhook.api.keys import ApiKeys
from services.webhook.api.limits import HeldRequests, Turns
from services.webhook.api.media import media_router
from services.webhook.api.messages import messages_router
from services.webhook.api.messaging import Messaging
from services.webhook.api.openapi import document
from services.webhook.api.status import status_router
from services.webhook.api.stream import stream_router


def build_api(
    *,
    messaging: Messaging,
    keys: ApiKeys,
    held: HeldRequests,
    registry: CollectorRegistry,
    cors_origins: Sequence[str] = (),
    requests_per_minute: int = 600,
    failures_per_minute: int = 30,
    heartbeat_seconds: float = 15.0,
    tracing: Tracing | None = None,
) -> ASGIApp:
    """Everything under `/api/`.

    Args:
        held: Close it when the edge stops, or open streams delay that.
        cors_origins: Origins whose pages may use the API from a browser.
        requests_per_minute: Of each API key.
        failures_per_minute: Requests without a good key, of each sender.
        heartbeat_seconds: Silence after which a stream says that it is still there.
    """
    # The door checks the key; this declares it.
    declared = APIKeyHeader(name="X-API-Key", scheme_name="ApiKey", auto_error=False)
    app = FastAPI(
        title="Switchboard",
        version="1",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        generate_unique_id_function=lambda route: route.name,
    )
    problems.install(app)
    calls = APIRouter(prefix="/api", dependencies=[Security(declared)])
    calls.include_router(calls_router(messaging))
    app.include_router(calls)
    routes = APIRouter(prefix="/api/whatsapp", dependencies=[Security(declared)])
    routes.include_router(status_router(messaging))
    turn = Depends(Turns().one)
    routes.include_router(messages_router(messaging, held, turn))
    routes.include_router(conversations_router(messaging, turn))
    routes.include_router(media_router(messaging, held))
    routes.include_router(stream_router(messaging, held, heartbeat_seconds=heartbeat_seconds))
    app.include_router(routes)
    described = json.dumps(document(app)).encode()

    @app.get(OPENAPI_PATH, include_in_schema=False)
    async def openapi() -> Response:
        return Response(described, media_type="application/json")

    door = answering_head(
        Door(
            app,
            keys=keys,
            requests_per_minute=requests_per_minute,
            failures_per_minute=failures_per_minute,
            registry=registry,
            tracing=tracing,
        ),
        but=[f"{routes.prefix}/stream"],
    )
    if not cors_origins:
        return door
    return CORSMiddleware(
        door,
        allow_origins=cors_origins,
        allow_methods=["GET", "HEAD", "POST"],
        allow_headers=["X-API-Key", "Content-Type", "Idempotency-Key", "Last-Event-ID"],
        expose_headers=[
            "Location",
            "ETag",
            "RateLimit",
            "RateLimit-Policy",
            "Retry-After",
            REQUEST_ID_HEADER,
        ],
    )
