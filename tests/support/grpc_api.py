"""The gRPC API of messaging over a real socket, and what its errors say."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import grpc.aio
from google.rpc import error_details_pb2, status_pb2
from switchboard.messaging.v1 import messaging_service_pb2_grpc as rpc

from services.common.grpc_client import open_channel
from services.common.grpc_server import GrpcServer
from services.messaging.domain.phone import ContactAddresses
from services.messaging.grpc_api.servicer import SERVICE_NAME, MessagingServicer
from services.messaging.ports.media import File, MediaInspector, MediaStore, StoredFile
from services.messaging.ports.provider_status import ProviderState, ProviderStatus
from services.messaging.store.changes import SqlChangeReader
from services.messaging.store.conversations import SqlConversationStore
from services.messaging.store.database import Database
from services.messaging.store.ingest import SqlIngestStore
from services.messaging.store.outbox import SqlOutboxStore
from services.messaging.store.queries import SqlMessageReader
from services.messaging.usecases.send import SendMessage
from services.messaging.usecases.watch import Watch
from tests.support.files import KnownFiles
from tests.support.receiving import inbound, receive
from tests.support.sandbox import OUR_NUMBER
from tests.support.sending import now

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )

TOKEN = "test-token"
ADDRESSES = ContactAddresses("IL")


class MemoryMediaStore:
    """`MediaStore` that keeps files in memory."""

    def __init__(self) -> None:
        self._files: dict[str, File] = {}

    async def put(self, file: File) -> StoredFile:
        """Store a file, once however often it comes."""
        id_ = hashlib.sha256(file.content).hexdigest()
        self._files.setdefault(id_, file)
        return StoredFile(id_, file.content_type, len(file.content))

    async def read(self, file_id: str) -> File | None:
        """A file; None when there is none with this id."""
        return self._files.get(file_id)


@asynccontextmanager
async def served(
    database: Database,
    *,
    media: MediaStore | None = None,
    watch: Watch | None = None,
    files: MediaInspector | None = None,
    local_files: bool = False,
    **options: Any,
) -> AsyncIterator[GrpcServer]:
    """A server as messaging wires it, without anything that sends."""
    send = SendMessage(
        SqlOutboxStore(database, now),
        own_address=OUR_NUMBER,
        provider="twilio",
        on_queued=lambda: None,
        files=files or KnownFiles(),
        local_files=local_files,
        addresses=ADDRESSES,
    )
    watch = watch or Watch(SqlChangeReader(database), poll_seconds=0.05)
    servicer = MessagingServicer(
        send,
        reader=SqlMessageReader(database),
        conversations=SqlConversationStore(database, now),
        watch=watch,
        addresses=ADDRESSES,
        providers=lambda: [ProviderStatus("twilio", ProviderState.UNTRIED, "nothing sent yet")],
        media=media or MemoryMediaStore(),
    )
    server = GrpcServer(
        address="127.0.0.1:0",
        tokens=["old-token", TOKEN],
        service_names=[SERVICE_NAME],
        add_services=lambda server: rpc.add_MessagingServiceServicer_to_server(servicer, server),
        **options,
    )
    await server.start()
    watching = asyncio.create_task(watch.run())
    try:
        yield server
    finally:
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)
        await server.stop(1)


async def have_written(database: Database, *contacts: int) -> None:
    """Let contacts write just now, so that anything may be sent to them."""
    for contact in contacts:
        message = replace(inbound(uuid4().hex, contact=contact), received_at=now())
        await receive(SqlIngestStore(database), clock=now, replies=None)([message], [])


@asynccontextmanager
async def called(server: GrpcServer, token: str = TOKEN) -> AsyncIterator[Api]:
    """A client of the server."""
    async with open_channel(f"127.0.0.1:{server.port}", token) as channel:
        yield rpc.MessagingServiceStub(channel)


def details(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    """The `google.rpc` details of an error, by the name of their type."""
    trailers = dict(error.trailing_metadata() or ())
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    unpacked = {}
    for packed in status.details:
        for kind in (error_details_pb2.ErrorInfo, error_details_pb2.BadRequest):
            message = kind()
            if packed.Unpack(message):
                unpacked[kind.DESCRIPTOR.name] = message
    return unpacked
