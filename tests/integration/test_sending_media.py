"""Files and templates reach Twilio exactly once, too: what is looked up has no text to go by."""

import pytest

from sandbox.faults import ApiFault, Fault, Faults, Hang
from sandbox.server import RunningSandbox
from services.messaging.domain.message import Media, Template
from services.messaging.store.database import Database
from services.messaging.store.outbox import SqlOutboxStore
from tests.support.sending import (
    ANY_TIME,
    new_message,
    now,
    patience,
    running,
    sender,
    stored,
    twilio,
    until_settled,
)

TEMPLATE = Template("HX" + "0" * 32, {"1": "Dana"})
PLAN = (Media("https://files.example.com/plan.pdf", "application/pdf"),)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(error_500=ApiFault(times=1)),
        Faults(error_500_after_accept=Fault(times=3)),
        Faults(reset_after_accept=Fault(times=3)),
        Faults(hang=Hang(times=2, accept=True)),
    ],
    ids=["lost", "500 after accepting", "reset after accepting", "silence after accepting"],
)
async def test_once_under_faults(
    database: Database, sandbox: RunningSandbox, faults: Faults
) -> None:
    """Equal templates, equal files and texts in one conversation are each sent once, in order."""
    store = SqlOutboxStore(database, now, ANY_TIME)
    for _ in range(2):
        await store.enqueue(new_message("", template=TEMPLATE))
        await store.enqueue(new_message("", media=PLAN))
        await store.enqueue(new_message("Hello", media=PLAN))
        await store.enqueue(new_message("Hello"))
    sandbox.set_faults(faults)
    async with twilio(sandbox.base_url, seconds=patience(faults)) as provider:
        process = sender(store, provider)
        async with running(process.dispatcher.run(), process.reconciler.run()):
            await until_settled(database)
    theirs = list(sandbox.state.messages.values())
    assert [one.sid for one in theirs] == [
        row.provider_message_id for row in await stored(database)
    ]
    kinds = [(one.content_sid is not None, len(one.media), one.body) for one in theirs]
    template = (True, 0, f"Template {TEMPLATE.id} 1=Dana")
    assert kinds == [template, (False, 1, ""), (False, 1, "Hello"), (False, 0, "Hello")] * 2
