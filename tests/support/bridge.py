"""A Baileys bridge for tests: the real contract of docs/baileys-queue.md, and WhatsApp pretended.

All that it knows lies on disk, as with the real one: one that dies at a step leaves what a killed
process would, and another one goes on from there.
"""

import asyncio
import json
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from services.messaging.providers.baileys.documents import OUTBOX, Send, SendText, parse_document
from services.messaging.providers.baileys.parsing import BadDocumentError, Problem

ACCOUNT: Final = "+14155238886"

STEPS: Final = ("taken", "recorded", "sent", "result", "status", "answered", "removed")
"""After which of these a bridge may die."""


class BridgeDiedError(Exception):
    """The bridge was killed, as asked."""


@dataclass
class PretendWhatsApp:
    """What the bridge hands over, and what the server makes of it.

    Attributes:
        behaviour: ack, refuse (463), not_sent, silent (it has the message, and no
            acknowledgement comes) or hang (nothing ever comes back).
        handed: Every message handed over, repetitions included.
    """

    behaviour: str = "ack"
    handed: list[Send] = field(default_factory=list)

    def on_phone(self) -> list[str]:
        """The texts that a contact's phone shows: of several with one id it shows one."""
        shown = {send.id: send.content for send in self.handed}.values()
        return [one.text if isinstance(one, SendText) else one.caption for one in shown]


class PretendBridge:
    """One run of the bridge.

    Args:
        root: The shared folder.
        own: The bridge's own folder.
        die_after: A step of `STEPS`; None: it lives.
        state: Changes to `state.json`, such as a state.
    """

    def __init__(
        self,
        root: Path,
        own: Path,
        whatsapp: PretendWhatsApp,
        *,
        die_after: str | None = None,
        state: dict[str, Any] | None = None,
        acknowledgement_seconds: float = 0.3,
    ) -> None:
        self._root = root
        self._own = own
        self._whatsapp = whatsapp
        self._die_after = die_after
        self._state = state or {}
        self._acknowledgement_seconds = acknowledgement_seconds
        self._last_time = 0
        self._since = _text(datetime.now(UTC))

    def prepare(self) -> None:
        """What it does at its start."""
        for name in (
            *(f"outbox/{one}" for one in ("new", "cur", "done", "bad", "tmp")),
            *(f"inbox/{one}" for one in ("new", "cur", "bad", "tmp")),
            "media/tmp",
        ):
            (self._root / name).mkdir(mode=0o700, parents=True, exist_ok=True)
        self._own.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.write_state()

    async def run(self) -> None:
        """Work until cancelled, or until it dies.

        Raises:
            BridgeDiedError: As asked.
        """
        self.prepare()
        for file in sorted((self._root / "outbox/cur").iterdir()):
            self._resume(file)
        while True:
            await self.step()
            await asyncio.sleep(0.01)

    async def step(self) -> None:
        """Take what is there now, if the session is open."""
        self.write_state()
        if self._state.get("state", "open") != "open":
            return
        for file in sorted((self._root / "outbox/new").iterdir()):
            taken = self._root / "outbox/cur" / file.name
            try:
                file.rename(taken)
            except FileNotFoundError:
                continue
            self._died("taken")
            await self._handle(taken)

    def write_state(self, **changes: Any) -> None:
        """Write `state.json`, for this moment."""
        self._state = {**self._state, **changes}
        now = _text(datetime.now(UTC))
        state = {
            "v": 1,
            "state": "open",
            "since": self._since,
            "written_at": now,
            "reason": "as the test says",
            "account": ACCOUNT,
            "last_frame_at": now,
            "pace": {"min_seconds": 0, "max_seconds": 0},
            "queues": {"outbox": 0, "inbox": 0, "undecryptable": 0},
            "versions": {"bridge": "test", "baileys": "test", "node": "test"},
            **self._state,
        }
        self._write(state, self._root / "state.json")

    def hear(self, document: dict[str, Any]) -> str:
        """Write something that WhatsApp said; returns the file's name."""
        self._last_time = max(time.time_ns() // 1000, self._last_time + 1)
        name = f"{self._last_time:016}-{secrets.token_hex(8)}.json"
        self._write({"v": 1, "account": ACCOUNT, **document}, self._root / "inbox/new" / name)
        return name

    def put_media(self, content: bytes, sha256: str) -> None:
        """Store a file that came with a message."""
        unfinished = self._root / "media/tmp" / secrets.token_hex(8)
        unfinished.write_bytes(content)
        unfinished.rename(self._root / "media" / sha256)

    def record(self, send_id: str, result: dict[str, Any] | None) -> None:
        """Note what became of an id; None while it is being sent."""
        self._write({"result": result}, self._own / send_id)

    def _resume(self, file: Path) -> None:
        """Go on with what was taken before a crash."""
        send = self._parsed(file)
        if send is None:
            return
        record = self._recorded(send.id)
        if record is not None and record["result"] is not None:
            self._finish(file, send, record["result"])
        elif record is not None:
            self._answer(file, send, {"outcome": "unknown", "code": "interrupted"})
        elif send.expires_at > datetime.now(UTC):
            file.rename(self._root / "outbox/new" / file.name)
        else:
            self._answer(file, send, {"outcome": "not_sent", "code": "expired"})

    async def _handle(self, file: Path) -> None:
        send = self._parsed(file)
        if send is None:
            return
        record = self._recorded(send.id)
        if record is not None and record["result"] is not None:
            self._finish(file, send, record["result"])
            return
        for code, applies in (
            ("expired", send.expires_at <= datetime.now(UTC)),
            ("wrong_account", send.account != ACCOUNT),
            ("not_connected", self._whatsapp.behaviour == "not_sent"),
        ):
            if applies:
                self._answer(file, send, {"outcome": "not_sent", "code": code})
                return
        self.record(send.id, None)
        self._died("recorded")
        result = await self._give(send)
        if result is None:
            self._answer(file, send, {"outcome": "unknown", "code": "no_ack"})
            return
        self.record(send.id, result)
        self._died("result")
        self._finish(file, send, result)

    async def _give(self, send: Send) -> dict[str, Any] | None:
        if self._whatsapp.behaviour == "refuse":
            self._died("sent")
            return {"outcome": "refused", "code": "463", "message": "the account is restricted"}
        self._whatsapp.handed.append(send)
        self._died("sent")
        if self._whatsapp.behaviour == "hang":
            await asyncio.Event().wait()
        if self._whatsapp.behaviour == "silent":
            await asyncio.sleep(self._acknowledgement_seconds)
            return None
        return {"outcome": "accepted", "at": _text(datetime.now(UTC))}

    def _finish(self, file: Path, send: Send, result: dict[str, Any]) -> None:
        at = result.get("at") or _text(datetime.now(UTC))
        said = {"kind": "status", "id": send.id, "ref": send.ref, "at": at}
        if result["outcome"] == "accepted":
            self.hear({**said, "status": "sent"})
        else:
            self.hear({**said, "status": "failed", "code": result["code"]})
        self._died("status")
        self._answer(file, send, result)

    def _answer(self, file: Path, send: Send | None, answer: dict[str, Any]) -> None:
        about = {} if send is None else {"id": send.id, "ref": send.ref, "attempt": send.attempt}
        document = {
            "v": 1,
            "kind": "answer",
            "at": _text(datetime.now(UTC)),
            **about,
            **{name: value for name, value in answer.items() if value is not None},
        }
        self._write(document, self._root / "outbox/done" / file.name)
        self._died("answered")
        file.unlink(missing_ok=True)
        self._died("removed")

    def _parsed(self, file: Path) -> Send | None:
        if not file.name.endswith(".json"):
            reason = BadDocumentError(Problem.FOREIGN, "has a name that no send has")
            self._set_aside(file, reason)
            return None
        try:
            return parse_document(file.read_bytes(), OUTBOX)
        except BadDocumentError as error:
            answer = {"outcome": "refused", "code": "bad_document", "message": str(error)}
            self._answer(self._root / "outbox/tmp" / file.name, None, answer)
            self._set_aside(file, error)
            return None

    def _set_aside(self, file: Path, reason: BadDocumentError) -> None:
        bad = self._root / "outbox/bad" / file.name
        file.rename(bad)
        bad.with_name(f"{bad.name}.reason").write_text(f"{reason}\n")

    def _recorded(self, send_id: str) -> dict[str, Any] | None:
        file = self._own / send_id
        record: dict[str, Any] | None = json.loads(file.read_text()) if file.exists() else None
        return record

    def _died(self, step: str) -> None:
        if self._die_after == step:
            raise BridgeDiedError(step)

    def _write(self, document: dict[str, Any], target: Path) -> None:
        unfinished = self._root / "inbox/tmp" / secrets.token_hex(8)
        with unfinished.open("w") as file:
            json.dump(document, file)
            file.flush()
            os.fsync(file.fileno())
        unfinished.rename(target)


def inbound(message_id: str, content: dict[str, Any], **values: Any) -> dict[str, Any]:
    """A message document, from a contact unless told otherwise."""
    now = datetime.now(UTC)
    return {
        "kind": "message",
        "id": message_id,
        "direction": "in",
        "chat": "972501234567@s.whatsapp.net",
        "name": "Dana",
        "at": _text(now.replace(microsecond=0)),
        "received_at": _text(now),
        "delivery": "notify",
        "content": content,
        **values,
    }


def text(body: str) -> dict[str, Any]:
    """The content of a plain message."""
    return {"type": "text", "text": body}


def ago(seconds: float, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> str:
    """A time in the past, as documents have it."""
    return _text(now() - timedelta(seconds=seconds))


def _text(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")
