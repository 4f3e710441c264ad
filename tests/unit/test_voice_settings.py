"""What messaging can be told about calls."""

from typing import Any

import pytest

from services.common.settings import ConfigurationError
from services.messaging.domain.language import Phrase
from services.messaging.settings import MessagingSettings


def load(**changes: str) -> MessagingSettings:
    """Settings with what is required, as in the examples."""
    environment: dict[str, Any] = {
        name.upper(): str(field.examples[0])
        for name, field in MessagingSettings.model_fields.items()
        if field.examples and (field.is_required() or name.startswith("twilio_"))
    }
    return MessagingSettings.load({**environment, **changes})


def test_the_rules_of_calls() -> None:
    """What is set decides the course of calls, and what isn't has a sensible value."""
    rules = load().call_rules(answers=True)
    assert (rules.language, rules.answers) == ("en-US", True)
    assert (rules.hours, rules.transfer_to) == (None, None)
    settings = load(
        VOICE_LANGUAGE="he-IL",
        VOICE_GREETING="שלום!",
        VOICE_BUSINESS_HOURS="Sun-Thu 09:00-18:00",
        VOICE_TIMEZONE="Asia/Jerusalem",
        VOICE_TRANSFER_TO="+97231234567",
        VOICE_CLOSED_VOICEMAIL="false",
    )
    rules = settings.call_rules(answers=False)
    assert rules.hours is not None
    assert (rules.hours.zone.key, len(rules.hours.spans)) == ("Asia/Jerusalem", 5)
    assert (rules.transfer_to, rules.answers) == ("+97231234567", False)
    assert not rules.message_when_closed
    assert settings.own_phrases() == {Phrase.GREETING: "שלום!"}


@pytest.mark.parametrize(
    ("variable", "value", "problem"),
    [
        ("VOICE_LANGUAGE", "klingon", "he-IL"),
        ("VOICE_BUSINESS_HOURS", "9 to 5", "must be days and times"),
        ("VOICE_BUSINESS_HOURS", "Mon 09:00-18:00", "VOICE_TIMEZONE"),
        ("VOICE_TIMEZONE", "Israel Time", "Asia/Jerusalem"),
        ("VOICE_TRANSFER_TO", "03-1234567", "E.164"),
        ("VOICE_GREETING", "x" * 1001, "1000"),
        ("MISSED_CALL_REPLY", "HX123", "32 hexadecimal digits"),
        ("MISSED_CALL_REPLY", "x" * 1601, "1600"),
        ("RECORDING_RETENTION", "forever", "none"),
    ],
)
def test_what_cant_be_is_refused_at_the_start(variable: str, value: str, problem: str) -> None:
    """An error names the variable at fault and the fix."""
    with pytest.raises(ConfigurationError, match=problem):
        load(**{variable: value})
