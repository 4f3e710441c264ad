"""People who call: a few at a time, on the sandbox's telephone, faster than people speak."""

import asyncio
import contextlib
import itertools
import random
from collections.abc import Mapping, Sequence
from typing import Any, Self
from urllib.parse import parse_qsl, urlsplit

import aiohttp

from tests.chaos.load import CONTACTS, Event, Ledger, contact

AT_ONCE = 2
_SPEED = 20
_PAUSE_SECONDS = 1.0
_LOOKS_SECONDS = 0.1

Call = dict[str, Any]


class Callers:
    """Keeps calls under way until it is told to stop.

    Args:
        sandbox: Origin of its control API.
        at_once: So many calls are under way.

    Attributes:
        begun: So many calls there were.
    """

    def __init__(self, sandbox: str, chance: random.Random, *, at_once: int) -> None:
        self._sandbox = sandbox
        self._chance = chance
        self._at_once = at_once
        self._prefix = f"lot {chance.getrandbits(24)}"
        self._numbers = itertools.count(1)
        self.begun = 0

    async def __aenter__(self) -> Self:
        self._client = aiohttp.ClientSession()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._client.close()

    async def run(self, stop: asyncio.Event) -> None:
        """Call and call again until `stop` is set; then let everybody finish."""
        if self._at_once and self._chance.random() < 0.5:
            await self._told_twice()
        await asyncio.gather(*(self._caller(stop) for _ in range(self._at_once)))

    async def _told_twice(self) -> None:
        """Twilio says everything twice at once, and of recordings before the caller is heard."""
        faults = {
            "duplicate_call_webhooks": {"copies": 2, "times": 50},
            "recording_callback": {"when": self._chance.choice(["before", "after"]), "copies": 2},
        }
        async with self._client.put(f"{self._sandbox}/sandbox/faults", json=faults) as answer:
            answer.raise_for_status()

    async def _caller(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self.call(self._scenario())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._chance.uniform(0, _PAUSE_SECONDS)):
                    await stop.wait()

    async def call(self, scenario: Mapping[str, Any]) -> Call:
        """A whole call, as the sandbox tells it."""
        self.begun += 1
        async with self._client.post(
            f"{self._sandbox}/sandbox/calls", json={"speed": _SPEED, **scenario}
        ) as answer:
            answer.raise_for_status()
            sid = (await answer.json())["sid"]
        while True:
            async with self._client.get(f"{self._sandbox}/sandbox/calls/{sid}") as answer:
                call: Call = await answer.json()
            if is_over(call):
                return call
            await asyncio.sleep(_LOOKS_SECONDS)

    async def is_answered(self) -> bool:
        """Whether somebody who asks something by telephone now is answered."""
        name = self._name()
        call = await self.call({"turns": [_asks(name)], "caller": _number(0)})
        return any(name in text for text in heard(call))

    def _scenario(self) -> Mapping[str, Any]:
        question, another = self._question(), self._question()
        bye = {"text": "Thanks, goodbye!"}
        person = self._chance.choice(["answers", "no-answer", "busy"])
        kinds: Sequence[Mapping[str, Any]] = (
            {"turns": [question, another, bye]},
            {"turns": [question, bye]},
            {"turns": [{}, question, {}, another]},
            {"turns": [{**question, "hang_up": True}]},
            {"turns": [question, another], "hang_up": {"playing": self._chance.randint(0, 2)}},
            {"turns": [question, another], "hang_up": {"waiting": self._chance.randint(1, 2)}},
            {"turns": [question, {"text": "I want to speak to a person."}], "person": person},
            {"turns": [{"text": "One moment.", "digits": "5"}, question]},
            {"turns": [], "stays": self._chance.random() < 0.3},
        )
        return {
            "caller": _number(self._chance.randrange(CONTACTS)),
            **self._chance.choice(kinds),
        }

    def _question(self) -> dict[str, Any]:
        name = self._name()
        if self._chance.random() < 0.5:
            return {"text": f"Tell me all about {name}."}
        return _asks(name)

    def _name(self) -> str:
        """Nobody else asks about it."""
        return f"{self._prefix}-{next(self._numbers)}"


def _asks(name: str) -> dict[str, Any]:
    return {"text": f"What about {name}?"}


def _number(contact_number: int) -> str:
    return contact(contact_number).removeprefix("whatsapp:")


def is_over(call: Call) -> bool:
    """Whether a call has ended and nothing more is told of it."""
    kinds = [entry["kind"] for entry in call["timeline"]]
    return "status_callback" in kinds and kinds.count("recorded") <= kinds.count(
        "recording_callback"
    )


def heard(call: Call) -> list[str]:
    """All the words that a caller heard, in order."""
    return [
        entry["text"] or "" for entry in call["timeline"] if entry["kind"] in ("playing", "saying")
    ]


def note_acknowledged(ledger: Ledger, calls: Sequence[Call]) -> None:
    """Put what was acknowledged in these calls into the ledger, as events by their keys."""
    for call in calls:
        for key, status in _told(call):
            ledger.events[key] = Event("call", key, acknowledged=status // 100 == 2)


def _told(call: Call) -> list[tuple[str, int]]:
    """What the application was told of a call: each event's key, and how it was answered."""
    told, recording = [], ""
    for entry in call["timeline"]:
        key = ""
        match entry["kind"]:
            case "recorded":
                recording = entry["sid"]
            case "webhook":
                key = _key(entry["url"], call["sid"], recording)
            case "recording_callback":
                key = f"recording:{entry['sid']}:completed"
            case "status_callback":
                key = f"callstatus:{call['sid']}:{entry['text']}"
        if key:
            told.append((key, entry["status"] or 0))
    return told


def _key(url: str, sid: str, recording: str) -> str:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    match parts.path.rpartition("/")[2]:
        case "incoming_call":
            return f"call:{sid}"
        case "handle_recording":
            return f"recording:{recording}:action"
        case "continue":
            return f"continue:{sid}:{query['turn']}:{query['after']}:{query.get('part', 0)}"
    return ""
