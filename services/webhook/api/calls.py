"""Telephone calls."""

from typing import Annotated

from fastapi import APIRouter, Path, Query
from switchboard.voice.v1 import call_pb2
from switchboard.voice.v1 import voice_service_pb2 as pb

from services.webhook.api import convert, models
from services.webhook.api.messaging import Messaging
from services.webhook.api.openapi import answers
from services.webhook.api.requests import CallsQuery


def calls_router(messaging: Messaging) -> APIRouter:
    """`/calls`."""
    router = APIRouter(tags=["calls"])

    @router.get("/calls", summary="List calls", responses=answers(200))
    async def list_calls(query: Annotated[CallsQuery, Query()]) -> models.CallPage:
        """Newest first. No call is skipped or repeated between pages while new ones arrive."""
        page = await messaging.call(
            messaging.voice.ListCalls,
            pb.ListCallsRequest(
                page_size=query.limit,
                page_token=query.cursor or "",
                number=query.number or "",
                outcome=call_pb2.CallOutcome.Value(f"CALL_OUTCOME_{query.outcome.upper()}")
                if query.outcome
                else call_pb2.CALL_OUTCOME_UNSPECIFIED,
                since=convert.to_timestamp(query.since),
                until=convert.to_timestamp(query.until),
            ),
        )
        return models.CallPage(
            calls=[convert.call(one) for one in page.calls],
            next_cursor=page.next_page_token or None,
        )

    @router.get("/calls/{sid}", summary="Get a call with its turns", responses=answers(200, 404))
    async def get_call(sid: Annotated[str, Path(max_length=200)]) -> models.CallWithTurns:
        """A call, what was said in it, and how long each step took."""
        found = await messaging.call(messaging.voice.GetCall, pb.GetCallRequest(id=sid), id="sid")
        return convert.call_with_turns(found.call)

    return router
