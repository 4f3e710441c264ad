"""Health over HTTP."""

from dataclasses import asdict

from fastapi import FastAPI
from fastapi.responses import JSONResponse

from services.health.checks import Monitor, overall

_NO_STORE = {"cache-control": "no-store"}


def build_app(monitor: Monitor) -> FastAPI:
    """The application; it answers from what the monitor found, and asks nobody itself."""
    app = FastAPI(title="Switchboard health", docs_url=None, redoc_url=None, openapi_url=None)

    @app.get("/api/health")
    async def health() -> JSONResponse:
        """The state of every component, always 200: it is a report."""
        components = monitor.report()
        content = {
            "status": overall(components),
            "components": {name: asdict(found) for name, found in components.items()},
        }
        return JSONResponse(content, headers=_NO_STORE)

    @app.get("/api/health/readiness")
    async def readiness() -> JSONResponse:
        """200 when every component can work, else 503 with the reasons."""
        reasons = {
            name: found.reason
            for name, found in monitor.report().items()
            if found.status in ("down", "unknown")
        }
        return JSONResponse(
            {"ready": not reasons, "reasons": reasons},
            status_code=503 if reasons else 200,
            headers=_NO_STORE,
        )

    @app.get("/api/health/liveness")
    async def liveness() -> JSONResponse:
        """200 while this process answers; other components have no say in it."""
        return JSONResponse({"alive": True}, headers=_NO_STORE)

    return app
