"""What never gets into a log."""

import json
import subprocess
import sys

import pytest
from pydantic import SecretStr
from structlog.typing import EventDict

from services.common.errors import InvalidInputError
from services.common.masking import MASK, Masking, format_exception, secrets_of
from services.messaging.settings import MessagingSettings

SETTINGS = MessagingSettings.load(
    {
        "PUBLIC_HOST": "https://switchboard.example.com",
        "DATABASE_URL": "postgresql://someone:database-password@db/switchboard",
        "NATS_URL": "nats://token-of-nats@nats:4222",
        "GRPC_TOKEN": "first-grpc-token,second-grpc-token",
        "TWILIO_ACCOUNT_SID": "AC" + "0" * 32,
        "TWILIO_AUTH_TOKEN": "twilios-secret",
        "TWILIO_WHATSAPP_NUMBER": "+14155238886",
    }
)
WORDS = "Is the flat still free?"
# Logs and fails in every way that a service may.
SCRIPT = """
import asyncio, logging, os
import structlog
from services.common.logging import configure_logging
from services.common.settings import CommonSettings

configure_logging("test", CommonSettings.load({"LOG_LEVEL": "debug"}))
log = structlog.get_logger("services.test")
words = os.environ["WORDS"]

def fail():
    try:
        raise KeyError(words)
    except KeyError as error:
        raise RuntimeError("of a library: " + words) from error

async def forgotten():
    raise ValueError(words)

async def main():
    task = asyncio.create_task(forgotten())
    await asyncio.sleep(0)
    del task
    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(forgotten())
    except ExceptionGroup:
        log.exception("a group failed")

try:
    fail()
except RuntimeError:
    log.exception("failed")
logging.getLogger("aiosqlite").debug("executing %s", words)
logging.getLogger("some.library").warning("called +972501234567")
asyncio.run(main())
"""


@pytest.mark.parametrize(
    "text",
    [
        "+972501234567",
        "whatsapp:+972501234567 is unknown",
        "972501234567@s.whatsapp.net",
        "(+1) is no number, +1 (415) 523-8886 is",
        "123456789012345@lid",
        "aGVsbG8gd29ybGQhIGhlbGxvIHc=",
        "Bearer second-grpc-token",
        "postgresql://someone:database-password@db/switchboard",
        "nats: token-of-nats was refused",
    ],
)
def test_numbers_signatures_and_secrets_are_masked(text: str) -> None:
    """Wherever in a line they stand, and however numbers are spelt."""
    event: EventDict = {"event": text, "more": [{"text": text}], "error": ValueError(text)}
    masked = str(Masking(secrets_of(SETTINGS))(None, "info", event))
    assert MASK in masked
    for part in ("972501234567", "523-8886", "123456789012345", "aGVsbG8", "second-grpc"):
        assert part not in masked
    for secret in ("database-password", "token-of-nats"):
        assert secret not in masked


@pytest.mark.parametrize(
    "text",
    [
        "2026-11-22T15:57:22.123456Z",
        "listening on 127.0.0.1:50051",
        "0af7651916cd43dd8448eb211c80319c",
        "outcome 21211 after 1234 ms",
        "nats-server 2.15.0, version 1.0.20261122",
    ],
)
def test_what_operators_need_stays(text: str) -> None:
    """Times, addresses, ids, codes and versions are no numbers of anybody."""
    assert Masking(secrets_of(SETTINGS)).text(text) == text


def test_only_our_own_errors_are_quoted() -> None:
    """An error's text may hold what somebody wrote, unless we or the system wrote it."""
    try:
        try:
            raise KeyError(WORDS)  # noqa: TRY301 - it is to be the cause of the next
        except KeyError as error:
            raise InvalidInputError("to", "is missing") from error
    except InvalidInputError as error:
        told = format_exception((type(error), error, error.__traceback__))
    assert WORDS not in told
    assert "KeyError\nand then:" in told
    assert told.endswith("services.common.errors.InvalidInputError: to: is missing")
    assert "test_masking.py" in told


def test_nothing_that_fails_quotes_what_somebody_wrote() -> None:
    """Errors with causes, groups, forgotten tasks and libraries at any level, in a process."""
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={"WORDS": WORDS},
        capture_output=True,
        text=True,
        check=True,
    )
    lines = [json.loads(line) for line in ended.stderr.splitlines()]
    events = [line["event"] for line in lines]
    assert events == [
        "failed", "called ***", "Task exception was never retrieved", "a group failed"
    ]  # fmt: skip
    assert WORDS not in ended.stderr
    assert {line["service"] for line in lines} == {"test"}
    assert "in fail" in lines[0]["exception"]
    assert "ValueError" in lines[3]["exception"]


def test_a_users_name_is_no_secret() -> None:
    """Of an address that holds a user and a password, the password alone is masked."""
    named = SETTINGS.model_copy(update={"nats_url": SecretStr("nats://messaging:hidden-one@nats")})
    masked = Masking(secrets_of(named)).text("messaging is ready, hidden-one")
    assert masked == f"messaging is ready, {MASK}"
