"""What a process doesn't use takes none of its memory."""

import subprocess
import sys

_OF_VENDORS = {"openai", "google.auth", "google.cloud", "alembic", "opentelemetry", "fastapi"}


def test_messaging_imports_no_vendor_before_it_is_configured() -> None:
    """SDKs that take a third of messaging's memory are imported by whoever has a key for them."""
    program = "import services.messaging.__main__, sys; print(*sys.modules)"
    imported = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert not _OF_VENDORS & set(imported.stdout.split())
