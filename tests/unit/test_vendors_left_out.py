"""What a process doesn't use takes none of its memory."""

import subprocess
import sys

_OF_VENDORS = {"openai", "google.auth", "google.cloud", "alembic", "opentelemetry", "fastapi"}
_OF_TWILIOS_CLIENT = {"twilio.rest", "twilio.http", "aiohttp_retry", "jwt"}


def test_messaging_imports_no_vendor_before_it_is_configured() -> None:
    """SDKs that take a third of messaging's memory are imported by whoever has a key for them."""
    assert not _OF_VENDORS & _imported("services.messaging.__main__")


def test_the_edge_imports_what_its_image_has() -> None:
    """Twilio's SDK writes the edge's TwiML; its client, and what that needs, isn't in the image."""
    assert not _OF_TWILIOS_CLIENT & _imported("services.webhook.__main__")


def _imported(module: str) -> set[str]:
    program = f"import {module}, sys; print(*sys.modules)"
    ended = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    return set(ended.stdout.split())
