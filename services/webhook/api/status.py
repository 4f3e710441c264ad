"""How sending is doing."""

from fastapi import APIRouter
from switchboard.messaging.v1 import messaging_service_pb2 as pb

from services.webhook.api import convert, models
from services.webhook.api.messaging import Messaging
from services.webhook.api.openapi import answers


def status_router(messaging: Messaging) -> APIRouter:
    """`/status`."""
    router = APIRouter(tags=["status"])

    @router.get("/status", summary="Providers and queues", responses=answers(200))
    async def get_status() -> models.Status:
        """The provider in use, what takes over for it, and how many messages wait."""
        found = await messaging.call(messaging.stub.GetStatus, pb.GetStatusRequest())
        return convert.status(found)

    return router
