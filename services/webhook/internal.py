"""What the edge tells on its internal port: how it is, and its metrics."""

from datetime import UTC, datetime

from fastapi import FastAPI, Response
from fastapi.responses import JSONResponse
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest

from services.common.configuration import configuration_finding
from services.common.journal.publisher import JournalPublisher
from services.common.metrics import version
from services.webhook.messaging_probe import MessagingProbe
from services.webhook.settings import WebhookSettings
from services.webhook.spill import Spill

_NO_STORE = {"cache-control": "no-store"}


def build_internal(
    journal: JournalPublisher,
    spill: Spill,
    messaging: MessagingProbe,
    *,
    registry: CollectorRegistry,
    settings: WebhookSettings | None = None,
    signatures_bypassed: bool = False,
) -> FastAPI:
    """An application for the internal port alone.

    It runs in the event loop that also answers webhooks: when that stands still, so does this.

    Args:
        settings: Whose variables are told, without values.
    """
    app = FastAPI(title="Switchboard edge", docs_url=None, redoc_url=None, openapi_url=None)
    configured = dict(configuration_finding(settings).details) if settings else {}

    @app.get("/internal/health")
    async def health() -> JSONResponse:
        """200 while events can be stored somewhere, 503 when they would be refused."""
        can_store = journal.connected or spill.accepting
        whole = journal.connected and spill.accepting and not spill.events
        status = "unavailable" if not can_store else "degraded"
        if whole and not messaging.trouble and not signatures_bypassed:
            status = "ok"
        since = messaging.trouble_since
        return JSONResponse(
            {
                "status": status,
                "version": version(),
                "journal_connected": journal.connected,
                "journal_trouble": journal.trouble,
                "messaging_trouble": messaging.trouble,
                "messaging_trouble_since": since.isoformat() if since else None,
                "time": datetime.now(UTC).isoformat(),
                "spill_accepting": spill.accepting,
                "spill_events": spill.events,
                "spill_bytes": spill.bytes,
                "signatures_bypassed": signatures_bypassed,
                **configured,
            },
            status_code=200 if can_store else 503,
            headers=_NO_STORE,
        )

    @app.get("/metrics")
    async def metrics() -> Response:
        """For Prometheus."""
        return Response(
            generate_latest(registry), media_type=CONTENT_TYPE_LATEST, headers=_NO_STORE
        )

    return app
