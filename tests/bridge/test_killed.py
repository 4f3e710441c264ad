"""SIGKILL of the bridge, of messaging and of WhatsApp, at every step of the queue.

messaging with SQLite, NATS, the bridge and the sandbox's WhatsApp are those that `make run` starts.
Programs send by gRPC and contacts write all the while. `KILL_ROUNDS=100` is the long form, with
`-s` it shows what it did.
"""

import asyncio
import collections
import contextlib
import os
import random
import secrets
import sqlite3
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Final

import grpc.aio
import pytest
from switchboard.messaging.v1.messaging_service_pb2 import SendMessageRequest
from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceStub

from cli.whatsapp import missing_program
from services.common.grpc_client import open_channel
from tests.support.stack import RunningStack, running_stack
from tests.support.whatsapp import WhatsApp, whatsapp_at

if TYPE_CHECKING:
    from switchboard.messaging.v1.messaging_service_pb2_grpc import MessagingServiceAsyncStub

ROUNDS: Final = int(os.environ.get("KILL_ROUNDS", "0"))
VICTIMS: Final = ("bridge", "messaging", "whatsapp")

pytestmark = [
    pytest.mark.timeout(120 + 30 * ROUNDS),
    pytest.mark.skipif(missing_program() is not None, reason=missing_program() or ""),
]

_CONTACTS: Final = tuple(f"97254000{number:04}" for number in range(40))
_BETWEEN_MESSAGES_SECONDS: Final = 0.3
_LOOK_SECONDS: Final = 5.0
_AGAIN_SECONDS: Final = 120
_MOST_WAITING: Final = 8 if ROUNDS else 1
# A send that messaging had claimed and not handed over is looked at again when its lease ends.
_COMPLETE_SECONDS: Final = 240


class Queue:
    """What can be seen from outside of the steps that messages take."""

    def __init__(self, data: Path) -> None:
        self._queue = data / "baileys" / "queue"
        self._own = data / "baileys" / "state"
        self._whatsapp = data / "baileys" / "whatsapp" / "whatsapp.json"
        self._database = data / "switchboard.db"

    def unsettled(self) -> dict[str, str]:
        return self._rows("SELECT message_id, state FROM outbox")

    def handed_over(self) -> object:
        return self._names("outbox/new")

    def taken(self) -> object:
        return self._names("outbox/cur")

    def recorded(self) -> object:
        return [one for one in self._records() if '"sending"' in one]

    def acknowledged(self) -> object:
        return self._names("outbox/cur") and any('"accepted"' in one for one in self._records())

    def on_the_phone(self) -> object:
        with contextlib.suppress(OSError):
            return '"type":"delivered"' in self._whatsapp.read_text()
        return False

    def answered(self) -> object:
        return self._names("outbox/done")

    def decrypted(self) -> object:
        return _names_in(self._own / "received")

    def waiting_at_whatsapp(self) -> object:
        with contextlib.suppress(OSError):
            return '"queue":[{' in self._whatsapp.read_text()
        return False

    def message_in_the_inbox(self) -> object:
        return [name for name in self._names("inbox/new") if "-message-" in name]

    def status_in_the_inbox(self) -> object:
        return [name for name in self._names("inbox/new") if "-status-" in name]

    def taken_in(self) -> object:
        return self._names("inbox/cur")

    def bad(self) -> list[str]:
        """Files that either side could not read."""
        return [*self._names("outbox/bad"), *self._names("inbox/bad")]

    def outbound(self) -> dict[str, str]:
        """Status by text of each message that was sent, or is to be."""
        return self._rows("SELECT body, status FROM messages WHERE direction = 'outbound'")

    def inbound(self) -> list[str]:
        """The ids of the messages that contacts wrote."""
        rows = "SELECT id, provider_message_id FROM messages WHERE direction = 'inbound'"
        return list(self._rows(rows).values())

    def attempts(self) -> int:
        """How often sending was tried in all."""
        return len(self._rows("SELECT id, id FROM message_events WHERE kind = 'attempt'"))

    def _names(self, folder: str) -> list[str]:
        return _names_in(self._queue / folder)

    def _records(self) -> Iterator[str]:
        newest = sorted(
            os.scandir(self._own / "sent"), key=lambda entry: entry.stat().st_mtime, reverse=True
        )
        for entry in newest[:3]:
            with contextlib.suppress(OSError):
                yield Path(entry.path).read_text()

    def _rows(self, query: str) -> dict[str, str]:
        address = f"file:{self._database}?mode=ro"
        with contextlib.closing(sqlite3.connect(address, uri=True)) as database:
            return dict(database.execute(query).fetchall())


def _names_in(folder: Path) -> list[str]:
    return [entry.name for entry in os.scandir(folder)]


STEPS: Final[dict[str, Callable[[Queue], object]]] = {
    "an event is taken in": Queue.taken_in,
    "a send is being made": Queue.recorded,
    "a message is on the phone": Queue.on_the_phone,
    "a send is stored": Queue.unsettled,
    "a send is handed over": Queue.handed_over,
    "a send is taken": Queue.taken,
    "an acknowledgement is recorded": Queue.acknowledged,
    "a send is answered": Queue.answered,
    "a message waits at WhatsApp": Queue.waiting_at_whatsapp,
    "a message is decrypted": Queue.decrypted,
    "a message is in the inbox": Queue.message_in_the_inbox,
    "a status is in the inbox": Queue.status_in_the_inbox,
    "any moment": lambda _: random.random() < 0.01,
}

_EVERY: Final = [
    (step, VICTIMS[(number + shift) % len(VICTIMS)])
    for shift in range(len(VICTIMS))
    for number, step in enumerate(STEPS)
]
_FEW: Final = [
    # Not while it has a send that it hasn't handed over: that one waits until its lease ends.
    ("a send is being made", "messaging"),
    ("a message is decrypted", "bridge"),
    ("a message is on the phone", "whatsapp"),
]


class Traffic:
    """Programs that send by gRPC, and contacts that write; both try until they were heard."""

    def __init__(
        self, messaging: "MessagingServiceAsyncStub", whatsapp: WhatsApp, queue: Queue
    ) -> None:
        self._queue = queue
        self._messaging = messaging
        self._whatsapp = whatsapp
        self._stopped = False
        self.sent: dict[str, str] = {}
        self.written: list[str] = []

    async def run(self) -> None:
        """Until stopped; what was begun is ended."""
        await asyncio.gather(self._send(), self._write())

    def stop(self) -> None:
        """Begin nothing more."""
        self._stopped = True

    async def _send(self) -> None:
        for number in count():
            if self._stopped:
                return
            phone = random.choice(_CONTACTS)
            body = f"out {number}"
            request = SendMessageRequest(to=f"+{phone}", body=body, request_id=body)
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    await self._messaging.SendMessage(request, timeout=2)
                    break
                await asyncio.sleep(0.05)
            self.sent[body] = phone
            await asyncio.sleep(_BETWEEN_MESSAGES_SECONDS)
            await wait(self._few_wait, _COMPLETE_SECONDS)

    async def _few_wait(self) -> bool:
        """On a slow machine programs would send faster than the bridge can."""
        return len(self._queue.unsettled()) < _MOST_WAITING

    async def _write(self) -> None:
        while not self._stopped:
            message_id = f"3A{secrets.token_hex(9).upper()}"
            await self._whatsapp.write(random.choice(_CONTACTS), message_id, "in")
            self.written.append(message_id)
            await asyncio.sleep(_BETWEEN_MESSAGES_SECONDS)


@pytest.fixture
async def stack(tmp_path: Path) -> AsyncIterator[RunningStack]:
    variables = {
        "WHATSAPP_PROVIDER": "baileys",
        "OPENAI_API_KEY": "",
        "BAILEYS_SEND_PATIENCE_SECONDS": "5",
        "BAILEYS_MIN_SECONDS_BETWEEN_MESSAGES": "0",
        "BAILEYS_MAX_SECONDS_BETWEEN_MESSAGES": "0.05",
        "RECIPIENT_SECONDS_BETWEEN_MESSAGES": "0",
        "RECIPIENT_MAX_WAITING": "1000",
    }
    started = running_stack(tmp_path, variables, without=("sandbox", "webhook", "health"))
    # Its parts are waited for in event loops of their own.
    stack = await asyncio.to_thread(started.__enter__)
    try:
        yield stack
    finally:
        await asyncio.to_thread(started.__exit__, None, None, None)


async def wait(condition: Callable[[], Awaitable[bool]], seconds: float) -> None:
    """Until it holds; rarely looked at, as each look reads the database."""
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - Nobody sets an event for it.
            await asyncio.sleep(0.2)


def see(queue: Queue, step: str) -> bool:
    """Wait for a step; False when it didn't come in time, or went by too fast."""
    ends = time.monotonic() + _LOOK_SECONDS
    while time.monotonic() < ends:
        with contextlib.suppress(OSError, sqlite3.Error):
            if STEPS[step](queue):
                return True
        time.sleep(0.0005)
    return False


async def test_killed(stack: RunningStack, tmp_path: Path) -> None:
    """Whatever is killed, and when: a phone shows each message once, each message of a contact is
    stored once, all are read, and no file was torn."""
    queue = Queue(tmp_path / "data")
    channel = open_channel(stack.addresses.grpc, stack.addresses.grpc_token)
    tally: collections.Counter[str] = collections.Counter()
    async with whatsapp_at(stack.addresses.whatsapp) as whatsapp, channel:
        for phone in _CONTACTS:
            await whatsapp.add_contact(phone, read_after_ms=200)
        traffic = Traffic(MessagingServiceStub(channel), whatsapp, queue)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(traffic.run())
            for number in range(ROUNDS or len(_FEW)):
                step, victim = (_EVERY if ROUNDS else _FEW)[number % len(_EVERY)]
                seen = await asyncio.to_thread(see, queue, step)
                await asyncio.to_thread(stack.kill, victim)
                await asyncio.to_thread(stack.start, victim)
                tally[victim] += 1
                tally["as wanted" if seen else f"not seen: {step}"] += 1
                if not ROUNDS:
                    continue
                later = len(traffic.sent)

                async def goes_on(later: int = later) -> bool:
                    new = list(traffic.sent)[later:]
                    outbound = queue.outbound()
                    return any(outbound[body] == "read" for body in new)

                await wait(goes_on, _AGAIN_SECONDS)
            traffic.stop()

        async def complete() -> bool:
            outbound = queue.outbound()
            return set(outbound) == set(traffic.sent) and set(outbound.values()) == {"read"}

        async def all_in() -> bool:
            return set(traffic.written) <= set(queue.inbound())

        began = time.monotonic()
        with contextlib.suppress(TimeoutError):
            await wait(complete, _COMPLETE_SECONDS)
            await wait(all_in, _COMPLETE_SECONDS)
        statuses = collections.Counter(queue.outbound().values())
        assert statuses == {"read": len(traffic.sent)}, stack.log("messaging")
        assert sorted(queue.inbound()) == sorted(traffic.written)
        deliveries = 0
        for phone in _CONTACTS:
            shown = await whatsapp.shown(phone)
            expected = [body for body, to in traffic.sent.items() if to == phone]
            assert sorted(one["content"]["text"] for one in shown) == sorted(expected)
            deliveries += sum(one["deliveries"] for one in shown)
        state = await whatsapp.state()
        assert (state["empty"], state["violations"]) == ([], [])
        assert queue.bad() == []
    sys.stdout.write(
        f"{ROUNDS or len(_FEW)} rounds: {dict(tally)}; sent {len(traffic.sent)} messages in "
        f"{queue.attempts()} attempts and {deliveries} deliveries, received "
        f"{len(traffic.written)}; complete {time.monotonic() - began:.0f} s after the last round\n"
    )
