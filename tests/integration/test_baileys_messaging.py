"""messaging as a whole with Baileys alone: no variable of Twilio's is set."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from switchboard.messaging.v1 import message_pb2, provider_pb2
from switchboard.messaging.v1 import messaging_service_pb2 as pb
from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub

from services.common.grpc_client import open_channel
from services.messaging.__main__ import serve
from services.messaging.settings import MessagingSettings
from tests.support.bridge import ACCOUNT, PretendBridge, PretendWhatsApp, inbound, text
from tests.support.nats import NatsServer
from tests.support.ports import free_port
from tests.support.sending import running, until

if TYPE_CHECKING:
    # The stubs say that this is how a stub on an asynchronous channel looks.
    from switchboard.messaging.v1.messaging_service_pb2_grpc import (
        MessagingServiceAsyncStub as Api,
    )

CONTACT = "+972501234567"


@asynccontextmanager
async def messaging(database_url: str, nats: NatsServer, queue: Path) -> AsyncIterator["Api"]:
    address = f"127.0.0.1:{free_port()}"
    settings = MessagingSettings.load(
        {
            "PUBLIC_HOST": "https://switchboard.example.com",
            "DATABASE_URL": database_url,
            "NATS_URL": nats.url,
            "GRPC_TOKEN": "test-token",
            "MESSAGING_GRPC_BIND": address,
            "BAILEYS_QUEUE_DIR": str(queue),
            "BAILEYS_NUMBER": ACCOUNT,
        }
    )
    stop = asyncio.Event()
    process = asyncio.create_task(serve(settings, stop))
    channel = open_channel(address, "test-token")
    health: Any = health_pb2_grpc.HealthStub(channel)  # Its type has no methods.

    async def serves() -> bool:
        answer = await health.Check(
            health_pb2.HealthCheckRequest(), timeout=60, wait_for_ready=True
        )
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    try:
        await until(serves)
        yield MessagingServiceStub(channel)
    finally:
        stop.set()
        await process
        await channel.close()


@pytest.fixture
async def stub(database_url: str, nats_server: NatsServer, tmp_path: Path) -> AsyncIterator["Api"]:
    async with messaging(database_url, nats_server, tmp_path / "queue") as stub:
        yield stub


async def provider(stub: "Api") -> provider_pb2.ProviderStatus:
    status = await stub.GetStatus(pb.GetStatusRequest(), timeout=60, wait_for_ready=True)
    assert not status.HasField("fallback")
    return status.provider


async def test_conversation(stub: "Api", tmp_path: Path) -> None:
    """A contact writes, is answered, and reads: all by the bridge, through the same API."""
    whatsapp = PretendWhatsApp()
    bridge = PretendBridge(tmp_path / "queue", tmp_path / "own", whatsapp)
    bridge.prepare()

    async def messages() -> list[message_pb2.Message]:
        page = await stub.ListMessages(
            pb.ListMessagesRequest(contact_address=CONTACT), timeout=60, wait_for_ready=True
        )
        return list(page.messages)

    async with running(bridge.run()):
        bridge.hear(inbound("3A01", text("Is it free?")))

        async def arrived() -> bool:
            return bool(await messages())

        await until(arrived)
        [question] = await messages()
        sent = await stub.SendMessage(
            pb.SendMessageRequest(
                to=CONTACT, body="Yes.", reply_to_message_id=question.id, request_id="answer"
            ),
            timeout=60,
        )
        id_ = sent.message.id

        async def accepted() -> bool:
            answer = (await messages())[0]
            return answer.status == message_pb2.MESSAGE_STATUS_SENT

        await until(accepted)
        [send] = whatsapp.handed
        assert send.ref == id_
        assert send.reply_to is not None
        assert (send.reply_to.id, send.reply_to.text) == ("3A01", "Is it free?")
        bridge.hear(
            {"kind": "status", "id": send.id, "status": "read", "at": "2026-03-01T12:00:00Z"}
        )

        async def read() -> bool:
            return (await messages())[0].status == message_pb2.MESSAGE_STATUS_READ

        await until(read)
        assert (await provider(stub)).state == provider_pb2.PROVIDER_STATE_HEALTHY
    answer, question = await messages()
    assert answer.conversation_id == question.conversation_id
    assert answer.own_address == f"whatsapp:{ACCOUNT}"


async def test_status(stub: "Api", tmp_path: Path) -> None:
    """Whoever asks for the status learns why nothing can be sent, and how to pair a phone."""

    async def says(words: str) -> bool:
        return words in (await provider(stub)).reason

    await until(lambda: says("never run"))
    bridge = PretendBridge(tmp_path / "queue", tmp_path / "own", PretendWhatsApp())
    bridge.prepare()
    pairing = {"qr": "2@abc", "expires_at": "2126-01-01T00:00:00Z"}
    bridge.write_state(state="pairing", reason="scan the code", pairing=pairing)
    await until(lambda: says("waiting to be paired with a phone: scan the code"))
    found = await provider(stub)
    assert found.state == provider_pb2.PROVIDER_STATE_UNAVAILABLE
    assert (found.name, found.pairing.qr) == ("baileys", "2@abc")
    bridge.write_state(state="open", pairing=None)
    (tmp_path / "queue/inbox/new/hello.txt").write_text("hello")
    await until(lambda: says("files that can't be read"))
    assert (await provider(stub)).state == provider_pb2.PROVIDER_STATE_DEGRADED
