"""Whose X-Forwarded-For is believed, in the settings of both services that ask for it."""

import pytest

from cli.check import check
from services.common.settings import ConfigurationError, Settings
from services.health.settings import HealthSettings
from services.webhook.settings import WebhookSettings

GOOD = {
    "PUBLIC_HOST": "https://switchboard.example.com",
    "TWILIO_AUTH_TOKEN": "token",
    "NATS_URL": "nats://127.0.0.1:4222",
    "GRPC_TOKEN": "token",
}
both = pytest.mark.parametrize("settings", [HealthSettings, WebhookSettings])


@both
@pytest.mark.parametrize(
    "value", ["127.0.0.1", "::1, 10.0.0.0/8", "172.16.0.0/12,192.168.0.0/16,2001:db8::/32"]
)
def test_addresses_and_networks_are_taken(settings: type[Settings], value: str) -> None:
    """As the documentation has them."""
    settings.load(GOOD | {"TRUSTED_PROXIES": value})


@both
@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("localhost", "'localhost' is no address or network; write it as 127.0.0.1 or"),
        ("127.0.0.1,caddy", "'caddy' is no address or network"),
        ("/run/proxy.sock", "'/run/proxy.sock' is no address or network"),
        ("10.0.0.1/8", "'10.0.0.1/8' is no address or network"),
        ("*", "would let every sender say who it is"),
        ("10.0.0.0/8, 0.0.0.0/0", "would let every sender say who it is"),
        ("::/0", "would let every sender say who it is"),
    ],
)
def test_what_would_match_no_proxy_or_anybody_is_refused(
    settings: type[Settings], value: str, problem: str
) -> None:
    """A name matched nobody: behind a proxy on this machine every visitor was this machine."""
    with pytest.raises(ConfigurationError) as caught:
        settings.load(GOOD | {"TRUSTED_PROXIES": value})
    (found,) = caught.value.problems
    assert found.variable == "TRUSTED_PROXIES"
    assert problem in found.problem


def test_the_check_refuses_it_too(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`switchboard check` says it before anything is started."""
    monkeypatch.setenv("TRUSTED_PROXIES", "localhost")
    assert check(None) == 78
    assert "'localhost' is no address or network" in capsys.readouterr().out
