"""The edge's settings."""

import pytest

from services.common.settings import ConfigurationError
from services.webhook.settings import WebhookSettings

GOOD = {
    "PUBLIC_HOST": "https://switchboard.example.com/",
    "TWILIO_AUTH_TOKEN": "token-1, token-2",
    "NATS_URL": "nats://127.0.0.1:4222",
}


def problems(environ: dict[str, str]) -> dict[str, str]:
    with pytest.raises(ConfigurationError) as caught:
        WebhookSettings.load(environ)
    assert all(problem.purpose and problem.example for problem in caught.value.problems)
    return {problem.variable: problem.problem for problem in caught.value.problems}


def test_the_least_that_is_needed() -> None:
    """Three variables make a production edge; lists are split and the origin is bare."""
    settings = WebhookSettings.load(GOOD | {"TWILIO_SHARED_KEYS": "KS1:a:b,KS2:c"})
    assert settings.auth_tokens() == ("token-1", "token-2")
    assert settings.shared_keys() == {"KS1": "a:b", "KS2": "c"}
    assert settings.public_host == "https://switchboard.example.com"
    assert "token-1" not in repr(settings)


def test_nothing_set_names_everything_at_once() -> None:
    """One report names every variable that is missing."""
    assert set(problems({})) == {"PUBLIC_HOST", "NATS_URL", "TWILIO_AUTH_TOKEN"}


def test_the_bypass_needs_development() -> None:
    """The bypass alone is refused; in development it makes the keys optional."""
    bypass = {**GOOD, "BYPASS_TWILIO_SIGNATURE": "true"}
    assert set(problems(bypass)) == {"BYPASS_TWILIO_SIGNATURE"}
    del bypass["TWILIO_AUTH_TOKEN"]
    assert WebhookSettings.load({**bypass, "APP_ENV": "development"}).bypass_twilio_signature


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TWILIO_AUTH_TOKEN", " , "),
        ("TWILIO_SHARED_KEYS", "no-colon"),
        ("PUBLIC_HOST", "switchboard.example.com"),
        ("WEBHOOK_PORT", "70000"),
        ("SPILL_MAX_BYTES", "lots"),
    ],
)
def test_malformed_values_are_named(name: str, value: str) -> None:
    """A value that can't work is refused at start, by name."""
    assert set(problems(GOOD | {name: value})) == {name}
