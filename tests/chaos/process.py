"""A service that dies between two of its steps: `python -m tests.chaos.process services.webhook`.

The calls between its steps are wrapped before its own module runs; how it dies is in `dying`.
"""

import asyncio
import runpy
import sys
from typing import Any

from tests.chaos import call_process
from tests.chaos.dying import around, is_armed, reached, wrap

_CALL_SECONDS = 0.5
"""So long after a call to Twilio has begun it is under way."""


def _webhook() -> None:
    from services.common.journal.bundles import Bundles
    from services.common.journal.publisher import JournalPublisher
    from services.webhook.api.messaging import Messaging
    from services.webhook.ingress import WebhookIngress
    from services.webhook.spill import Spill
    from tests.chaos.edge_steps import after_answer, around_publishing

    around_publishing(lambda _: "webhook-verified", lambda _: "webhook-confirmed")
    around(JournalPublisher, "_asked", after="webhook-published")
    around(Bundles, "commit", after="webhook-bundled")
    around(Bundles, "_until_brought", "webhook-moving", "webhook-moved")
    around(WebhookIngress, "__call__", after="webhook-answered")
    after_answer(lambda _: "webhook-answered")
    around(Spill, "put", "webhook-unspilled", "webhook-spilled")
    around(Messaging, "call", "webhook-asked", "webhook-passed-on")
    delete = Spill._delete

    def deleting(spill: Spill, positions: list[int]) -> list[int]:
        reached("webhook-drained")
        sizes = delete(spill, positions)
        reached("webhook-deleted")
        return sizes

    wrap(Spill, "_delete", deleting)


def _messaging() -> None:
    from nats.aio.msg import Msg

    from services.messaging.consumers.durable import JournalConsumer
    from services.messaging.providers.twilio.client import TwilioProvider
    from services.messaging.store.acts import SqlActLog
    from services.messaging.store.ingest import SqlIngestStore
    from services.messaging.store.outbox import SqlOutboxStore
    from services.messaging.store.replies import SqlReplyStore

    around(JournalConsumer, "_fetch", after="messaging-fetched")
    around(SqlIngestStore, "ingest", "messaging-translated", "messaging-stored")
    around(Msg, "ack", after="messaging-acknowledged")
    around(SqlReplyStore, "claim_replies", after="messaging-reply-claimed")
    around(SqlReplyStore, "answer", "messaging-reply-written", "messaging-reply-stored")
    around(SqlOutboxStore, "enqueue", "messaging-requested", "messaging-enqueued")
    around(SqlOutboxStore, "claim", after="messaging-claimed")
    around(SqlOutboxStore, "settle", "messaging-answered", "messaging-settled")
    around(SqlOutboxStore, "unknown", after="messaging-looked-up")
    around(SqlActLog, "unjournaled", after="messaging-act-read")
    around(SqlActLog, "mark_journaled", "messaging-act-journaled", "messaging-act-marked")
    send = TwilioProvider.send

    async def sending(provider: TwilioProvider, message: Any) -> Any:
        call = asyncio.ensure_future(send(provider, message))
        if is_armed("messaging-sent"):
            await asyncio.wait([call], timeout=_CALL_SECONDS)
            reached("messaging-sent")
        return await call

    wrap(TwilioProvider, "send", sending)


_STEPS = {
    "services.webhook": (_webhook, call_process.webhook),
    "services.messaging": (_messaging, call_process.messaging),
}

if __name__ == "__main__":
    name = sys.argv.pop(1)
    for wrap_steps in _STEPS.get(name, ()):
        wrap_steps()
    runpy.run_module(name, run_name="__main__", alter_sys=True)
