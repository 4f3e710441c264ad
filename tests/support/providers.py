"""Each provider with a pretend contact at its other end, in one form for the contract's tests."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from enum import Enum
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qsl

import httpx
from switchboard.events.v1.events_pb2 import Parameter, WebhookReceived

from sandbox.faults import Fault, Faults, RateLimited, Reject
from sandbox.server import RunningSandbox, running_sandbox
from services.common.journal.events import JournalEvent
from services.messaging.consumers.decoding import Translator, decode
from services.messaging.domain.contact import InboundMessage
from services.messaging.domain.message import StatusReport
from services.messaging.ports.sending import Provider
from services.messaging.providers.baileys.documents import SendMedia
from services.messaging.providers.baileys.events import BaileysEvents, journal_event
from services.messaging.providers.twilio import webhooks
from tests.support.baileys import Queue, baileys
from tests.support.bridge import ACCOUNT, PretendBridge, PretendWhatsApp, inbound, text
from tests.support.sandbox import (
    CONTACT,
    OUR_NUMBER,
    PUBLIC_HOST,
    Receiver,
    running_receiver,
    sandbox_settings,
)
from tests.support.sending import now, running, twilio, until


class Trouble(Enum):
    """What may become of a send."""

    REFUSED = "refused"
    """For good."""
    NOT_NOW = "not_now"
    """Certainly not sent, and to be tried again."""
    NO_ANSWER = "no_answer"
    """Sent, and nothing says so."""


class Bench(Protocol):
    """A provider, and the contact whom it reaches.

    Attributes:
        has_templates: Whether templates are sent, or refused.
        quotes: Whether the phone shows what a message replies to. Where it doesn't, that stands in
            our history alone.
    """

    provider: Provider
    has_templates: bool
    quotes: bool

    def trouble(self, kind: Trouble | None) -> None:
        """Let the next sends end so; None: well."""
        ...

    async def phone(self) -> Sequence[str]:
        """The texts on the contact's phone, each message once."""
        ...

    async def files(self) -> Sequence[str]:
        """The types of the files on the contact's phone."""
        ...

    async def quoted(self) -> Sequence[str]:
        """The ids of the messages that those on the phone are shown as replies to."""
        ...

    async def reports(self, provider_message_id: str) -> Sequence[StatusReport]:
        """What is said of a message that was sent, until the contact has read it."""
        ...

    async def written(self, body: str) -> InboundMessage:
        """What is said of a message that the contact writes."""
        ...


class TwilioBench:
    """Twilio, and the sandbox."""

    has_templates = True
    quotes = False

    def __init__(self, provider: Provider, sandbox: RunningSandbox, receiver: Receiver) -> None:
        self.provider = provider
        self._sandbox = sandbox
        self._receiver = receiver

    def trouble(self, kind: Trouble | None) -> None:
        """Let the next sends end so."""
        faults = {
            None: Faults(),
            Trouble.REFUSED: Faults(reject=Reject(error_code=21211)),
            Trouble.NOT_NOW: Faults(rate_limited=RateLimited(retry_after=0)),
            Trouble.NO_ANSWER: Faults(reset_after_accept=Fault(), no_callbacks=Fault()),
        }
        self._sandbox.set_faults(faults[kind])

    async def phone(self) -> Sequence[str]:
        """The texts of all messages to the contact."""
        sent = self._sandbox.state.messages.values()
        return [one.body for one in sent if one.direction != "inbound"]

    async def files(self) -> Sequence[str]:
        """The types of the files of all messages to the contact."""
        sent = self._sandbox.state.messages.values()
        return [file.content_type for one in sent for file in one.media]

    async def quoted(self) -> Sequence[str]:
        """None: Twilio has no parameter for it."""
        return []

    async def reports(self, provider_message_id: str) -> Sequence[StatusReport]:
        """The status callbacks."""
        await self._sandbox.settled()
        return [
            webhooks.status_report(f"key-{number}", event, now())
            for number, event in enumerate(self._events("MessageStatus"))
        ]

    async def written(self, body: str) -> InboundMessage:
        """The webhook of a message."""
        async with httpx.AsyncClient(base_url=self._sandbox.base_url, timeout=60) as http:
            await http.post(f"/sandbox/contacts/{CONTACT}/messages", json={"body": body})
        [event] = self._events("Body")
        return webhooks.inbound_message("key", event, now())

    def _events(self, parameter: str) -> list[WebhookReceived]:
        return [
            WebhookReceived(
                provider="twilio",
                parameters=[Parameter(name=n, value=v) for n, v in one.form.multi_items()],
                query_parameters=[Parameter(name=n, value=v) for n, v in parse_qsl(one.query)],
            )
            for one in self._receiver.received
            if parameter in one.form
        ]


class BaileysBench:
    """Baileys, and a pretend bridge."""

    has_templates = False
    quotes = True

    def __init__(self, queue: Queue, bridge: PretendBridge, whatsapp: PretendWhatsApp) -> None:
        self.provider: Provider = queue.provider
        self._queue = queue
        self._bridge = bridge
        self._whatsapp = whatsapp
        events = BaileysEvents(account=ACCOUNT, own_address=OUR_NUMBER)
        self._translators: dict[str, Translator] = {"baileys": events}

    def trouble(self, kind: Trouble | None) -> None:
        """Let the next sends end so."""
        self._whatsapp.behaviour = {
            None: "ack",
            Trouble.REFUSED: "refuse",
            Trouble.NOT_NOW: "not_sent",
            Trouble.NO_ANSWER: "silent",
        }[kind]

    async def phone(self) -> Sequence[str]:
        """The texts handed over, of several with one id one."""
        return self._whatsapp.on_phone()

    async def files(self) -> Sequence[str]:
        """The types of the files handed over."""
        contents = [send.content for send in self._whatsapp.handed]
        return [one.file.mimetype for one in contents if isinstance(one, SendMedia)]

    async def quoted(self) -> Sequence[str]:
        """The ids that the messages handed over quote."""
        return [send.reply_to.id for send in self._whatsapp.handed if send.reply_to]

    async def reports(self, provider_message_id: str) -> Sequence[StatusReport]:
        """The acknowledgement, and receipts."""
        about = {"kind": "status", "id": provider_message_id}
        for word, second in (("delivered", 5), ("read", 9)):
            at = f"2026-03-01T12:00:0{second}Z"
            self._bridge.hear({**about, "status": word, "at": at})
        found = [self._decoded(event) for event in await self._taken(3)]
        return [one for one in found if isinstance(one, StatusReport)]

    async def written(self, body: str) -> InboundMessage:
        """The document of a message."""
        self._bridge.hear(inbound("3A01", text(body)))
        [found] = [self._decoded(event) for event in await self._taken(1)]
        assert isinstance(found, InboundMessage)
        return found

    def _decoded(self, event: JournalEvent) -> object:
        return decode(event.entry().named_headers(), event.data, self._translators)

    async def _taken(self, count: int) -> list[JournalEvent]:
        found: list[JournalEvent] = []

        async def all_there() -> bool:
            for file in await asyncio.to_thread(self._queue.folder.take_events, 10):
                assert isinstance(file.content, bytes)
                found.append(journal_event(file.content, now()))
            return len(found) == count

        await until(all_there)
        return found


@asynccontextmanager
async def twilio_bench(_: Path) -> AsyncIterator[Bench]:
    """Twilio and its sandbox."""
    async with running_receiver() as receiver:
        settings = sandbox_settings(webhook_url=receiver.base_url)
        async with (
            running_sandbox(settings) as sandbox,
            twilio(sandbox.base_url, public_host=PUBLIC_HOST) as provider,
        ):
            yield TwilioBench(provider, sandbox, receiver)


@asynccontextmanager
async def baileys_bench(folder: Path) -> AsyncIterator[Bench]:
    """Baileys and its pretend bridge."""
    whatsapp = PretendWhatsApp()
    bridge = PretendBridge(folder / "queue", folder / "own", whatsapp)
    bridge.prepare()
    async with baileys(folder / "queue") as queue, running(bridge.run()):
        yield BaileysBench(queue, bridge, whatsapp)


def bench(name: str, folder: Path) -> AbstractAsyncContextManager[Bench]:
    """The bench of a provider."""
    return {"twilio": twilio_bench, "baileys": baileys_bench}[name](folder)
