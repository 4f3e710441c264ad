"""`switchboard.voice.v1.VoiceService`."""

from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Any, Final

import grpc.aio
from switchboard.voice.v1 import voice_service_pb2 as pb
from switchboard.voice.v1 import voice_service_pb2_grpc as rpc

from services.messaging.domain.phone import ContactAddresses
from services.messaging.grpc_api.call_requests import call_filter, call_question, step_request
from services.messaging.grpc_api.calls import call_to_proto, script_to_proto
from services.messaging.grpc_api.requests import page_limit, required_id
from services.messaging.grpc_api.tokens import decode_page_token, encode_page_token
from services.messaging.ports.calls import CallStore
from services.messaging.ports.clock import Clock
from services.messaging.usecases.calls.next_step import NextStep

Context = grpc.aio.ServicerContext[Any, Any]

SERVICE_NAME = pb.DESCRIPTOR.services_by_name["VoiceService"].full_name

_SPARE: Final = timedelta(milliseconds=250)
"""Between the end of a wait and the call's deadline."""


class VoiceServicer(rpc.VoiceServiceServicer):
    """Turns calls into use cases; errors are the interceptor's.

    Args:
        providers: Names of those that bring telephone calls.
    """

    def __init__(
        self,
        next_step: NextStep,
        store: CallStore,
        *,
        addresses: ContactAddresses,
        providers: Collection[str],
        clock: Clock,
    ) -> None:
        self._next_step = next_step
        self._store = store
        self._addresses = addresses
        self._providers = providers
        self._clock = clock

    async def NextStep(  # noqa: N802 - The name is the contract's.
        self, request: pb.NextStepRequest, context: Context
    ) -> pb.NextStepResponse:
        asked = step_request(request, providers=self._providers, now=self._clock())
        left = context.time_remaining()
        if left is not None:
            # An answer after the deadline is none: whatever is ready by then is better.
            hold = min(asked.hold, max(timedelta(0), timedelta(seconds=left) - _SPARE))
            asked = replace(asked, hold=hold)
        return pb.NextStepResponse(script=script_to_proto(await self._next_step(asked)))

    async def GetCall(  # noqa: N802 - The name is the contract's.
        self, request: pb.GetCallRequest, context: Context
    ) -> pb.GetCallResponse:
        call = await self._store.call(required_id(request.id, "id"))
        return pb.GetCallResponse(call=call_to_proto(call))

    async def ListCalls(  # noqa: N802 - The name is the contract's.
        self, request: pb.ListCallsRequest, context: Context
    ) -> pb.ListCallsResponse:
        wanted = call_filter(request, self._addresses)
        question = call_question(wanted)
        page = await self._store.calls(
            wanted,
            limit=page_limit(request.page_size),
            after=decode_page_token(request.page_token, *question),
        )
        return pb.ListCallsResponse(
            calls=[call_to_proto(call) for call in page.calls],
            next_page_token=encode_page_token(page.next, *question) if page.next else "",
        )
