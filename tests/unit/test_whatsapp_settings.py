"""Which providers of WhatsApp are used, and what each of them needs."""

from pathlib import Path

import pytest

from services.common.settings import ConfigurationError
from services.messaging.settings import MessagingSettings
from services.webhook.settings import WebhookSettings

CORE = {
    "PUBLIC_HOST": "https://switchboard.example.com",
    "DATABASE_URL": "sqlite:///switchboard.db",
    "NATS_URL": "nats://127.0.0.1:4222",
    "GRPC_TOKEN": "token",
}
TWILIO = {
    "TWILIO_ACCOUNT_SID": "AC0123456789abcdef0123456789abcdef",
    "TWILIO_AUTH_TOKEN": "secret",
    "TWILIO_WHATSAPP_NUMBER": "+14155238886",
}
BAILEYS = {"BAILEYS_QUEUE_DIR": "/queue", "BAILEYS_NUMBER": "+14155550001"}


@pytest.mark.parametrize(
    ("variables", "providers"),
    [
        (TWILIO, ("twilio",)),
        (BAILEYS, ("baileys",)),
        (TWILIO | BAILEYS, ("twilio",)),
        (TWILIO | BAILEYS | {"WHATSAPP_PROVIDER": "baileys"}, ("baileys",)),
        (TWILIO | BAILEYS | {"WHATSAPP_FALLBACK_PROVIDER": "baileys"}, ("twilio", "baileys")),
        (
            TWILIO
            | BAILEYS
            | {"WHATSAPP_PROVIDER": "baileys", "WHATSAPP_FALLBACK_PROVIDER": "twilio"},
            ("baileys", "twilio"),
        ),
    ],
)
def test_selection(variables: dict[str, str], providers: tuple[str, ...]) -> None:
    """The named provider is used; without a name, the one whose variables are there."""
    assert MessagingSettings.load(CORE | variables).providers() == providers


@pytest.mark.parametrize(
    ("variables", "missing"),
    [
        ({}, set(TWILIO)),
        ({"WHATSAPP_PROVIDER": "baileys"} | TWILIO, set(BAILEYS)),
        ({"WHATSAPP_FALLBACK_PROVIDER": "baileys"} | TWILIO, set(BAILEYS)),
        ({"WHATSAPP_PROVIDER": "twilio"} | BAILEYS, set(TWILIO)),
        ({"BAILEYS_QUEUE_DIR": "/queue"}, {"BAILEYS_NUMBER"}),
        (
            {"WHATSAPP_PROVIDER": "baileys", "WHATSAPP_FALLBACK_PROVIDER": "baileys"} | BAILEYS,
            {"WHATSAPP_FALLBACK_PROVIDER"},
        ),
        ({"WHATSAPP_PROVIDER": "carrier-pigeon"} | TWILIO, {"WHATSAPP_PROVIDER"}),
        ({"BAILEYS_QUEUE_DIR": "/queue", "BAILEYS_NUMBER": "14155550001"}, {"BAILEYS_NUMBER"}),
    ],
)
def test_missing(variables: dict[str, str], missing: set[str]) -> None:
    """Whoever is to send needs its variables, and all that are missing are named."""
    with pytest.raises(ConfigurationError) as refused:
        MessagingSettings.load(CORE | variables)
    assert {one.variable for one in refused.value.problems} == missing


def test_own_address() -> None:
    """Changing the provider changes no conversation: with two numbers it is Twilio's."""
    assert MessagingSettings.load(CORE | BAILEYS).own_address() == "whatsapp:+14155550001"
    both = CORE | TWILIO | BAILEYS | {"WHATSAPP_PROVIDER": "baileys"}
    assert MessagingSettings.load(both).own_address() == "whatsapp:+14155238886"
    ours = {"whatsapp:+14155238886", "whatsapp:+14155550001"}
    assert MessagingSettings.load(both).own_addresses() == ours
    assert MessagingSettings.load(CORE | TWILIO).own_addresses() == {"whatsapp:+14155238886"}


@pytest.mark.parametrize(
    ("variables", "accepted"),
    [
        (BAILEYS, True),
        ({"WHATSAPP_PROVIDER": "baileys"}, True),
        ({"WHATSAPP_PROVIDER": "baileys", "WHATSAPP_FALLBACK_PROVIDER": "twilio"}, False),
        ({"WHATSAPP_FALLBACK_PROVIDER": "baileys"} | TWILIO, True),
        ({"WHATSAPP_PROVIDER": "twilio"} | BAILEYS, False),
        ({}, False),
    ],
)
def test_signature_key(variables: dict[str, str], accepted: bool, tmp_path: Path) -> None:
    """The edge starts without a key of signatures only where nothing comes from Twilio."""
    environ = CORE | {"SPILL_PATH": str(tmp_path / "spill.db")} | variables
    if accepted:
        WebhookSettings.load(environ)
        return
    with pytest.raises(ConfigurationError) as refused:
        WebhookSettings.load(environ)
    assert [one.variable for one in refused.value.problems] == ["TWILIO_AUTH_TOKEN"]


@pytest.mark.parametrize("url", ["http://sandbox:8090", "http://localhost:1", "http://[::1]:1"])
def test_credentials_may_go_to_neighbours_by_http(url: str) -> None:
    """A name without a dot is a container's in one's own network."""
    settings = MessagingSettings.load({**CORE, **TWILIO, "TWILIO_API_BASE_URL": url})
    assert settings.twilio_api_base_url == url


@pytest.mark.parametrize(
    "url",
    [
        "http://api.twilio.com",
        "http://2130706433",
        "http://0x7f000001",
        "http://10.0.0.1",
        "ftp://a",
    ],
)
def test_credentials_leave_by_https_alone(url: str) -> None:
    """Whatever may be another machine's name or number is refused by http."""
    with pytest.raises(ConfigurationError, match="must begin with https://"):
        MessagingSettings.load({**CORE, **TWILIO, "TWILIO_API_BASE_URL": url})
