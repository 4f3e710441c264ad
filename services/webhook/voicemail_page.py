"""Voicemail at addresses of its own, for calls whose events can't be stored.

Such a webhook gets no 2xx, but its caller is waiting: it is redirected here, and a 2xx from here
acknowledges nothing (docs/adr/0011).
"""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from fastapi.responses import Response

from services.webhook.voice import VOICEMAIL_PATH, VoiceResponder
from services.webhook.voice_routes import MAX_TURN
from services.webhook.voicemail import Words


def voicemail_router(responder: VoiceResponder) -> APIRouter:
    """`/voice/voicemail/{words}`, which holds no secret and is given to everyone."""
    router = APIRouter()

    @router.get(VOICEMAIL_PATH + "/{words}")
    async def voicemail(
        words: Annotated[Words, Path()], turn: Annotated[int, Query(ge=1, le=MAX_TURN)]
    ) -> Response:
        """TwiML."""
        return Response(
            responder.voicemail(words, turn=turn),
            media_type="text/xml",
            headers={"cache-control": "no-store"},
        )

    return router
