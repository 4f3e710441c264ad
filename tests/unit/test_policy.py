"""The rules of the gate."""

from datetime import UTC, datetime, timedelta

import pytest

from services.messaging.usecases.policy import RecipientFacts, SendPolicy

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
WROTE_JUST_NOW = RecipientFacts(opted_out_at=None, last_inbound_at=NOW - timedelta(seconds=1))


def rule(facts: RecipientFacts, *, is_template: bool = False) -> str | None:
    refusal = SendPolicy().refusal(facts, is_template=is_template, provider="twilio", now=NOW)
    return None if refusal is None else refusal.rule


def test_within_the_window_everything_goes() -> None:
    """Within 24 hours of the contact's last message both texts and templates may be sent."""
    last_moment = RecipientFacts(None, NOW - timedelta(hours=24) + timedelta(microseconds=1))
    for facts in (WROTE_JUST_NOW, last_moment):
        assert rule(facts) is None
        assert rule(facts, is_template=True) is None


@pytest.mark.parametrize("last_inbound_at", [None, NOW - timedelta(hours=24)])
def test_outside_the_window_only_templates_go(last_inbound_at: datetime | None) -> None:
    """To who never wrote, or a day ago, only templates may be sent."""
    facts = RecipientFacts(None, last_inbound_at)
    assert rule(facts) == "window"
    assert rule(facts, is_template=True) is None


def test_the_refusal_says_when_the_window_closed() -> None:
    """Whoever is refused learns the rule, since when it holds, and what may be sent instead."""
    facts = RecipientFacts(None, NOW - timedelta(hours=30))
    refusal = SendPolicy().refusal(facts, is_template=False, provider="twilio", now=NOW)
    assert refusal is not None
    assert "2026-03-01T06:00:00Z" in str(refusal)
    assert "template" in str(refusal)


def test_without_a_window_only_the_opt_out_counts() -> None:
    """Where the provider knows no window, whoever hasn't opted out may be written to."""
    policy = SendPolicy(window=None)
    assert (
        policy.refusal(RecipientFacts(None, None), is_template=False, provider="twilio", now=NOW)
        is None
    )


@pytest.mark.parametrize("is_template", [False, True])
def test_opting_out_forbids_everything(is_template: bool) -> None:
    """Who opted out gets nothing, templates included, even within the window."""
    facts = RecipientFacts(opted_out_at=NOW, last_inbound_at=NOW)
    assert rule(facts, is_template=is_template) == "opted_out"


def test_too_many_waiting() -> None:
    """Beyond the limit of waiting messages the refusal says when to come again."""
    policy = SendPolicy(max_waiting=3)
    assert policy.overload(2, NOW) is None
    refusal = policy.overload(3, NOW)
    assert refusal is not None
    assert (refusal.rule, refusal.retryable) == ("pace", True)
    assert refusal.until == NOW + timedelta(seconds=6)
