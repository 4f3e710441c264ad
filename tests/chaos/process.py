"""A service that dies between two of its steps: `python -m tests.chaos.process services.webhook`.

The calls between its steps are wrapped before its own module runs. A step is armed by a file of
its name in the folder STEPS; the first process that gets there takes the file away and ends as if
killed with -9.
"""

import asyncio
import functools
import os
import runpy
import signal
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

_FOLDER = Path(os.environ["STEPS"])
_CALL_SECONDS = 0.5
"""So long after a call to Twilio has begun it is under way."""


def _reached(step: str) -> None:
    try:
        (_FOLDER / step).unlink()
    except FileNotFoundError:
        return
    os.kill(os.getpid(), signal.SIGKILL)


def _wrap(owner: Any, name: str, wrapper: Callable[..., Any]) -> None:
    setattr(owner, name, functools.wraps(getattr(owner, name))(wrapper))


def _around(owner: Any, name: str, before: str = "", after: str = "") -> None:
    """Steps before and after an asynchronous method; not after one that found nothing to do."""
    original: Callable[..., Awaitable[Any]] = getattr(owner, name)

    async def around(*arguments: Any, **named: Any) -> Any:
        if before:
            _reached(before)
        result = await original(*arguments, **named)
        if after and result not in ((), []):
            _reached(after)
        return result

    _wrap(owner, name, around)


def _webhook() -> None:
    from services.common.journal.publisher import JournalPublisher
    from services.webhook.api.messaging import Messaging
    from services.webhook.ingress import WebhookIngress
    from services.webhook.spill import Spill

    _around(JournalPublisher, "publish", "webhook-verified", "webhook-confirmed")
    _around(JournalPublisher, "_request", after="webhook-published")
    _around(WebhookIngress, "__call__", after="webhook-answered")
    _around(Spill, "put", "webhook-unspilled", "webhook-spilled")
    _around(Messaging, "call", "webhook-asked", "webhook-passed-on")
    delete = Spill._delete

    def deleting(spill: Spill, positions: list[int]) -> list[int]:
        _reached("webhook-drained")
        sizes = delete(spill, positions)
        _reached("webhook-deleted")
        return sizes

    _wrap(Spill, "_delete", deleting)


def _messaging() -> None:
    from nats.aio.msg import Msg

    from services.messaging.consumers.durable import JournalConsumer
    from services.messaging.providers.twilio.client import TwilioProvider
    from services.messaging.store.acts import SqlActLog
    from services.messaging.store.ingest import SqlIngestStore
    from services.messaging.store.outbox import SqlOutboxStore
    from services.messaging.store.replies import SqlReplyStore

    _around(JournalConsumer, "_fetch", after="messaging-fetched")
    _around(SqlIngestStore, "ingest", "messaging-translated", "messaging-stored")
    _around(Msg, "ack", after="messaging-acknowledged")
    _around(SqlReplyStore, "claim_replies", after="messaging-reply-claimed")
    _around(SqlReplyStore, "answer", "messaging-reply-written", "messaging-reply-stored")
    _around(SqlOutboxStore, "enqueue", "messaging-requested", "messaging-enqueued")
    _around(SqlOutboxStore, "claim", after="messaging-claimed")
    _around(SqlOutboxStore, "settle", "messaging-answered", "messaging-settled")
    _around(SqlOutboxStore, "unknown", after="messaging-looked-up")
    _around(SqlActLog, "unjournaled", after="messaging-act-read")
    _around(SqlActLog, "mark_journaled", "messaging-act-journaled", "messaging-act-marked")
    send = TwilioProvider.send

    async def sending(provider: TwilioProvider, message: Any) -> Any:
        call = asyncio.ensure_future(send(provider, message))
        if (_FOLDER / "messaging-sent").exists():
            await asyncio.wait([call], timeout=_CALL_SECONDS)
            _reached("messaging-sent")
        return await call

    _wrap(TwilioProvider, "send", sending)


_STEPS = {"services.webhook": _webhook, "services.messaging": _messaging}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    _STEPS.get(name, lambda: None)()
    runpy.run_module(name, run_name="__main__", alter_sys=True)
