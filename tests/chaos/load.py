"""What the world does to Switchboard: signed webhooks, and programs that send.

Every event and every send is written into a ledger, with what was answered.
"""

import asyncio
import random
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, Self
from urllib.parse import urlencode

import aiohttp
from twilio.request_validator import (  # type: ignore[import-untyped]  # has no types
    RequestValidator,
)

from tests.support.stack import API_KEY

TOKEN = "sandbox-auth-token"
OWN = "whatsapp:+14155238886"
ACCOUNT = "AC00000000000000000000000000000000"
CONTACTS = 24
_STRANGER = "+972502000000"

_INCOMING = "/webhook/whatsapp/incoming"
_STATUS = "/webhook/whatsapp/status"
_CALL = "/webhook/incoming_call"
_CALL_STATUS = "/webhook/call_status"
_TWILIO_WAITS = aiohttp.ClientTimeout(total=15, connect=5)
_CLIENT_WAITS = aiohttp.ClientTimeout(total=12, connect=5)
_SEND_FOR_SECONDS = 120
_BURST = 48

Kind = Literal["message", "status", "call"]


@dataclass
class Event:
    """A webhook's event.

    Attributes:
        key: By which the database knows it.
        acknowledged: Whether it was answered with a 2xx, at any attempt.
    """

    kind: Kind
    key: str
    acknowledged: bool = False


@dataclass
class Send:
    """A message that a program asked for.

    Attributes:
        body: Different for every send.
        id: As the API gave it; None while no answer said so.
        refusal: Why the API won't ever take it.
    """

    key: str
    to: str
    body: str
    id: str | None = None
    refusal: str = ""


@dataclass
class Ledger:
    """What was asked, and what was answered.

    Attributes:
        failures: Requests that weren't answered with a 2xx, each with the reason.
    """

    events: dict[str, Event] = field(default_factory=dict)
    sends: dict[str, Send] = field(default_factory=dict)
    requests: int = 0
    failures: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> list[Event]:
        """The events that Switchboard took responsibility for."""
        return [event for event in self.events.values() if event.acknowledged]


class Load:
    """Sends webhooks and messages at a rate, until it is stopped.

    Args:
        api: Origin of the balancer before the edges.
        health: Origin of health, which is asked how it is; "" for none.
        rate: Requests a second.
    """

    def __init__(
        self, api: str, chance: random.Random, *, health: str = "", rate: float = 20
    ) -> None:
        self._api = api
        self._health = health
        self._chance = chance
        self._rate = rate
        self._prefix = f"{chance.getrandbits(48):012x}"
        self._number = 0
        self._validator = RequestValidator(TOKEN)
        self._tasks: set[asyncio.Task[object]] = set()
        self.ledger = Ledger()

    async def __aenter__(self) -> Self:
        # As Twilio does: a connection for each request.
        self._twilio = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0), timeout=_TWILIO_WAITS
        )
        self._client = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(force_close=True, limit=0),
            timeout=_CLIENT_WAITS,
            headers={"X-API-Key": API_KEY},
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._twilio.close()
        await self._client.close()

    async def introduce(self) -> None:
        """Every contact writes once: only who wrote may be written to."""
        await asyncio.gather(*(self.message(contact(n), "Hello") for n in range(CONTACTS)))

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until `stop` is set; then wait for what is under way."""
        while not stop.is_set() and not self._twilio.closed:
            self._spawn()
            await asyncio.sleep(self._chance.expovariate(self._rate))
        while self._tasks:
            await asyncio.wait(self._tasks)

    def _spawn(self) -> None:
        to = contact(self._chance.randrange(CONTACTS))
        number = self._next()
        kinds = {
            "messages": 4,
            "stray": 1,
            "burst": 0.5,
            "calls": 1,
            "sends": 4,
            "probes": bool(self._health),
        }
        match self._chance.choices([*kinds], [*kinds.values()])[0]:
            case "messages":
                work: Coroutine[Any, Any, object] = self.message(to, f"Message {number}")
            case "stray":
                work = self._stray_statuses()
            case "burst":
                work = self._burst()
            case "calls":
                work = self._call()
            case "probes":
                work = self._probe()
            case _:
                work = self.send(to, f"Send {self._prefix} {number}")
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _next(self) -> int:
        self._number += 1
        return self._number

    def _sid(self, prefix: str) -> str:
        return f"{prefix}{self._prefix}{self._next():020x}"

    async def message(self, sender: str, body: str) -> Event:
        """A contact writes; now and then Twilio says so twice."""
        sid = self._sid("SM")
        parameters = {
            "MessageSid": sid,
            "AccountSid": ACCOUNT,
            "From": sender,
            "To": OWN,
            "Body": body,
            "NumMedia": "0",
            "ProfileName": "Someone",
        }
        event = Event("message", f"message:{sid}")
        await self._deliver(event, _INCOMING, parameters)
        return event

    async def _stray_statuses(self) -> None:
        """Reports on a message that nobody here sent, in any order."""
        sid = self._sid("SM")
        statuses = ["sent", "delivered", "read"]
        self._chance.shuffle(statuses)
        for status in statuses:
            event = Event("status", f"status:{sid}:{status}")
            parameters = {"MessageSid": sid, "MessageStatus": status, "AccountSid": ACCOUNT}
            await self._deliver(event, _STATUS, parameters)

    async def _burst(self) -> None:
        """So much at once that an edge commits it together."""
        await asyncio.gather(*(self._stray_statuses() for _ in range(_BURST)))

    async def _call(self) -> None:
        """Somebody calls who never wrote, so that nobody writes to them."""
        sid = self._sid("CA")
        parameters = {
            "CallSid": sid,
            "AccountSid": ACCOUNT,
            "From": _STRANGER,
            "To": OWN.removeprefix("whatsapp:"),
            "CallStatus": "ringing",
        }
        await self._deliver(Event("call", f"call:{sid}"), _CALL, parameters)
        ended = {**parameters, "CallStatus": "completed", "CallDuration": "3"}
        event = Event("call", f"callstatus:{sid}:completed")
        await self._deliver(event, _CALL_STATUS, ended)

    async def _probe(self) -> None:
        """Somebody asks health, which has an answer whatever else is away."""
        self.ledger.requests += 1
        try:
            async with self._client.get(f"{self._health}/api/health") as answer:
                await answer.read()
                if answer.status in (200, 503):
                    return
                failure = f"/api/health {answer.status}"
        except (aiohttp.ClientError, TimeoutError) as error:
            failure = f"/api/health {type(error).__name__}"
        self.ledger.failures.append(failure)

    async def _deliver(self, event: Event, path: str, parameters: Mapping[str, str]) -> None:
        self.ledger.events[event.key] = event
        copies = 2 if self._chance.random() < 0.1 else 1
        await asyncio.gather(*(self._post(event, path, parameters) for _ in range(copies)))

    async def _post(self, event: Event, path: str, parameters: Mapping[str, str]) -> None:
        """Once, and once more when there was no connection, as Twilio does."""
        url = self._api + path
        headers = {
            "content-type": "application/x-www-form-urlencoded",
            "x-twilio-signature": self._validator.compute_signature(url, dict(parameters)),
        }
        self.ledger.requests += 1
        failure = ""
        for _ in range(2):
            try:
                async with self._twilio.post(
                    url, data=urlencode(parameters), headers=headers, allow_redirects=False
                ) as answer:
                    await answer.read()
                    # Callers are sent elsewhere when their event can't be stored.
                    if 200 <= answer.status < 300:
                        event.acknowledged = True
                        return
                    failure = f"{path} {answer.status}"
                    break
            except aiohttp.ClientConnectorError as error:
                failure = f"{path} {type(error).__name__}"
            except (aiohttp.ClientError, TimeoutError) as error:
                failure = f"{path} {type(error).__name__}"
                break
        self.ledger.failures.append(failure)

    async def send(self, to: str, body: str) -> Send:
        """A program sends, and asks again under the same key until it has an answer."""
        send = Send(key=f"{self._prefix}-{self._next()}", to=to, body=body)
        self.ledger.sends[send.key] = send
        loop = asyncio.get_running_loop()
        give_up = loop.time() + _SEND_FOR_SECONDS
        pause = 0.2
        while loop.time() < give_up:
            self.ledger.requests += 1
            try:
                async with self._client.post(
                    f"{self._api}/api/whatsapp/send",
                    json={"to": to, "body": body},
                    headers={"Idempotency-Key": send.key},
                ) as answer:
                    if 200 <= answer.status < 300:
                        send.id = (await answer.json())["id"]
                        return send
                    failure = f"/api/whatsapp/send {answer.status}"
                    if 400 <= answer.status < 500 and answer.status != 429:
                        send.refusal = f"{answer.status} {await answer.text()}"
                        return send
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                failure = f"/api/whatsapp/send {type(error).__name__}"
            self.ledger.failures.append(failure)
            await asyncio.sleep(pause)
            pause = min(2 * pause, 2)
        return send


def contact(number: int) -> str:
    """The address of one of the contacts."""
    return f"whatsapp:+9725010{number:05d}"
