"""How reports add up, what an address is, and which words stop messages."""

import itertools
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.messaging.domain.contact import (
    Identity,
    IdentityKind,
    whatsapp_address,
    whatsapp_identity,
)
from services.messaging.domain.message import (
    Delivery,
    MessageStatus,
    Moment,
    StatusReport,
    TimeSource,
    fold,
)
from services.messaging.domain.opt_out import OptOutWords, Wish

START = datetime(2026, 1, 2, tzinfo=UTC)
QUEUED = Delivery(MessageStatus.QUEUED)

reports = st.builds(
    StatusReport,
    event_key=st.just("k"),
    provider=st.just("twilio"),
    provider_message_id=st.just("SM1"),
    status=st.sampled_from([*MessageStatus, None]),
    moment=st.builds(
        Moment,
        st.integers(0, 5).map(lambda hours: START + timedelta(hours=hours)),
        st.sampled_from(TimeSource),
    ),
    error_code=st.sampled_from([None, "30008", "63016"]),
    error_message=st.sampled_from([None, "one", "two"]),
)


def folded(*added: StatusReport) -> Delivery:
    """The delivery of a queued message after reports."""
    delivery = QUEUED
    for report in added:
        delivery = fold(delivery, report)
    return delivery


@given(st.lists(reports, max_size=4))
def test_any_order_of_reports_adds_up_to_the_same(added: list[StatusReport]) -> None:
    """All permutations agree."""
    assert len({folded(*order) for order in itertools.permutations(added)}) == 1


@given(st.lists(reports, max_size=6))
def test_a_repeated_report_adds_nothing(added: list[StatusReport]) -> None:
    """Each report twice is as good as once."""
    assert folded(*added, *added) == folded(*added)


@given(st.lists(reports), reports)
def test_a_status_never_falls(added: list[StatusReport], one: StatusReport) -> None:
    """No further report moves a message back."""
    before = folded(*added)
    assert fold(before, one).status.rank >= before.status.rank


@pytest.mark.parametrize("error", [MessageStatus.FAILED, MessageStatus.UNDELIVERED])
@pytest.mark.parametrize("arrived", [MessageStatus.DELIVERED, MessageStatus.READ])
def test_what_arrived_has_not_failed(error: MessageStatus, arrived: MessageStatus) -> None:
    """A message on the contact's device shows no error, though when it was reported stays known."""
    moment = Moment(START, TimeSource.RECEIVED)
    failure = StatusReport("f", "twilio", "SM1", error, moment, error_code="30008")
    delivery = folded(failure, StatusReport("a", "twilio", "SM1", arrived, moment))
    assert (delivery.status, delivery.error_code) == (arrived, None)
    assert delivery.failed == moment


def test_the_provider_s_clock_goes_before_ours() -> None:
    """A time the provider measured holds even when ours is earlier."""
    ours = Moment(START, TimeSource.RECEIVED)
    theirs = Moment(START + timedelta(seconds=3), TimeSource.PROVIDER)
    read = [StatusReport(m.source, "x", "1", MessageStatus.READ, m) for m in (ours, theirs)]
    assert folded(*read).read == theirs


@pytest.mark.parametrize(
    ("address", "identity"),
    [
        ("whatsapp:+972501234567", Identity(IdentityKind.PHONE, "+972501234567")),
        ("+14155238886", Identity(IdentityKind.PHONE, "+14155238886")),
        ("whatsapp:US.1349AbC", Identity(IdentityKind.WHATSAPP_BSUID, "US.1349AbC")),
        ("US.ENT.118", Identity(IdentityKind.WHATSAPP_BSUID, "US.ENT.118")),
        ("whatsapp:", None),
        ("972501234567", None),
        ("+0501234567", None),
        ("+972501234567\n", None),
        ("us.1349", None),
        ("+9\u0667\u0662\u0665\u0660\u0661\u0662\u0663", None),
        ("whatsapp:whatsapp:+14155238886", None),
    ],
)
def test_an_address_is_a_phone_a_user_id_or_nothing(
    address: str, identity: Identity | None
) -> None:
    """Only E.164 and business-scoped user ids name a contact, and they lead back to it."""
    assert whatsapp_identity(address) == identity
    if identity is not None:
        assert whatsapp_identity(whatsapp_address(identity)) == identity


@pytest.mark.parametrize(
    ("body", "wish"),
    [
        ("STOP", Wish.OUT),
        (" stop. ", Wish.OUT),
        ("Stop  All!", Wish.OUT),
        ("הסר", Wish.OUT),
        ("basta", Wish.OUT),
        ("start", Wish.IN),
        ("כן", Wish.IN),
        ("please stop by at five", None),
        ("don't stop", None),
        ("", None),
        ("STOP\u200f", Wish.OUT),
        ("STOP\u200b", Wish.OUT),
        ("\ufeffSTOP", Wish.OUT),
        ("\u200f\u05d4\u05e1\u05e8", Wish.OUT),
        ("\u202b\u05d4\u05e1\u05e8\u202c", Wish.OUT),
        ("הַסֵּר", Wish.OUT),
        ("״הסר״", Wish.OUT),
        ("“STOP”", Wish.OUT),
        ("\u2018Stop\u2019", Wish.OUT),
        ("«stop»", Wish.OUT),
        ("Stop…", Wish.OUT),
        ("STOP,", Wish.OUT),
        ("(stop)", Wish.OUT),
        ("*STOP*", Wish.OUT),
        ("STOP 🙏", Wish.OUT),
        ("\uff33\uff34\uff2f\uff30", Wish.OUT),
        ("STOP\u00a0ALL\n", Wish.OUT),
        ("🛑", Wish.OUT),
        ("🙏", None),
        ("…", None),
        ("“stop” is what he said", None),
        ("stop, please", None),
        ("non-stop", None),
        ("stop" + "\u200b" * 100_000, None),
    ],
)
def test_only_a_whole_message_is_a_wish(body: str, wish: Wish | None) -> None:
    """Case, blanks, marks and what can't be seen don't matter; other words beside it do."""
    assert OptOutWords(extra_out=["BASTA", "🛑"]).wish(body) is wish
