"""API keys."""

import pytest

from services.common.settings import ConfigurationError
from services.webhook.api.keys import ApiKeys, parse_api_keys
from services.webhook.settings import WebhookSettings

GOOD = {
    "PUBLIC_HOST": "https://switchboard.example.com",
    "TWILIO_AUTH_TOKEN": "token",
    "NATS_URL": "nats://127.0.0.1:4222",
    "GRPC_TOKEN": "new-token,old-token",
}


def test_a_key_says_whose_it_is() -> None:
    """Only the whole key is good, and a name may have two of them."""
    keys = ApiKeys(
        parse_api_keys("crm:first-key:with-colon, shop:second-key-abc,crm:third-key-abc")
    )
    assert keys.name_of(b"first-key:with-colon") == "crm"
    assert keys.name_of(b"second-key-abc") == "shop"
    assert keys.name_of(b"third-key-abc") == "crm"
    for wrong in (b"", b"first-key", b"first-key:with-colon ", b"crm:first-key:with-colon"):
        assert keys.name_of(wrong) is None


def test_no_keys_are_no_keys() -> None:
    """Nothing opens an API without keys."""
    keys = ApiKeys(())
    assert not keys
    assert keys.name_of(b"") is None


@pytest.mark.parametrize(
    "value",
    [
        " , ",
        "a-long-secret-without-a-name",
        "crm:short",
        ":a-long-secret-123",
        "c r m:a-long-secret-123",
        "crm:a long secret 123",
        "crm:a-long-secret-123,shop:a-long-secret-123",
        "crm:a-long-secret-ü23",
    ],
)
def test_malformed_keys_stop_the_start(value: str) -> None:
    """The variable is named, and no part of a secret is shown."""
    with pytest.raises(ConfigurationError) as caught:
        WebhookSettings.load({**GOOD, "API_KEYS": value})
    assert [problem.variable for problem in caught.value.problems] == ["API_KEYS"]
    assert "secret" not in str(caught.value)


def test_the_api_needs_a_token_for_messaging() -> None:
    """With keys the token is required; without an API the edge starts without it."""
    keys = {"API_KEYS": "crm:a-long-secret-123"}
    settings = WebhookSettings.load({**GOOD, **keys})
    assert settings.named_api_keys() == (("crm", "a-long-secret-123"),)
    assert settings.messaging_token() == "new-token"
    assert "a-long-secret" not in repr(settings)
    without = {name: value for name, value in GOOD.items() if name != "GRPC_TOKEN"}
    assert WebhookSettings.load(without).named_api_keys() == ()
    with pytest.raises(ConfigurationError) as caught:
        WebhookSettings.load({**without, **keys})
    assert [problem.variable for problem in caught.value.problems] == ["GRPC_TOKEN"]


@pytest.mark.parametrize(
    "value",
    ["*", "desk.example.com", "https://desk.example.com/", "https://Desk.example.com", "null"],
)
def test_origins_are_exact(value: str) -> None:
    """What no browser would send as its origin is refused at start."""
    with pytest.raises(ConfigurationError) as caught:
        WebhookSettings.load({**GOOD, "CORS_ORIGINS": f"https://a.example.com,{value}"})
    assert [problem.variable for problem in caught.value.problems] == ["CORS_ORIGINS"]
