"""The edge's ASGI application: the webhooks, the API, and its own health."""

from fastapi import FastAPI
from fastapi.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from services.common.journal.publisher import JournalPublisher
from services.webhook.ingress import WebhookIngress
from services.webhook.spill import Spill


def build_app(
    *,
    ingress: WebhookIngress,
    journal: JournalPublisher,
    spill: Spill,
    signatures_bypassed: bool,
    api: ASGIApp | None = None,
) -> ASGIApp:
    """The whole edge. Webhooks don't pass through FastAPI, whose share would be the greatest.

    Args:
        api: Everything under `/api/`.
    """
    internal = FastAPI(title="Switchboard", docs_url=None, redoc_url=None, openapi_url=None)

    @internal.get("/internal/health")
    async def health() -> JSONResponse:
        """200 while events can be stored somewhere, 503 when they would be refused."""
        can_store = journal.connected or spill.accepting
        whole = journal.connected and spill.accepting and not spill.events
        status = "unavailable" if not can_store else "degraded"
        if whole and not signatures_bypassed:
            status = "ok"
        return JSONResponse(
            {
                "status": status,
                "journal_connected": journal.connected,
                "spill_accepting": spill.accepting,
                "spill_events": spill.events,
                "spill_bytes": spill.bytes,
                "signatures_bypassed": signatures_bypassed,
            },
            status_code=200 if can_store else 503,
            headers={"cache-control": "no-store"},
        )

    async def edge(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ingress.serves(scope["path"]):
            await ingress(scope, receive, send)
        elif api is not None and scope["type"] == "http" and scope["path"].startswith("/api/"):
            await api(scope, receive, send)
        else:
            await internal(scope, receive, send)

    return edge
