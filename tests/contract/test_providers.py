"""What every provider of WhatsApp has to keep, whatever stands behind it."""

from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest

from services.common.errors import UnavailableError
from services.messaging.domain.contact import Identity, IdentityKind
from services.messaging.domain.message import Delivery, MessageStatus, Template, fold
from services.messaging.ports.sending import ClaimedSend, OutcomeKind, RepliedTo
from tests.support.hostile import file, hostile
from tests.support.providers import Bench, Trouble, bench
from tests.support.sandbox import CONTACT, OUR_NUMBER
from tests.support.sending import now


@pytest.fixture(params=["twilio", "baileys"])
async def one(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Bench]:
    async with bench(request.param, tmp_path) as found:
        yield found


def claimed(body: str = "Hello", *, attempt: int = 1) -> ClaimedSend:
    return ClaimedSend(
        message_id="0123456789abcdef0123456789abcdef",
        provider="",
        contact_address=CONTACT,
        own_address=OUR_NUMBER,
        body=body,
        attempt=attempt,
        first_attempt_at=now(),
        last_attempt_at=now(),
        lease_until=now(),
    )


@pytest.mark.parametrize("body", ["Hello", "שלום 👋\nsecond line & more = ?", "x" * 1600])
async def test_text(body: str, one: Bench) -> None:
    """A text arrives unchanged, and has the provider's id."""
    outcome = await one.provider.send(claimed(body))
    assert outcome.kind is OutcomeKind.ACCEPTED
    assert outcome.provider_message_id
    assert await one.phone() == [body]


async def test_media(one: Bench) -> None:
    """A file arrives with its caption, as one message of its type."""
    async with hostile(file) as host:
        address = f"{host.base_url}/houses/house.png"
        outcome = await one.provider.send(replace(claimed("Our house"), media_urls=(address,)))
    assert outcome.kind is OutcomeKind.ACCEPTED
    assert await one.phone() == ["Our house"]
    assert await one.files() == ["image/png"]


async def test_reply(one: Bench) -> None:
    """A reply arrives as one where the provider can show that, and as a plain message elsewhere."""
    told = await one.written("Is the flat still free?")
    replied_to = RepliedTo(
        one.provider.name, told.provider_message_id, from_us=False, body=told.body
    )
    outcome = await one.provider.send(replace(claimed("It is"), replied_to=replied_to))
    assert outcome.kind is OutcomeKind.ACCEPTED
    assert await one.phone() == ["It is"]
    assert await one.quoted() == ([told.provider_message_id] if one.quotes else [])


async def test_template(one: Bench) -> None:
    """A template is sent, or refused: never dropped, and never sent as something else."""
    template = Template("HX" + "0" * 32, {"1": "Dana"})
    outcome = await one.provider.send(replace(claimed(""), template=template))
    if one.has_templates:
        assert outcome.kind is OutcomeKind.ACCEPTED
        return
    assert (outcome.kind, outcome.error_code) == (OutcomeKind.REJECTED, "unsupported")
    assert await one.phone() == []


@pytest.mark.parametrize(
    ("trouble", "kind"),
    [(Trouble.REFUSED, OutcomeKind.REJECTED), (Trouble.NOT_NOW, OutcomeKind.RETRY)],
)
async def test_certain_failure(trouble: Trouble, kind: OutcomeKind, one: Bench) -> None:
    """What failed for certain says why, was not sent, and can be sent once the cause is gone."""
    one.trouble(trouble)
    outcome = await one.provider.send(claimed())
    assert outcome.kind is kind
    assert outcome.error_code
    assert await one.phone() == []
    if kind is OutcomeKind.RETRY:
        one.trouble(None)
        outcome = await one.provider.send(claimed(attempt=2))
        assert outcome.kind is OutcomeKind.ACCEPTED
        assert await one.phone() == ["Hello"]


async def test_unknown_outcome(one: Bench) -> None:
    """A send without an answer is unknown; then the provider's list shows it, or the same send
    once more arrives once."""
    one.trouble(Trouble.NO_ANSWER)
    begun = now()
    outcome = await one.provider.send(claimed())
    assert outcome.kind is OutcomeKind.UNKNOWN
    one.trouble(None)
    if one.provider.absorbs_repeats:
        outcome = await one.provider.send(claimed(attempt=2))
        assert outcome.kind is OutcomeKind.ACCEPTED
        with pytest.raises(UnavailableError):
            await listed(one, begun)
    else:
        assert await listed(one, begun) == ["Hello"]
    assert await one.phone() == ["Hello"]


async def listed(one: Bench, since: datetime) -> list[str]:
    found = await one.provider.sent_messages(
        contact_address=CONTACT, own_address=OUR_NUMBER, since=since
    )
    return [message.body for message in found]


async def test_statuses(one: Bench) -> None:
    """Reports lead from sent to read, name the message by the provider's id, and carry each
    status once."""
    outcome = await one.provider.send(claimed())
    reports = await one.reports(str(outcome.provider_message_id))
    assert {report.provider_message_id for report in reports} == {outcome.provider_message_id}
    assert {report.status for report in reports} == {
        MessageStatus.SENT,
        MessageStatus.DELIVERED,
        MessageStatus.READ,
    }
    delivery = Delivery(MessageStatus.SENDING)
    for report in reports:
        delivery = fold(delivery, report)
    assert delivery.status is MessageStatus.READ
    assert delivery.delivered
    assert delivery.read
    sent = next(report for report in reports if report.status is MessageStatus.SENT)
    assert sent.message_id == claimed().message_id


async def test_inbound(one: Bench) -> None:
    """What a contact writes comes from the phone that is the same at every provider, to the
    address of ours that is."""
    message = await one.written("Is the flat still free?")
    assert message.body == "Is the flat still free?"
    assert message.identities[0] == Identity(IdentityKind.PHONE, "+972501234567")
    assert (message.contact_address, message.own_address) == (CONTACT, OUR_NUMBER)
