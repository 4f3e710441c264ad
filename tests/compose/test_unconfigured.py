"""`docker compose up` by somebody who hasn't configured anything."""

from pathlib import Path

import pytest

from tests.support.compose import ComposeStack

pytestmark = pytest.mark.timeout(900)


@pytest.mark.skipif(Path(".env").exists(), reason="there is a .env, so something is configured")
def test_it_says_what_is_missing() -> None:
    """The report names every variable and how to set it; nothing is started without them."""
    stack = ComposeStack("switchboard-unconfigured", variables={"PUBLIC_HOST": ""})
    stack.compose("build", seconds=1200)
    try:
        ended = stack.compose("up", check=False)
        assert ended.returncode != 0
        assert "ready: no (PUBLIC_HOST, TWILIO_AUTH_TOKEN, TWILIO_ACCOUNT_SID" in ended.stdout
        assert "example: PUBLIC_HOST=https://switchboard.example.com" in ended.stdout
        assert "Traceback" not in ended.stdout
        assert not stack.compose("ps", "--services", "--status=running").stdout.strip()
    finally:
        stack.compose("down", "--volumes", "--timeout=1", check=False)
