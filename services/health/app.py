"""Health over HTTP. Every answer is made from memory: a request asks no component anything."""

import json
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.responses import HTMLResponse, JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.common.head_requests import answering_head
from services.common.http_server import behind_proxies
from services.health.access import Access
from services.health.heard import Pairing
from services.health.page import StatusPage
from services.health.report import Report

_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)
_KEPT_SECONDS: Final = 0.5
_NO_PAGE = "default-src 'none'; frame-ancestors 'none'"


def build_app(
    report: Report,
    *,
    access: Access,
    registry: CollectorRegistry,
    to_pair: Callable[[], Mapping[str, Pairing]] = dict,
    trusted_proxies: str = "127.0.0.1",
) -> ASGIApp:
    """The application.

    Args:
        to_pair: What phones are to be paired with, by component.
        trusted_proxies: Comma-separated addresses whose `X-Forwarded-For` names the sender.
    """
    app = FastAPI(title="Switchboard health", docs_url=None, redoc_url=None, openapi_url=None)
    page = StatusPage()
    inside = [Depends(_only(access))]
    as_json = _Kept(lambda: json.dumps(report.detailed()).encode())
    as_page = _Kept(lambda: page.render(report.detailed()).encode())
    as_pairing_page = _Kept(lambda: page.render(report.detailed(), to_pair()).encode())

    @app.get("/api/health")
    async def health() -> JSONResponse:
        """The status of every component, always 200: it is a report."""
        return JSONResponse(report.basic())

    @app.get("/api/health/detailed", dependencies=inside)
    async def detailed() -> Response:
        """All that is known, always 200."""
        return Response(as_json(), media_type="application/json")

    @app.get("/api/health/readiness")
    async def readiness() -> JSONResponse:
        """200 while everything critical works, else 503 with the reasons."""
        reasons = report.unready()
        return JSONResponse(
            {"ready": not reasons, "reasons": reasons}, status_code=503 if reasons else 200
        )

    @app.get("/api/health/liveness")
    async def liveness() -> JSONResponse:
        """200 while this process answers; other components have no say in it."""
        return JSONResponse({"alive": True})

    @app.get("/metrics", dependencies=inside)
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(generate_latest(registry), media_type=CONTENT_TYPE_LATEST)

    @app.get("/", dependencies=inside)
    async def status() -> HTMLResponse:
        """For people."""
        return HTMLResponse(as_page(), headers={"content-security-policy": page.policy})

    @app.get("/pairing", dependencies=[Depends(_only(access, access.shows_key))])
    async def pairing() -> HTMLResponse:
        """The same, with what a phone is paired with: only for those who show a key."""
        return HTMLResponse(as_pairing_page(), headers={"content-security-policy": page.policy})

    passed_on = behind_proxies(_Headers(answering_head(app)), trusted_proxies)

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        # Below, the client is whom a trusted proxy names.
        scope["peer"] = scope.get("client")
        await passed_on(scope, receive, send)

    return answer


def _only(
    access: Access, allows: Callable[[Request], bool] | None = None
) -> Callable[[Request], Awaitable[None]]:
    allowed = allows or access.allows

    # Not a plain function: FastAPI would run it in a thread, which takes longer than all the rest.
    async def check(request: Request) -> None:
        if allowed(request):
            return
        why = ""
        if access.comes_by_unknown_proxy(request):
            why = " This came by a proxy that TRUSTED_PROXIES doesn't name."
        if access.has_keys:
            raise HTTPException(
                401,
                f"Send a key of HEALTH_KEYS as X-API-Key.{why}",
                headers={"www-authenticate": 'Basic realm="Switchboard health"'},
            )
        raise HTTPException(
            403, f"HEALTH_KEYS has no key with which this could be seen from here.{why}"
        )

    return check


class _Kept:
    """Gives out what was made for half a second: findings come no oftener, and readers may."""

    def __init__(self, make: Callable[[], bytes]) -> None:
        self._make = make
        self._made = b""
        self._until = 0.0

    def __call__(self) -> bytes:
        now = time.monotonic()
        if now >= self._until:
            self._made = self._make()
            self._until = now + _KEPT_SECONDS
        return self._made


class _Headers:
    """Adds what every answer has."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = [*message["headers"], *_HEADERS]
                if all(name != b"content-security-policy" for name, _ in headers):
                    headers.append((b"content-security-policy", _NO_PAGE.encode()))
                message = {**message, "headers": headers}
            await send(message)

        await self._app(scope, receive, answer)
