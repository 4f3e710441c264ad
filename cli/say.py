"""`switchboard say`: write as a WhatsApp contact, and watch what becomes of it."""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import grpc.aio
from google.protobuf.timestamp_pb2 import Timestamp
from switchboard.messaging.v1.conversation_pb2 import Conversation
from switchboard.messaging.v1.message_pb2 import Message, MessageStatus
from switchboard.messaging.v1.messaging_service_pb2 import (
    GetConversationRequest,
    GetMessageRequest,
    ListMessagesRequest,
)
from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub

from cli.contacts import ContactError, write_by_twilio, write_by_whatsapp
from cli.data_folder import Addresses, DataFolder, NotRunningError
from cli.environment import load_environment
from cli.run_settings import RunSettings
from services.common.grpc_client import open_channel
from services.common.settings import ConfigurationError

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub

_POLL_SECONDS = 0.1
_UNDELIVERED = MessageStatus.MESSAGE_STATUS_UNDELIVERED


class ConversationError(Exception):
    """The conversation came to no good end; the text says where it stopped."""


def say(text: str, *, contact: str, timeout: float, env_file: Path | None) -> int:
    """Print every step until the answer is read; returns the exit code.

    Args:
        contact: The contact's number in E.164.
        timeout: Seconds to wait for all of it.
    """
    if not text.strip():
        return _refuse('There is nothing to say. Like this: make say TEXT="Hello"')
    try:
        environment = load_environment(env_file, sandbox_allowed=True)
        settings = RunSettings.load(environment.variables)
        addresses = DataFolder(settings.switchboard_data_dir).addresses()
        if addresses.sandbox is None:
            return _refuse(
                "Switchboard runs with a real configuration, and only the sandbox has contacts to"
                " play. Write to its WhatsApp number from a phone instead."
            )
        asyncio.run(_converse(addresses, addresses.sandbox, text, contact, timeout))
    except (FileNotFoundError, ConfigurationError, ConversationError, NotRunningError) as error:
        return _refuse(f"{error}")
    except KeyboardInterrupt:
        return 130
    return 0


def _refuse(sentence: str) -> int:
    print(sentence if sentence.endswith(".") else f"{sentence}.")
    return 1


async def _converse(
    addresses: Addresses, sandbox: str, text: str, contact: str, seconds: float
) -> None:
    waiting_for = "the webhook's answer"

    def step(at: datetime, line: str, awaited: str) -> None:
        nonlocal waiting_for
        waiting_for = awaited
        print(f"{at.astimezone():%H:%M:%S.%f}"[:-3], f" {line}", flush=True)

    async with open_channel(addresses.grpc, addresses.grpc_token) as channel:
        try:
            async with asyncio.timeout(seconds):
                step(datetime.now(UTC), f"{contact} writes: {text}", waiting_for)
                if addresses.whatsapp is None:
                    sid = await write_by_twilio(sandbox, text, contact)
                    told = "the webhook answered 200"
                else:
                    sid = await write_by_whatsapp(addresses.whatsapp, text, contact)
                    told = "WhatsApp has it for the bridge"
                step(datetime.now(UTC), told, "the message in the store")
                await _follow(MessagingServiceStub(channel), contact, sid, step)
        except ContactError as error:
            raise ConversationError(f"{error}") from None
        except TimeoutError:
            raise ConversationError(
                f"After {seconds:g} s Switchboard still waits for {waiting_for}."
                " The logs may say why"
            ) from None
        except grpc.aio.AioRpcError as error:
            raise ConversationError(
                f"messaging answered {error.code().name}: {error.details()}"
            ) from None


async def _follow(
    messaging: "MessagingServiceAsyncStub",
    contact: str,
    sid: str,
    step: Callable[[datetime, str, str], None],
) -> None:
    address = f"whatsapp:{contact}"

    async def find(matches: Callable[[Message], bool]) -> Message:
        while True:
            page = await messaging.ListMessages(
                ListMessagesRequest(contact_address=address, page_size=50)
            )
            for message in page.messages:
                if matches(message):
                    return message
            await asyncio.sleep(_POLL_SECONDS)

    stored = await find(lambda message: message.provider_message_id == sid)
    step(datetime.now(UTC), f"stored as {stored.id}", "an answer")
    found = await messaging.GetConversation(GetConversationRequest(contact_address=address))
    if silent := _silent(found.conversation):
        step(datetime.now(UTC), silent, "nothing")
        return
    answer = await find(lambda message: message.answers_message_id == stored.id)
    step(_time(answer.created_at), f"{answer.author} answers: {answer.body}", "it to be sent")
    shown: set[str] = set()
    while True:
        moments = (
            ("sent", answer.sent_at, "it to be delivered"),
            ("delivered", answer.delivered_at, "it to be read"),
            ("read", answer.read_at, "nothing"),
        )
        for name, at, awaited in moments:
            if name not in shown and at.HasField("time"):
                shown.add(name)
                step(_time(at.time), name, awaited)
        if "read" in shown:
            return
        if answer.status in (MessageStatus.MESSAGE_STATUS_FAILED, _UNDELIVERED):
            raise ConversationError(
                f"the answer wasn't delivered: {answer.error_code} {answer.error_message}"
            )
        await asyncio.sleep(_POLL_SECONDS)
        answer = (await messaging.GetMessage(GetMessageRequest(id=answer.id))).message


def _silent(conversation: Conversation) -> str:
    """Why nobody will answer; "" when the assistant will."""
    if conversation.contact.HasField("opted_out_at"):
        return "nobody answers: this contact has opted out, until they write START"
    if conversation.HasField("assistant_paused_at"):
        return f"the assistant is silent here: paused by {conversation.assistant_paused_by}"
    return ""


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)
